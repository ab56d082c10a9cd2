//! The front: what passes through it, what does not, and what it makes up for.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

#[path = "front/backend.rs"]
mod backend;
#[path = "front/backends.rs"]
mod backends;
mod bridge;
#[path = "front/compat.rs"]
mod compat;
#[path = "front/hostile.rs"]
mod hostile;
#[path = "front/http2.rs"]
mod http2;
#[path = "front/limits.rs"]
mod limits;
#[path = "front/netbox.rs"]
mod netbox;
#[path = "front/netbox_access.rs"]
mod netbox_access;
#[path = "front/netbox_backends.rs"]
mod netbox_backends;
#[path = "front/netbox_between.rs"]
mod netbox_between;
#[path = "front/netbox_faults.rs"]
mod netbox_faults;
#[path = "front/netbox_recorded.rs"]
mod netbox_recorded;
#[path = "front/netbox_rules.rs"]
mod netbox_rules;
#[path = "front/passthrough.rs"]
mod passthrough;
#[path = "front/reload.rs"]
mod reload;
#[path = "front/shield.rs"]
mod shield;
#[path = "front/shims.rs"]
mod shims;
#[path = "front/socket.rs"]
mod socket;
mod support;
#[path = "front/tls.rs"]
mod tls;
#[path = "front/tunnel.rs"]
mod tunnel;
