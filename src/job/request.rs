//! A sync request, and the key that identifies identical requests.

use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::backend::{Backend, RequestIdentity};
use crate::core::domain::credential::{ApiKey, hexadecimal};
use crate::core::domain::kind::SyncEndpoint;
use crate::core::wire::sse::frame::FrameName;
use crate::ledger::LoggedFrame;

/// A sync request of a client.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// The backend.
    pub backend: Arc<Backend>,
    /// The endpoint to run.
    pub endpoint: SyncEndpoint,
    /// The client's query without the bridge's own parameters, byte for byte.
    pub query: String,
    /// The optional events that the job keeps.
    pub selection: EventSelection,
    /// Prefer the backend's `/ws`, if it supports the sync there.
    pub over_socket: bool,
    /// The request was made to a stream endpoint, as the stages of the NetBox plugin do.
    pub to_stream: bool,
    /// The key and the headers for the backend.
    pub identity: RequestIdentity,
    /// The address of the client.
    pub address: Option<String>,
    /// The actor that the client names.
    pub actor: Option<String>,
}

impl SyncRequest {
    /// The id of the request, as its `X-Request-ID` names it.
    pub(super) fn id(&self) -> Option<&str> {
        self.identity.forwarded_headers.get("x-request-id")?.to_str().ok()
    }

    /// The IP address of the client, if `address` is one.
    pub(super) fn client(&self) -> Option<IpAddr> {
        self.address.as_ref().and_then(|address| address.parse().ok())
    }
}

/// The optional events that a job keeps, or that a client requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventSelection {
    /// Events of the backend's own types.
    pub all_events: bool,
    /// The backend's own payload of each object.
    pub payloads: bool,
}

impl EventSelection {
    /// The notice for a client that requested events which the job does not keep, because its first client did not
    /// select them.
    pub fn notice(self, requested: Self) -> Option<String> {
        let missing = self.missing(requested)?;
        Some(format!("This job was there already, and keeps no {missing}."))
    }

    /// The notice for a client that requested events which the stored `frames` of an ended job do not contain.
    pub fn ledger_notice(requested: Self, frames: &[LoggedFrame]) -> Option<String> {
        let all_events = frames.iter().any(|frame| frame.frame.name == FrameName::Extra);
        let missing = Self { all_events, payloads: false }.missing(requested)?;
        Some(format!("This job has ended, and the rest of its record has no {missing}."))
    }

    fn missing(self, requested: Self) -> Option<&'static str> {
        match (requested.payloads && !self.payloads, requested.all_events && !self.all_events) {
            (false, false) => None,
            (true, false) => Some("payloads"),
            (false, true) => Some("events of the backend's own types"),
            (true, true) => Some("payloads or events of the backend's own types"),
        }
    }
}

/// Identifies the work of a request. Two requests with equal keys are for the same job if they are for one backend
/// ([`BackendId::is_identical`](crate::backend::BackendId::is_identical)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobKey {
    endpoint: SyncEndpoint,
    query: String,
    /// A hash, so that the key itself is not kept beyond its request.
    credential: Option<[u8; 32]>,
}

impl JobKey {
    /// The job key of `request`. `salt` is a secret of the process.
    pub fn new(request: &SyncRequest, salt: &[u8; 32]) -> Self {
        Self {
            endpoint: request.endpoint,
            query: scope(&request.query),
            credential: request.identity.key.as_ref().map(|key| hash(salt, key)),
        }
    }

    /// The hash of the client's key, if it has one.
    pub(super) fn credential(&self) -> Option<[u8; 32]> {
        self.credential
    }

    /// The endpoint to run.
    pub fn endpoint(&self) -> SyncEndpoint {
        self.endpoint
    }
}

/// The part of a query that defines the work. `run_id` is removed: it only names a run.
pub(super) fn scope(query: &str) -> String {
    let parts: Vec<&str> =
        query.split('&').filter(|part| part.split('=').next().is_some_and(|name| name != "run_id")).collect();
    parts.join("&")
}

/// A short fingerprint of a credential, keyed with the `secret` of the ledger. Without the secret it reveals nothing;
/// with it, a candidate key can be checked.
pub(super) fn fingerprint(secret: &[u8; 32], credential: &ApiKey) -> String {
    hexadecimal(&hash(secret, credential)[..8])
}

pub(super) fn hash(salt: &[u8; 32], credential: &ApiKey) -> [u8; 32] {
    Sha256::new_with_prefix(salt).chain_update(credential.expose()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_run_is_no_part_of_what_it_does() {
        assert_eq!(
            scope("run_id=1&proxmox_endpoint_ids=1,2&&x=%20&run_id=b"),
            "proxmox_endpoint_ids=1,2&&x=%20"
        );
        assert_eq!(scope("run_ids=1&my_run_id=2"), "run_ids=1&my_run_id=2");
        assert_eq!(scope(""), "");
    }

    #[test]
    fn a_fingerprint_distinguishes_keys_and_reveals_nothing_without_its_secret() {
        let (one, other): (ApiKey, ApiKey) = ("first-key".parse().unwrap(), "other-key".parse().unwrap());
        let here = fingerprint(&[1; 32], &one);
        assert_eq!(here, fingerprint(&[1; 32], &one));
        assert_ne!(here, fingerprint(&[1; 32], &other));
        assert_ne!(here, fingerprint(&[2; 32], &one));
        assert_eq!(here.len(), 16);
    }
}
