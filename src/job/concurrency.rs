//! Concurrency limits of the backends.
//!
//! Running jobs and cool-downs take permits from the same limit. A permit is granted to the oldest waiting request
//! when one is released, or when a new configuration raises the limit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backend::{Backend, BackendId};
use crate::config::Config;
use crate::ledger::JobId;

/// The concurrency limits of all backends. Clones share one state.
#[derive(Clone, Debug)]
pub(super) struct ConcurrencyLimit(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    /// The granted permits, by ticket.
    held: BTreeMap<u64, PermitRequest>,
    /// The waiting requests, by ticket. Tickets are numbered in the order of the requests.
    waiting: BTreeMap<u64, PermitRequest>,
    next: u64,
    cooling_down: HashMap<JobId, CooldownHold>,
}

/// A permit of a backend, granted or waiting.
#[derive(Debug)]
struct PermitRequest {
    backend: BackendId,
    /// The limit at the time of the request. It applies when the backend is no longer configured.
    concurrency: usize,
    is_granted: watch::Sender<bool>,
}

/// A cool-down that holds a permit.
#[derive(Debug)]
struct CooldownHold {
    backend: BackendId,
    until: watch::Sender<Instant>,
}

/// A permit, granted or waiting. Dropping it releases the permit or cancels the request.
#[derive(Debug)]
pub(super) struct Permit {
    limit: ConcurrencyLimit,
    ticket: u64,
    backend: BackendId,
    is_granted: watch::Receiver<bool>,
}

impl ConcurrencyLimit {
    /// Creates the limits of the backends in `config`.
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            config,
            held: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next: 0,
            cooling_down: HashMap::new(),
        })))
    }

    /// Applies the limits of `config`. If a limit is lower now, no permit is granted until enough of them are
    /// released.
    pub(super) fn configure(&self, config: Arc<Config>) {
        let mut inner = self.inner();
        inner.config = config;
        inner.grant();
    }

    /// Requests a permit on `backend`. It is granted as soon as the limit allows.
    pub(super) fn request(&self, backend: &Backend) -> Permit {
        self.enqueue(backend, |inner, ticket, claim| {
            inner.waiting.insert(ticket, claim);
            inner.grant();
        })
    }

    /// Takes a permit on `backend` at once, even beyond the limit. It is for work that already runs there.
    pub(super) fn acquire_now(&self, backend: &Backend) -> Permit {
        self.enqueue(backend, |inner, ticket, claim| {
            claim.is_granted.send_replace(true);
            inner.held.insert(ticket, claim);
        })
    }

    fn enqueue(&self, backend: &Backend, enter: impl FnOnce(&mut Inner, u64, PermitRequest)) -> Permit {
        let (sender, is_given) = watch::channel(false);
        let concurrency = backend.config().concurrency;
        let claim = PermitRequest { backend: backend.id().clone(), concurrency, is_granted: sender };
        let mut inner = self.inner();
        let ticket = inner.next;
        inner.next += 1;
        enter(&mut inner, ticket, claim);
        Permit { limit: self.clone(), ticket, backend: backend.id().clone(), is_granted: is_given }
    }

    /// Registers the cool-down of `job`, which holds a permit on `backend` until `until`. The receiver follows
    /// changes of that time, and closes when the cool-down ends.
    pub(super) fn cool_down(
        &self,
        job: JobId,
        backend: BackendId,
        until: Instant,
    ) -> watch::Receiver<Instant> {
        let (until, receiver) = watch::channel(until);
        self.inner().cooling_down.insert(job, CooldownHold { backend, until });
        receiver
    }

    /// Extends the cool-down of `job` to `until`, unless it has ended.
    pub(super) fn extend(&self, job: JobId, until: Instant) {
        if let Some(hold) = self.inner().cooling_down.get(&job) {
            hold.until.send_replace(until);
        }
    }

    /// Ends the cool-down of `job`. Returns whether there was one.
    pub(super) fn end_cooldown(&self, job: JobId) -> bool {
        self.inner().cooling_down.remove(&job).is_some()
    }

    /// Returns whether the cool-down of `job` holds a permit.
    pub(super) fn is_cooling_down(&self, job: JobId) -> bool {
        self.inner().cooling_down.contains_key(&job)
    }

    /// The jobs whose cool-down holds a permit on `backend`, with the end of each, earliest first.
    pub(super) fn cooling_down(&self, backend: &BackendId) -> Vec<(JobId, Instant)> {
        let inner = self.inner();
        let on_backend = inner.cooling_down.iter().filter(|(_, cooling)| cooling.backend.is_same(backend));
        let mut jobs: Vec<_> = on_backend.map(|(job, cooling)| (*job, *cooling.until.borrow())).collect();
        jobs.sort_unstable_by_key(|(job, until)| (*until, *job));
        jobs
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock()
    }
}

impl Inner {
    /// Grants free permits to the oldest waiting requests.
    fn grant(&mut self) {
        // Requests for one backend are served in order: a later one does not overtake an earlier one.
        let mut full: Vec<BackendId> = Vec::new();
        let tickets: Vec<u64> = self.waiting.keys().copied().collect();
        for ticket in tickets {
            let Some(claim) = self.waiting.get(&ticket) else { continue };
            if full.iter().any(|backend| backend.is_same(&claim.backend)) {
                continue;
            }
            if !self.has_room(claim) {
                full.push(claim.backend.clone());
                continue;
            }
            if let Some(claim) = self.waiting.remove(&ticket) {
                claim.is_granted.send_replace(true);
                self.held.insert(ticket, claim);
            }
        }
    }

    /// Returns whether the backend of `claim` has a free permit. Where several configured entries reach one backend,
    /// the lowest limit applies.
    fn has_room(&self, claim: &PermitRequest) -> bool {
        let others = self.held.values().filter(|held| held.backend.is_same(&claim.backend));
        let (count, most) = others.fold((0, self.concurrency(claim)), |(count, most), held| {
            (count + 1, self.concurrency(held).min(most))
        });
        count < most
    }

    fn concurrency(&self, claim: &PermitRequest) -> usize {
        let configured = claim.backend.configured_in(&self.config.backends);
        configured.map_or(claim.concurrency, |backend| backend.concurrency)
    }
}

impl Permit {
    /// The backend of this permit.
    pub(super) fn backend(&self) -> &BackendId {
        &self.backend
    }

    /// Returns whether the permit was granted.
    pub(super) fn is_granted(&self) -> bool {
        *self.is_granted.borrow()
    }

    /// Waits until the permit is granted. Cancel safe.
    pub(super) async fn granted(&mut self) {
        // The sender lives as long as this permit.
        let _ = self.is_granted.wait_for(|is_given| *is_given).await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut inner = self.limit.inner();
        inner.waiting.remove(&self.ticket);
        inner.held.remove(&self.ticket);
        inner.grant();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    fn config(backends: &[(&str, &str, usize)]) -> Arc<Config> {
        let block = |(name, url, concurrency): &(&str, &str, usize)| {
            format!(
                "[[backend]]\nname = \"{name}\"\nurl = \"{url}\"\nhosts = [\"{name}\"]\nconcurrency = {concurrency}\n"
            )
        };
        let file: String = backends.iter().map(block).collect();
        let flags = Flags { config: Some("bridge.toml".to_owned()), ..Flags::default() };
        Arc::new(Config::parse(&flags, [], |_| Ok(file.as_bytes().to_vec())).unwrap())
    }

    /// The backend at `index` in `config`.
    fn backend(config: &Config, index: usize) -> Backend {
        Backend::new(config.backends[index].clone()).unwrap()
    }

    fn granted(permits: &[Permit]) -> Vec<bool> {
        permits.iter().map(Permit::is_granted).collect()
    }

    #[test]
    fn a_lower_limit_applies_to_waiting_jobs_and_a_higher_one_grants_permits_at_once() {
        let four = config(&[("a", "http://127.0.0.1:1", 4)]);
        let (one, backend) = (config(&[("a", "http://127.0.0.1:1", 1)]), backend(&four, 0));
        let limit = ConcurrencyLimit::new(Arc::clone(&four));
        let mut running: Vec<Permit> = (0..4).map(|_| limit.request(&backend)).collect();
        let waiting: Vec<Permit> = (0..3).map(|_| limit.request(&backend)).collect();
        assert_eq!((granted(&running), granted(&waiting)), (vec![true; 4], vec![false; 3]));
        limit.configure(one);
        for left in (1..4).rev() {
            running.truncate(left);
            assert_eq!(granted(&waiting), [false; 3], "{left} still run");
        }
        drop(running);
        assert_eq!(granted(&waiting), [true, false, false], "in the order in which they came");
        limit.configure(four);
        assert_eq!(granted(&waiting), [true; 3], "nobody else has come");
    }

    #[test]
    fn a_slot_whose_waiter_is_gone_goes_to_the_next() {
        let config = config(&[("a", "http://127.0.0.1:1", 1)]);
        let (limit, backend) = (ConcurrencyLimit::new(Arc::clone(&config)), backend(&config, 0));
        let running = limit.request(&backend);
        let (gone, next) = (limit.request(&backend), limit.request(&backend));
        drop(gone);
        assert!(!next.is_granted());
        drop(running);
        assert!(next.is_granted());
    }

    #[test]
    fn a_permit_held_by_a_cool_down_counts_even_above_a_lowered_limit() {
        let config = config(&[("a", "http://127.0.0.1:1", 1)]);
        let (limit, backend) = (ConcurrencyLimit::new(Arc::clone(&config)), backend(&config, 0));
        let (one, other) = (limit.acquire_now(&backend), limit.acquire_now(&backend));
        let waiting = limit.request(&backend);
        drop(one);
        assert!(!waiting.is_granted());
        drop(other);
        assert!(waiting.is_granted());
    }

    #[test]
    fn a_backend_under_a_new_url_or_two_names_has_one_limit_and_others_have_their_own() {
        let before = config(&[("a", "http://127.0.0.1:1", 1), ("b", "http://127.0.0.1:2", 2)]);
        let after = config(&[("a", "http://127.0.0.1:3", 1), ("b", "http://[::1]:3", 2)]);
        let limit = ConcurrencyLimit::new(Arc::clone(&before));
        let old = limit.request(&backend(&before, 0));
        let beside = limit.request(&backend(&before, 1));
        limit.configure(Arc::clone(&after));
        let moved = limit.request(&backend(&after, 0));
        assert_eq!((old.is_granted(), beside.is_granted(), moved.is_granted()), (true, true, false));
        drop((old, beside));
        assert!(moved.is_granted());
        let twin = limit.request(&backend(&after, 1));
        assert!(!twin.is_granted(), "it is the same backend, which runs one");
        drop(moved);
        assert!(twin.is_granted());
    }
}
