//! Recent requests of each client, as far as they affect the answer to its next stream.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::request::{JobKey, SyncRequest};
use crate::core::compat::plugin::{Inventory, continues_job};
use crate::core::domain::kind::Kind;
use crate::core::http::url::BackendUrl;

/// The maximum number of clients kept.
const MAX_CLIENTS: usize = 1024;
/// How long an idle client is kept.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// The maximum time between two stages of one plugin job. The plugin takes 1 or 2 s between stages, and 24 s with its
/// retries.
const BETWEEN_STAGES: Duration = Duration::from_secs(120);

/// The recent clients of this process.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<HashMap<ClientId, Client>>);

/// The identity of a client: the hash of its API key and its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientId {
    backend: BackendUrl,
    credential: Option<[u8; 32]>,
    address: Option<IpAddr>,
}

impl ClientId {
    pub(super) fn new(backend: BackendUrl, credential: Option<[u8; 32]>, address: Option<IpAddr>) -> Self {
        Self { backend, credential, address }
    }

    /// The client of `request`.
    pub(super) fn from_request(request: &SyncRequest, key: &JobKey) -> Self {
        Self::new(request.backend.url().clone(), key.credential(), request.client())
    }
}

#[derive(Debug)]
struct Client {
    seen: Instant,
    /// The stages of its current job, in order.
    stages: Vec<Kind>,
    /// The inventories that were answered with an empty list because the backend cannot read them.
    missing: Vec<Inventory>,
    /// The notices sent since its job began.
    notified: Vec<String>,
}

impl Clients {
    /// Notes the start of a plugin job. The client made the request that the plugin makes only at the start of a job.
    pub(super) fn begins_job(&self, id: ClientId) {
        self.with(id, |client| {
            client.stages.clear();
            client.notified.clear();
        });
    }

    /// Notes that `inventory` was answered with an empty list.
    pub(super) fn note_missing(&self, id: ClientId, inventory: Inventory) {
        self.with(id, |client| {
            client.missing.retain(|known| *known != inventory);
            client.missing.push(inventory);
        });
    }

    /// Notes that the backend has answered with `inventory`.
    pub(super) fn note_read(&self, id: ClientId, inventory: Inventory) {
        self.with(id, |client| client.missing.retain(|known| *known != inventory));
    }

    /// Notes that the client runs the stage `kind`. Returns whether it is a later stage of the same job.
    pub(super) fn note_stage(&self, id: ClientId, kind: Kind) -> bool {
        self.with(id, |client| {
            if client.seen.elapsed() > BETWEEN_STAGES {
                client.stages.clear();
                client.notified.clear();
            }
            let is_part = continues_job(&client.stages, kind);
            if !is_part {
                client.stages.clear();
            }
            if client.stages.last() != Some(&kind) {
                client.stages.push(kind);
            }
            is_part
        })
    }

    /// Notes the end of the client's stream.
    pub(super) fn ended(&self, id: ClientId) {
        self.with(id, |_| ());
    }

    /// The inventories that were answered with an empty list.
    pub(super) fn missing(&self, id: ClientId) -> Vec<Inventory> {
        self.with(id, |client| client.missing.clone())
    }

    /// Returns the `notices` that the client has not received since its job began.
    pub(super) fn new_notices(&self, id: ClientId, mut notices: Vec<String>) -> Vec<String> {
        self.with(id, |client| notices.retain(|notice| !client.notified.contains(notice)));
        notices
    }

    /// Notes that `notices` were sent to the client.
    pub(super) fn mark_notified(&self, id: ClientId, notices: Vec<String>) {
        self.with(id, |client| client.notified.extend(notices));
    }

    fn with<T>(&self, id: ClientId, what: impl FnOnce(&mut Client) -> T) -> T {
        let mut clients = self.0.lock();
        let now = Instant::now();
        if !clients.contains_key(&id) && clients.len() >= MAX_CLIENTS {
            clients.retain(|_, client| client.seen.elapsed() < REMEMBERED);
            let oldest = clients.iter().min_by_key(|(_, client)| client.seen).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest.filter(|_| clients.len() >= MAX_CLIENTS) {
                clients.remove(&oldest);
            }
        }
        let new_client =
            || Client { seen: now, stages: Vec::new(), missing: Vec::new(), notified: Vec::new() };
        let client = clients.entry(id).or_insert_with(new_client);
        if client.seen.elapsed() >= REMEMBERED {
            *client = new_client();
        }
        let result = what(client);
        client.seen = now;
        result
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn netbox() -> ClientId {
        ClientId::new("http://backend".parse().unwrap(), Some([1; 32]), None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stage_is_part_of_a_job_that_the_same_client_has_begun_just_before() {
        let clients = Clients::default();
        clients.begins_job(netbox());
        assert!(!clients.note_stage(netbox(), Kind::Devices));
        advance(BETWEEN_STAGES * 2).await;
        clients.ended(netbox());
        advance(Duration::from_secs(2)).await;
        assert!(clients.note_stage(netbox(), Kind::Storage));
        assert!(clients.note_stage(netbox(), Kind::Storage), "it is tried again");
        let other = ClientId::new("http://backend".parse().unwrap(), Some([2; 32]), None);
        assert!(!clients.note_stage(other, Kind::VirtualDisks));
        assert!(clients.note_stage(netbox(), Kind::VirtualDisks));
        clients.begins_job(netbox());
        assert!(!clients.note_stage(netbox(), Kind::Storage), "it is a job of its own");
        clients.note_stage(netbox(), Kind::Devices);
        advance(BETWEEN_STAGES + Duration::from_secs(1)).await;
        assert!(!clients.note_stage(netbox(), Kind::Storage), "too long after");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_gets_a_notice_once_per_job() {
        let clients = Clients::default();
        let notice = || vec!["no firewalls".to_owned()];
        clients.begins_job(netbox());
        assert_eq!(clients.new_notices(netbox(), notice()), notice());
        assert_eq!(clients.new_notices(netbox(), notice()), notice(), "the run before was refused");
        clients.mark_notified(netbox(), notice());
        assert!(clients.new_notices(netbox(), notice()).is_empty());
        clients.begins_job(netbox());
        assert_eq!(clients.new_notices(netbox(), notice()), notice());
        clients.mark_notified(netbox(), notice());
        advance(BETWEEN_STAGES + Duration::from_secs(1)).await;
        clients.note_stage(netbox(), Kind::FullUpdate);
        assert_eq!(clients.new_notices(netbox(), notice()), notice(), "one that reads nothing first");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_backend_cannot_read_is_known_until_it_can() {
        let clients = Clients::default();
        for inventory in [Inventory::Firewalls, Inventory::CpuModels] {
            clients.note_missing(netbox(), inventory);
        }
        assert_eq!(clients.missing(netbox()), [Inventory::Firewalls, Inventory::CpuModels]);
        clients.note_read(netbox(), Inventory::Firewalls);
        assert_eq!(clients.missing(netbox()), [Inventory::CpuModels]);
        advance(REMEMBERED).await;
        assert_eq!(clients.missing(netbox()), []);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_clients_are_remembered_than_there_is_room_for() {
        let clients = Clients::default();
        let client = |number: u8, other: u8| {
            let mut key = [number; 32];
            key[0] = other;
            ClientId::new("http://backend".parse().unwrap(), Some(key), None)
        };
        clients.note_missing(client(9, 9), Inventory::Firewalls);
        for (number, other) in (0..8).flat_map(|number| (0..=255).map(move |other| (number, other))) {
            advance(Duration::from_millis(1)).await;
            clients.note_missing(client(number, other), Inventory::Firewalls);
        }
        assert_eq!(clients.missing(client(7, 255)), [Inventory::Firewalls]);
        assert_eq!(clients.0.lock().len(), MAX_CLIENTS);
        assert_eq!(clients.missing(client(9, 9)), [], "the oldest has gone");
    }
}
