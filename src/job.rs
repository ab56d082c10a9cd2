//! A job: one sync on one backend, from request to outcome.
//!
//! The bridge owns the job. Clients only watch it: they may attach and detach at any time. A running job is never
//! started a second time, and its outcome is recorded in the ledger.

mod clients;
mod concurrency;
mod connection;
mod cooldown;
mod failures;
mod handle;
mod history;
mod lifecycle;
mod log;
mod record_writer;
mod recorder;
mod recordings;
mod registry;
mod request;
mod runner;
mod secrets;
mod service;

pub use cooldown::CoolingDown;
pub use handle::{Job, StartResult, Watcher};
pub use history::History;
pub use log::{Batch, Cursor, FIRST, JobLog, LogMemory};
pub use recordings::recordings;
pub use registry::{AdmitError, AttachOptions, Attached, BackendLoad, Registry, Replay, retention};
pub use request::{EventSelection, JobKey, SyncRequest};
pub use secrets::SecretStore;
