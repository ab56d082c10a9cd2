//! What a client asks for, and when that is what another one has asked for.

use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::backend::{Backend, RequestIdentity};
use crate::core::domain::credential::{ApiKey, hexadecimal};
use crate::core::domain::kind::SyncEndpoint;

/// A sync that a client asks for.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// The backend.
    pub backend: Arc<Backend>,
    /// What is to be synchronised.
    pub endpoint: SyncEndpoint,
    /// The client's query without the bridge's own parameters, byte for byte.
    pub query: String,
    /// Pass the backend's own event types on.
    pub all_events: bool,
    /// Keep the backend's own account of an object.
    pub payloads: bool,
    /// Prefer the backend's `/ws`, if it has one that can do it.
    pub over_socket: bool,
    /// The client came to a stream endpoint, as the stages of the NetBox plugin do.
    pub to_stream: bool,
    /// The key and the headers that go to the backend.
    pub identity: RequestIdentity,
    /// The address that the client has.
    pub address: Option<String>,
    /// Who the client says it is.
    pub actor: Option<String>,
}

impl SyncRequest {
    /// The address of the client, if it is one.
    pub(super) fn client(&self) -> Option<IpAddr> {
        self.address.as_ref().and_then(|address| address.parse().ok())
    }
}

/// Two requests with the same key are for one and the same job, if they are for one backend
/// ([`BackendId::is_identical`](crate::backend::BackendId::is_identical)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobKey {
    endpoint: SyncEndpoint,
    query: String,
    /// Hashed, so that no key is kept longer than the request that brought it.
    credential: Option<[u8; 32]>,
}

impl JobKey {
    /// The key of `request`. `salt` is a secret of the process.
    pub fn new(request: &SyncRequest, salt: &[u8; 32]) -> Self {
        Self {
            endpoint: request.endpoint,
            query: scope(&request.query),
            credential: request.identity.key.as_ref().map(|key| hash(salt, key)),
        }
    }

    /// What stands for the key of the client, if it has one.
    pub(super) fn credential(&self) -> Option<[u8; 32]> {
        self.credential
    }

    /// What is synchronised.
    pub fn endpoint(&self) -> SyncEndpoint {
        self.endpoint
    }
}

/// What a query says about the work: a `run_id` only names one run of it.
pub(super) fn scope(query: &str) -> String {
    let parts: Vec<&str> =
        query.split('&').filter(|part| part.split('=').next().is_some_and(|name| name != "run_id")).collect();
    parts.join("&")
}

/// A short fingerprint of a credential. `secret` is that of the ledger: without it, nothing can be learned
/// from the fingerprint, and with it, only whether a key may be the one.
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
    fn a_fingerprint_tells_keys_apart_and_says_nothing_without_its_secret() {
        let (one, other): (ApiKey, ApiKey) = ("first-key".parse().unwrap(), "other-key".parse().unwrap());
        let here = fingerprint(&[1; 32], &one);
        assert_eq!(here, fingerprint(&[1; 32], &one));
        assert_ne!(here, fingerprint(&[1; 32], &other));
        assert_ne!(here, fingerprint(&[2; 32], &one));
        assert_eq!(here.len(), 16);
    }
}
