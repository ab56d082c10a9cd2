//! Waiting for a place to run in.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Runner;
use crate::core::kind::Kind;
use crate::core::outcome::Cause;
use crate::core::session::{Output, Waiting};
use crate::telemetry;

impl Runner {
    /// Waits for a place to run in, and says so as often as readers must hear something.
    ///
    /// # Errors
    ///
    /// Why the job is to end instead.
    pub(super) async fn turn(&mut self, waiting: &mut Waiting) -> Result<(), Cause> {
        if let Ok(permit) = Arc::clone(&self.place).try_acquire_owned() {
            self.permit = Some(permit);
            self.job.place();
            telemetry::JobPlaced { waited: Duration::ZERO, had_to_wait: false, has_place: true }.emit();
            return Ok(());
        }
        let mut wait = Wait::begin(&self.reason());
        let turn = self.wait_for_turn(waiting).await;
        wait.has_place = turn.is_ok();
        turn
    }

    async fn wait_for_turn(&mut self, waiting: &mut Waiting) -> Result<(), Cause> {
        let place = Arc::clone(&self.place).acquire_owned();
        let mut place = std::pin::pin!(place);
        let registry = Arc::clone(&self.registry);
        let mut draining = registry.draining.subscribe();
        loop {
            let mut out = Output::default();
            waiting.say(&self.reason(), &mut out);
            self.follow(&mut out).await;
            self.chronicle.note();
            let again = Instant::now() + self.job.config.limits.heartbeat;
            loop {
                tokio::select! {
                    biased;
                    cause = self.stopping.cause() => return Err(cause),
                    _ = draining.wait_for(|draining| *draining) => return Err(Cause::Stopping),
                    permit = &mut place => {
                        // Nobody closes the places.
                        self.permit = permit.ok();
                        self.job.place();
                        // Whoever waited for long had better ask again what the backend can do.
                        self.request.backend.knowledge.forget();
                        return Ok(());
                    }
                    () = sleep_until(again) => break,
                    () = self.chronicle.due() => self.chronicle.write(),
                }
            }
        }
    }

    /// What the job waits for.
    fn reason(&self) -> String {
        let (running, ahead) = self.registry.ahead_of(&self.job);
        let what = match running.as_slice() {
            [] => "the synchronization before this one".to_owned(),
            kinds => {
                let titles: Vec<&str> = kinds.iter().map(|kind: &Kind| kind.row().title).collect();
                format!("{} synchronization", titles.join(" and "))
            }
        };
        match ahead {
            0 => format!("Waiting for {what} to finish on this backend."),
            1 => format!("Waiting for {what} to finish on this backend, and for 1 more that waits."),
            more => format!("Waiting for {what} to finish on this backend, and for {more} more that wait."),
        }
    }
}

/// A job that waits for its turn, as it is counted: also if its own code fails.
struct Wait {
    began: Instant,
    has_place: bool,
}

impl Wait {
    fn begin(reason: &str) -> Self {
        telemetry::JobWaits { reason }.emit();
        Self { began: Instant::now(), has_place: false }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let (waited, has_place) = (self.began.elapsed(), self.has_place);
        telemetry::JobPlaced { waited, had_to_wait: true, has_place }.emit();
    }
}
