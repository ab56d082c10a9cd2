//! A compatibility proxy that stands in front of ProxBox backends of any age.
//!
//! ProxBox copies a Proxmox inventory into NetBox. Its backend has told of its progress in many ways:
//! over a WebSocket, in server-sent events of changing vocabularies, or not at all. The bridge drives a
//! backend in whatever way its age allows, and gives readers one stream of `step`, `error` and
//! `complete` events that none of them trips over.
//!
//! | module | what it is |
//! |---|---|
//! | [`core`] | everything that decides: parsers, dialects, the normaliser, sessions |
//! | [`config`] | file, environment and flags, one validated configuration |
//! | [`tcp`] | options of TCP sockets |
//! | [`tls`] | certificates, trust, and what went wrong with them |
//! | [`backend`] | connections to a backend, and what it can do |
//! | [`job`] | one sync, from request to outcome, and its log |
//! | [`ledger`] | the durable record of jobs |
//! | [`deadline`] | time limits for what a peer sends |
//! | [`private`] | files that only the user of the bridge can read |
//! | [`app`] | the state in force: configuration, backends, jobs |
//! | [`proxy`] | requests for a backend: streams, `/ws`, everything else |
//! | [`admin`] | the admin listener: health, metrics, jobs API, live page |
//! | [`server`] | listeners and connections |
//! | [`respond`] | the one table from what happened to HTTP answers |
//! | [`telemetry`] | what is logged and counted |
//! | [`recording`], [`replay`] | what a backend once said, and a backend that says it again |
//! | [`cli`] | the subcommands |
//!
//! Dependencies point one way: `cli → server → admin → proxy → app → job → backend, ledger → core`; what has to do with
//! TLS may use [`tls`], and what writes files [`private`]; these two use none of them.

pub mod admin;
pub mod app;
pub mod backend;
pub mod cli;
pub mod config;
pub mod core;
pub mod deadline;
pub mod job;
pub mod ledger;
pub mod private;
pub mod proxy;
pub mod recording;
pub mod replay;
pub mod respond;
pub mod server;
pub mod tcp;
pub mod telemetry;
pub mod tls;
