//! A job: one sync on one backend, from request to outcome.
//!
//! It belongs to the bridge. Clients watch it, and come and go; it is never started a second time while it
//! runs, and what became of it stands in the ledger.

mod clients;
mod concurrency;
mod connection;
mod cooldown;
mod handle;
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
pub use handle::{Job, Kept, Started, Watching};
pub use log::{Batch, Cursor, FIRST, Log, Logged, Memory};
pub use recordings::recordings;
pub use registry::{Arrival, Denied, Entered, Load, Registry, retention};
pub use request::{Key, Request};
pub use runner::held_back;
pub use secrets::Secrets;
