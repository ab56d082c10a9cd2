//! The client listener: requests that are forwarded, refused, answered and adapted.

mod backends;
mod compat;
mod cors;
mod cross_site;
mod event_streams;
mod hostile;
mod http2;
mod limits;
mod loops;
mod netbox;
mod netbox_access;
mod netbox_backends;
mod netbox_between;
mod netbox_faults;
mod netbox_recorded;
mod netbox_rules;
mod passthrough;
mod reload;
mod shield;
mod shims;
mod socket;
mod tls;
mod tunnel;
