//! The places to run in that a backend has.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::ledger::JobId;

/// As many places as jobs may run on one backend at once. That number may change while jobs run.
#[derive(Debug)]
pub(super) struct Places {
    semaphore: Arc<Semaphore>,
    /// How many there are, those in use included.
    count: usize,
    /// The jobs whose cool-down takes one of them, and until when.
    cooling_down: HashMap<JobId, watch::Sender<Instant>>,
}

impl Default for Places {
    fn default() -> Self {
        Self { semaphore: Arc::new(Semaphore::new(0)), count: 0, cooling_down: HashMap::new() }
    }
}

impl Places {
    /// The places, `count` of them from now on. Where there are to be fewer, those in use are taken away when
    /// they are asked for next.
    pub(super) fn of(&mut self, count: usize) -> Arc<Semaphore> {
        if count > self.count {
            self.semaphore.add_permits(count - self.count);
            self.count = count;
        } else {
            self.count -= self.semaphore.forget_permits(self.count - count);
        }
        Arc::clone(&self.semaphore)
    }

    /// Notes that the cool-down of `job` takes one of them until then. What comes back knows when that
    /// changes, and ends when it takes none any more.
    pub(super) fn cool_down(&mut self, job: JobId, until: Instant) -> watch::Receiver<Instant> {
        let (sender, receiver) = watch::channel(until);
        self.cooling_down.insert(job, sender);
        receiver
    }

    /// Makes the cool-down of `job` last until then, if it is not over.
    pub(super) fn lengthen(&mut self, job: JobId, until: Instant) {
        if let Some(known) = self.cooling_down.get(&job) {
            known.send_replace(until);
        }
    }

    /// Ends the cool-down of `job`, and says whether there was one.
    pub(super) fn end_cooldown(&mut self, job: JobId) -> bool {
        self.cooling_down.remove(&job).is_some()
    }

    /// The jobs whose cool-down takes one of them, and until when. The one that is over first is in front.
    pub(super) fn cooling_down(&self) -> Vec<(JobId, Instant)> {
        let mut jobs: Vec<_> = self.cooling_down.iter().map(|(job, until)| (*job, *until.borrow())).collect();
        jobs.sort_unstable_by_key(|(job, until)| (*until, *job));
        jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_places_as_were_asked_for_last() {
        let mut places = Places::default();
        assert_eq!(places.of(2).available_permits(), 2);
        let held: Vec<_> = (0..2).map(|_| places.of(2).try_acquire_owned().unwrap()).collect();
        assert_eq!(places.of(3).available_permits(), 1);
        places.of(1);
        drop(held);
        assert_eq!(places.of(1).available_permits(), 1, "the others went when they were free");
    }
}
