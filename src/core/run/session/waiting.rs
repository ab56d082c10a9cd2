//! Runs that have not started to drive their backend.

use std::time::Duration;

use super::{Session, SessionOutput, SessionSetup};
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::Cause;
use crate::core::domain::refusal::Refusal;
use crate::core::run::normalizer::{Normalizer, NormalizerOptions};

/// A run that waits for its turn, or for the capabilities of its backend.
#[derive(Debug)]
pub struct PendingRun {
    normalizer: Normalizer,
    kind: Kind,
    /// A message was sent to watchers, so the stream has begun.
    has_begun: bool,
}

impl PendingRun {
    /// Creates a waiting run of `kind`.
    pub fn new(kind: Kind, options: NormalizerOptions) -> Self {
        Self { normalizer: Normalizer::new(kind, options), kind, has_begun: false }
    }

    /// Tells watchers what the run is waiting for. This begins the stream.
    pub fn report(&mut self, message: &str, out: &mut SessionOutput) {
        out.accepted |= !self.has_begun;
        self.has_begun = true;
        self.normalizer.begin_waiting(message, &mut out.frames);
    }

    /// Whether the stream has begun.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Ends the run with a refusal before it began.
    pub fn refuse(mut self, refusal: Refusal, out: &mut SessionOutput) {
        let failure = (refusal.failure(self.kind), refusal.cause);
        out.end = Some(self.normalizer.finish(Some(failure), &mut out.frames));
        out.refused = (!self.has_begun).then(|| refusal.clone());
        out.refusal = Some(refusal);
    }

    /// Stops the run before it began.
    pub fn stop(self, cause: Cause, retry_after: u64, out: &mut SessionOutput) {
        self.refuse(Refusal::stopped(cause, retry_after), out);
    }

    /// Begins the stream of a run that will be skipped.
    pub fn start(&mut self, out: &mut SessionOutput) {
        out.accepted |= !self.has_begun;
        self.has_begun = true;
        self.normalizer.start(&mut out.frames);
    }

    /// Completes the run without a backend, for the reason `why`. No backend supports the sync, or none is allowed to
    /// run it.
    pub fn skip(mut self, why: Option<String>, out: &mut SessionOutput) {
        self.start(out);
        self.normalizer.skip(self.kind, why, &mut out.frames);
        out.end = Some(self.normalizer.finish(None, &mut out.frames));
    }

    /// Starts to drive the backend, at time zero.
    pub fn drive(mut self, setup: SessionSetup, out: &mut SessionOutput) -> Session {
        self.normalizer.release = setup.release;
        let mut session = Session::new(setup, self.normalizer);
        if self.has_begun {
            session.accept(Duration::ZERO, out);
        }
        session.open(Duration::ZERO, out);
        session
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::domain::outcome::Outcome;

    fn text(out: &SessionOutput) -> String {
        out.frames.iter().map(|frame| String::from_utf8_lossy(&frame.bytes)).collect()
    }

    #[test]
    fn a_run_that_was_not_reported_is_refused_with_a_status() {
        let mut out = SessionOutput::default();
        PendingRun::new(Kind::Devices, NormalizerOptions::default()).stop(Cause::Stopping, 30, &mut out);
        assert_eq!(out.refused.map(|refusal| refusal.status), Some(503));
        assert!(out.frames.is_empty() && !out.accepted);
        let report = out.end.unwrap();
        assert_eq!((report.outcome, report.cause), (Outcome::Interrupted, Some(Cause::Stopping)));
        assert!(report.failure.is_some_and(|failure| !failure.error.is_empty()));
    }

    #[test]
    fn a_reported_run_ends_as_a_stream() {
        let mut out = SessionOutput::default();
        let mut waiting = PendingRun::new(Kind::Devices, NormalizerOptions::default());
        assert!(!waiting.has_begun());
        waiting.report("Waiting for storage synchronization.", &mut out);
        assert!(out.accepted && waiting.has_begun());
        waiting.report("Waiting for storage synchronization.", &mut out);
        waiting.stop(Cause::CancelRequested, 30, &mut out);
        assert!(out.refused.is_none() && out.refusal.is_some());
        assert_eq!(out.end.as_ref().unwrap().outcome, Outcome::Cancelled);
        let text = text(&out);
        assert_eq!(text.matches("\"status\": \"started\"").count(), 2, "{text}");
        assert!(text.contains("event: error\n") && text.contains("{\"ok\": false"), "{text}");
    }

    #[test]
    fn a_run_that_the_backend_cannot_do_can_end_well() {
        let mut out = SessionOutput::default();
        PendingRun::new(Kind::VirtualDisks, NormalizerOptions::default()).skip(None, &mut out);
        assert!(out.accepted && out.end.is_some());
        assert!(text(&out).ends_with("\"objects\": {}}}\n\n"), "{}", text(&out));
    }
}
