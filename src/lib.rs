//! A compatibility proxy in front of ProxBox backends of any release.
//!
//! ProxBox copies a Proxmox inventory into NetBox. Its backends have reported progress in several ways: over a
//! WebSocket, as server-sent events of changing vocabularies, or not at all. The bridge drives a backend in the way
//! that its release supports, and gives readers one stream of `step`, `error` and `complete` events that every plugin
//! release can parse.
//!
//! | module | what it is |
//! |---|---|
//! | [`core`] | all decisions: parsers, dialects, the normalizer, sessions |
//! | [`config`] | file, environment and flags as one validated configuration |
//! | [`tcp`] | options of TCP sockets |
//! | [`tls`] | certificates, trust, and explanations of TLS errors |
//! | [`client`] | HTTP requests to other servers, and the client of a running bridge |
//! | [`backend`] | connections to a backend, and its capabilities |
//! | [`job`] | one sync, from request to outcome, and its log |
//! | [`ledger`] | the durable record of jobs |
//! | [`deadline`] | time limits for data from a peer |
//! | [`private`] | files that only the user of the bridge can read |
//! | [`notify`] | the delivery of notifications |
//! | [`app`] | the state in force: configuration, backends, jobs |
//! | [`proxy`] | requests for a backend: streams, `/ws`, everything else |
//! | [`admin`] | the admin listener: health, metrics, jobs API, live page |
//! | [`server`] | listeners and connections |
//! | [`respond`] | the single mapping of errors to HTTP responses |
//! | [`telemetry`] | logs and metrics |
//! | [`recording`], [`record`], [`replay`] | recordings of backends, their recorder, and a server that replays them |
//! | [`cli`] | the subcommands |
//!
//! Dependencies point one way: `cli → server → admin → proxy → app → job → backend, ledger → core`. Modules that use
//! TLS may use [`tls`], and those that write files may use [`private`]. These two depend on none of the others.

pub mod admin;
pub mod app;
pub mod backend;
pub mod cli;
pub mod client;
pub mod config;
pub mod core;
pub mod deadline;
pub mod job;
pub mod ledger;
pub mod notify;
pub mod private;
pub mod proxy;
pub mod record;
pub mod recording;
pub mod replay;
pub mod respond;
pub mod server;
pub mod tcp;
pub mod telemetry;
pub mod tls;
