//! How legs and runs end.

use std::time::Duration;

use super::{Phase, Session, SessionOutput};
use crate::core::domain::counts::Count;
use crate::core::domain::event::Failure;
use crate::core::domain::outcome::Cause;
use crate::core::domain::refusal::Refusal;

impl Session {
    /// Handles the refusal of a leg by the backend. It becomes an HTTP answer if no stream has begun, else a failure
    /// of the stream.
    pub(super) fn refuse(&mut self, refusal: Refusal, out: &mut SessionOutput) {
        let failure = (refusal.failure(self.leg_kind()), refusal.cause);
        out.refused = (!self.accepted).then(|| refusal.clone());
        out.refusal = Some(refusal);
        self.end(Some(failure), out);
    }

    /// Handles a backend that disconnected, or was abandoned, before its terminal event.
    pub(super) fn lost(&mut self, now: Duration, cause: Cause, what: &str, out: &mut SessionOutput) {
        if self.settled.is_some() && self.leg + 1 >= self.setup.plan.legs.len() {
            // The terminal event has arrived. Only late events are lost.
            self.leg_done(now, None, out);
            return;
        }
        // The client has waited for this run, so it ends as a stream even if none has begun.
        self.accept(now, out);
        self.send_all_notices(now, out);
        let Count { seen, completed, failed, .. } = self.normalizer.tally.counts().total();
        let unreadable = match self.normalizer.unreadable {
            0 => String::new(),
            1 => " 1 event could not be read.".to_owned(),
            events => format!(" {events} events could not be read."),
        };
        let error = format!("{what}.");
        let detail = format!(
            "{what}, {} after the start and after {seen} object{} ({completed} completed, {failed} failed).{unreadable}",
            duration(now),
            if seen == 1 { "" } else { "s" },
        );
        let failure = Failure { step: self.leg_kind().row().step.to_owned(), error, detail };
        self.leg_done(now, Some((failure, cause)), out);
    }

    /// Ends the leg, with the failure that the backend did not report itself, if any.
    pub(super) fn leg_done(
        &mut self,
        now: Duration,
        ended: Option<(Failure, Cause)>,
        out: &mut SessionOutput,
    ) {
        let kind = self.leg_kind();
        let kinds = self.current().map(|leg| leg.kinds.clone()).unwrap_or_default();
        self.count_by_order(out);
        self.normalizer.report_unreported_failures(&kinds, &mut out.frames);
        if let Some(failure) = self.normalizer.leg_failure(kind, ended) {
            self.end(Some(failure), out);
            return;
        }
        for kind in kinds {
            self.normalizer.stage_finished(kind, &mut out.frames);
        }
        self.leg += 1;
        if self.current().is_some() {
            out.close = true;
            self.open(now, out);
        } else {
            self.end(None, out);
        }
    }

    pub(super) fn end(&mut self, failure: Option<(Failure, Cause)>, out: &mut SessionOutput) {
        self.phase = Phase::Over;
        out.close = true;
        out.open = None;
        out.end = Some(self.normalizer.finish(failure, &mut out.frames));
    }
}

/// The message of a run that the bridge stopped.
pub(super) fn stop_message(cause: Cause) -> &'static str {
    match cause {
        Cause::ClientGone => "The last watcher disconnected, and the job was cancelled",
        Cause::CancelRequested => "The job was cancelled by request",
        _ => "The bridge is stopping",
    }
}

/// Formats a duration for people: `4.2 s`, `12 min 3 s`, `2 h 5 min`.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ if seconds % 3600 < 60 => format!("{} h", seconds / 3600),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_for_people() {
        for (seconds, text) in [
            (4.24, "4.2 s"),
            (60.0, "1 min"),
            (723.0, "12 min 3 s"),
            (21_600.0, "6 h"),
            (21_660.0, "6 h 1 min"),
            (7_500.0, "2 h 5 min"),
        ] {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), text);
        }
    }
}
