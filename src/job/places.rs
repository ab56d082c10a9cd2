//! The places to run in that a backend has.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// As many places as jobs may run on one backend at once. That number may change while jobs run.
#[derive(Debug)]
pub(super) struct Places {
    semaphore: Arc<Semaphore>,
    /// How many there are, those in use included.
    count: usize,
}

impl Default for Places {
    fn default() -> Self {
        Self { semaphore: Arc::new(Semaphore::new(0)), count: 0 }
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
