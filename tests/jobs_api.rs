//! The jobs, as whoever asks the admin listener sees them. Every answer is compared with the OpenAPI document.
#![allow(unreachable_pub, reason = "nothing here is for anybody else")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod bridge;
mod support;

#[path = "jobs_api/begin.rs"]
mod begin;
#[path = "jobs_api/document.rs"]
mod document;
#[path = "jobs_api/past.rs"]
mod past;
#[path = "jobs_api/paths.rs"]
mod paths;

const OLD: &str = "0.0.2.post1";
const NEW: &str = "0.0.30.post2";
const DEVICES: &str = "/dcim/devices/create/stream";

fn key() -> [(&'static str, &'static str); 1] {
    [("X-Proxbox-API-Key", bridge::KEY)]
}
