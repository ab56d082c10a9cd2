//! The places to run in that backends have.
//!
//! A place is given when one becomes free, or when the configuration gives more or fewer of them, to those that
//! wait, in the order in which they came. Jobs that run and cool-downs take the same places.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::backend::{Backend, BackendId};
use crate::config::Config;
use crate::ledger::JobId;

/// The places of all backends. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct ConcurrencyLimit(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    /// Those that are taken, by their ticket.
    held: BTreeMap<u64, PermitRequest>,
    /// Those that are waited for. Tickets are numbered in the order in which they were drawn.
    waiting: BTreeMap<u64, PermitRequest>,
    next: u64,
    cooling_down: HashMap<JobId, CooldownHold>,
}

/// A place on a backend that is taken, or waited for.
#[derive(Debug)]
struct PermitRequest {
    backend: BackendId,
    /// How many there were when it was asked for. It counts when the backend is not configured any more.
    concurrency: usize,
    is_granted: watch::Sender<bool>,
}

/// A cool-down that takes a place.
#[derive(Debug)]
struct CooldownHold {
    backend: BackendId,
    until: watch::Sender<Instant>,
}

/// A place that was asked for, whether it is given or still waited for. Dropping it frees it.
#[derive(Debug)]
pub(super) struct Permit {
    limit: ConcurrencyLimit,
    ticket: u64,
    backend: BackendId,
    is_granted: watch::Receiver<bool>,
}

impl ConcurrencyLimit {
    /// The places that `config` gives its backends.
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            config,
            held: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next: 0,
            cooling_down: HashMap::new(),
        })))
    }

    /// From now on there are as many as `config` says. Where those are fewer, nobody is given one before enough of
    /// those that are taken are free.
    pub(super) fn configure(&self, config: Arc<Config>) {
        let mut inner = self.inner();
        inner.config = config;
        inner.grant();
    }

    /// Asks for a place on `backend`, which is given as soon as there is one.
    pub(super) fn request(&self, backend: &Backend) -> Permit {
        self.enqueue(backend, |inner, ticket, claim| {
            inner.waiting.insert(ticket, claim);
            inner.grant();
        })
    }

    /// Takes a place on `backend`, also where that is one more than there are: what runs there runs.
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

    /// Notes that the cool-down of `job` takes a place on `backend` until then. What comes back knows when that
    /// changes, and ends when it takes none any more.
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

    /// Makes the cool-down of `job` last until then, if it is not over.
    pub(super) fn extend(&self, job: JobId, until: Instant) {
        if let Some(hold) = self.inner().cooling_down.get(&job) {
            hold.until.send_replace(until);
        }
    }

    /// Ends the cool-down of `job`, and says whether there was one.
    pub(super) fn end_cooldown(&self, job: JobId) -> bool {
        self.inner().cooling_down.remove(&job).is_some()
    }

    /// The jobs whose cool-down takes a place on `backend`, and until when. The one that is over first is in front.
    pub(super) fn cooling_down(&self, backend: &BackendId) -> Vec<(JobId, Instant)> {
        let inner = self.inner();
        let on_backend = inner.cooling_down.iter().filter(|(_, cooling)| cooling.backend.is_same(backend));
        let mut jobs: Vec<_> = on_backend.map(|(job, cooling)| (*job, *cooling.until.borrow())).collect();
        jobs.sort_unstable_by_key(|(job, until)| (*until, *job));
        jobs
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Gives every place that is free to the first that waits for it.
    fn grant(&mut self) {
        // Nobody overtakes one that waits for the same backend.
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

    /// Whether one more may run on the backend of `claim`. Where several configurations lead to one backend, the
    /// smallest number counts.
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
    /// The backend that it is on.
    pub(super) fn backend(&self) -> &BackendId {
        &self.backend
    }

    /// Whether it was given.
    pub(super) fn is_granted(&self) -> bool {
        *self.is_granted.borrow()
    }

    /// Done when it was given. Dropping the future loses nothing.
    pub(super) async fn granted(&mut self) {
        // The sender is there as long as this place is.
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

    /// The backend with the number `index` of `config`.
    fn backend(config: &Config, index: usize) -> Backend {
        Backend::new(config.backends[index].clone()).unwrap()
    }

    fn granted(places: &[Permit]) -> Vec<bool> {
        places.iter().map(Permit::is_granted).collect()
    }

    #[test]
    fn a_lower_number_counts_for_those_that_wait_and_a_higher_one_gives_them_places_at_once() {
        let four = config(&[("a", "http://127.0.0.1:1", 4)]);
        let (one, backend) = (config(&[("a", "http://127.0.0.1:1", 1)]), backend(&four, 0));
        let places = ConcurrencyLimit::new(Arc::clone(&four));
        let mut running: Vec<Permit> = (0..4).map(|_| places.request(&backend)).collect();
        let waiting: Vec<Permit> = (0..3).map(|_| places.request(&backend)).collect();
        assert_eq!((granted(&running), granted(&waiting)), (vec![true; 4], vec![false; 3]));
        places.configure(one);
        for left in (1..4).rev() {
            running.truncate(left);
            assert_eq!(granted(&waiting), [false; 3], "{left} still run");
        }
        drop(running);
        assert_eq!(granted(&waiting), [true, false, false], "in the order in which they came");
        places.configure(four);
        assert_eq!(granted(&waiting), [true; 3], "nobody else has come");
    }

    #[test]
    fn a_place_that_nobody_waits_for_any_more_is_given_to_the_next() {
        let config = config(&[("a", "http://127.0.0.1:1", 1)]);
        let (places, backend) = (ConcurrencyLimit::new(Arc::clone(&config)), backend(&config, 0));
        let running = places.request(&backend);
        let (gone, next) = (places.request(&backend), places.request(&backend));
        drop(gone);
        assert!(!next.is_granted());
        drop(running);
        assert!(next.is_granted());
    }

    #[test]
    fn a_place_that_a_cool_down_takes_counts_even_where_there_are_fewer_by_now() {
        let config = config(&[("a", "http://127.0.0.1:1", 1)]);
        let (places, backend) = (ConcurrencyLimit::new(Arc::clone(&config)), backend(&config, 0));
        let (one, other) = (places.acquire_now(&backend), places.acquire_now(&backend));
        let waiting = places.request(&backend);
        drop(one);
        assert!(!waiting.is_granted());
        drop(other);
        assert!(waiting.is_granted());
    }

    #[test]
    fn a_backend_under_a_new_url_or_two_names_has_one_set_of_places_and_others_have_their_own() {
        let before = config(&[("a", "http://127.0.0.1:1", 1), ("b", "http://127.0.0.1:2", 2)]);
        let after = config(&[("a", "http://127.0.0.1:3", 1), ("b", "http://[::1]:3", 2)]);
        let places = ConcurrencyLimit::new(Arc::clone(&before));
        let old = places.request(&backend(&before, 0));
        let beside = places.request(&backend(&before, 1));
        places.configure(Arc::clone(&after));
        let moved = places.request(&backend(&after, 0));
        assert_eq!((old.is_granted(), beside.is_granted(), moved.is_granted()), (true, true, false));
        drop((old, beside));
        assert!(moved.is_granted());
        let twin = places.request(&backend(&after, 1));
        assert!(!twin.is_granted(), "it is the same backend, which runs one");
        drop(moved);
        assert!(twin.is_granted());
    }
}
