//! Limits on concurrent use by clients.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::quality::RandomState;
use http::Response;
use http_body_util::BodyExt;
use parking_lot::Mutex;

use super::request::RequestContext;
use crate::config::Limits;
use crate::core::domain::credential::ApiKey;
use crate::core::http::limit::{Limit, limited_as};
use crate::respond::Body;
use crate::telemetry;

/// The number of slots in use, by key.
#[derive(Clone, Debug)]
pub struct Quota<K>(Arc<Mutex<Counts<K>>>);

type Counts<K> = HashMap<K, usize, RandomState>;

/// Slots in use. Dropping it releases them.
#[derive(Debug)]
pub struct QuotaGuard<K: Eq + Hash> {
    counts: Arc<Mutex<Counts<K>>>,
    keys: Vec<K>,
}

impl<K> Default for Quota<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Clone + Eq + Hash> Quota<K> {
    /// Takes one slot for every key in `quotas`, up to the limit of each; either all of them or none.
    ///
    /// # Errors
    ///
    /// The first limit that is exhausted.
    pub fn acquire(
        &self,
        quotas: impl IntoIterator<Item = (K, usize, Limit)>,
    ) -> Result<QuotaGuard<K>, Limit> {
        let mut counts = self.0.lock();
        let mut keys = Vec::new();
        for (key, most, limit) in quotas {
            if counts.get(&key).is_some_and(|count| *count >= most) {
                return Err(limit);
            }
            keys.push(key);
        }
        for key in &keys {
            *counts.entry(key.clone()).or_default() += 1;
        }
        Ok(QuotaGuard { counts: Arc::clone(&self.0), keys })
    }
}

impl<K: Eq + Hash> Drop for QuotaGuard<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        for key in &self.keys {
            if let Some(count) = counts.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(key);
                }
            }
        }
    }
}

/// The key that slots are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum QuotaKey {
    All,
    /// A client address, masked as the limits count it.
    Address(IpAddr),
    Key([u8; 32]),
}

/// A slot for one more stream or tunnel of `context`, opened with `key`.
pub(super) fn acquire_stream(
    context: &RequestContext,
    key: Option<&ApiKey>,
) -> Result<QuotaGuard<QuotaKey>, Limit> {
    let (limits, client) = (&context.state.config.limits, context.forwarded.client);
    let quotas = [
        (QuotaKey::All, limits.streams, Limit::Streams),
        (address_key(client, limits), limits.streams_per_address, Limit::StreamsPerAddress),
    ];
    let of_key = key.map(|key| key_quota(context, key));
    acquire(&context.proxy.streams, client, quotas.into_iter().chain(of_key))
}

/// A slot per key for one more stream of `context`, where the key is known late.
pub(super) fn acquire_key(context: &RequestContext, key: &ApiKey) -> Result<QuotaGuard<QuotaKey>, Limit> {
    acquire(&context.proxy.streams, context.forwarded.client, [key_quota(context, key)])
}

/// A slot for one more request of `context` in flight to the backend.
pub(super) fn acquire_request(context: &RequestContext) -> Result<QuotaGuard<QuotaKey>, Limit> {
    request_slot_among(&context.proxy.requests, &context.state.config.limits, context.forwarded.client)
}

/// A slot for one more request of `client` in `requests`, under `limits`.
pub(super) fn request_slot_among(
    requests: &Quota<QuotaKey>,
    limits: &Limits,
    client: IpAddr,
) -> Result<QuotaGuard<QuotaKey>, Limit> {
    let quotas = [
        (QuotaKey::All, limits.requests, Limit::Requests),
        (address_key(client, limits), limits.requests_per_address, Limit::RequestsPerAddress),
    ];
    acquire(requests, client, quotas)
}

fn address_key(client: IpAddr, limits: &Limits) -> QuotaKey {
    QuotaKey::Address(limited_as(client, limits.ipv6_prefix))
}

fn key_quota(context: &RequestContext, key: &ApiKey) -> (QuotaKey, usize, Limit) {
    let key = QuotaKey::Key(context.key_hash(key));
    (key, context.state.config.limits.streams_per_key, Limit::StreamsPerKey)
}

fn acquire(
    slots: &Quota<QuotaKey>,
    client: IpAddr,
    quotas: impl IntoIterator<Item = (QuotaKey, usize, Limit)>,
) -> Result<QuotaGuard<QuotaKey>, Limit> {
    slots.acquire(quotas).inspect_err(|&limit| telemetry::OverLimit { limit, client }.emit())
}

/// Holds the slot until the body of `response` is sent or dropped.
pub(super) fn hold_until_sent(response: Response<Body>, slot: QuotaGuard<QuotaKey>) -> Response<Body> {
    response.map(|body| {
        let held = body.map_frame(move |frame| {
            let _held = &slot;
            frame
        });
        held.boxed_unsync()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_taken_wholly_or_not_at_all_and_given_back() {
        let slots = Quota::default();
        let wanted = |name: &'static str| [("all", 2, Limit::Streams), (name, 1, Limit::StreamsPerKey)];
        let first = slots.acquire(wanted("anna")).unwrap();
        assert_eq!(slots.acquire(wanted("anna")).unwrap_err(), Limit::StreamsPerKey);
        let second = slots.acquire(wanted("bert")).unwrap();
        assert_eq!(slots.acquire(wanted("cleo")).unwrap_err(), Limit::Streams);
        drop(first);
        let third = slots.acquire(wanted("anna")).unwrap();
        drop((second, third));
        assert!(slots.0.lock().is_empty(), "nobody is remembered for nothing");
    }
}
