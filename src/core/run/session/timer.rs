//! The timers of a session: when each is due, and what it does.

use std::time::Duration;

use super::{Phase, Session, SessionOutput, ending};
use crate::core::domain::channel::Channel;
use crate::core::domain::outcome::Cause;
use crate::core::domain::refusal::Refusal;

/// The timers of a session. If two are due, the one listed first fires first.
#[derive(Clone, Copy, Debug)]
enum Timer {
    /// The next notice to watchers.
    Notice,
    /// The silence after a terminal event that ends the wait for late events.
    Settled,
    /// The end of that wait, whatever the backend sends.
    SettleTotal,
    /// The maximum duration of the run.
    Total,
    /// The greeting of a backend that takes no key.
    Greeting,
    /// The plain answer of the backend.
    Answer,
    /// The head of the backend's response.
    ResponseHead,
    /// The backend's greeting on `/ws`.
    Ready,
    /// The maximum silence of the backend.
    Idle,
    /// The end of the wait for a status line.
    Accept,
}

impl Session {
    /// When to call again with [`SessionEvent::Tick`](super::SessionEvent::Tick) if no event arrives earlier. `None` once
    /// the run is over. It may change with each call of [`Session::handle`].
    pub fn deadline(&self) -> Option<Duration> {
        let is_over = matches!(self.phase, Phase::Over);
        self.timers().into_iter().filter_map(|(_, due)| due).min().filter(|_| !is_over)
    }

    fn timers(&self) -> [(Timer, Option<Duration>); 7] {
        let limits = &self.setup.limits;
        // The backend does not count as silent while it is not read.
        let reads = !self.has_notices();
        let (silence, silence_ends) = self.silence_timer();
        [
            (Timer::Notice, self.notice),
            (Timer::Settled, self.settled),
            (Timer::SettleTotal, self.settled.and(self.settle_ends)),
            (Timer::Total, Some(limits.total)),
            (Timer::Greeting, self.greeting_deadline().filter(|_| reads)),
            (silence, reads.then_some(silence_ends)),
            (Timer::Accept, (!self.accepted).then_some(limits.accept_wait)),
        ]
    }

    /// Fires the first timer that is due.
    pub(super) fn tick(&mut self, now: Duration, out: &mut SessionOutput) {
        let due = self.timers().into_iter().find(|(_, due)| due.is_some_and(|due| now >= due));
        let Some((timer, _)) = due else { return };
        let limits = self.setup.limits;
        let [total, idle, head] = [limits.total, limits.idle, limits.response_head].map(ending::duration);
        match timer {
            Timer::Notice => self.send_notice(now, out),
            Timer::Settled | Timer::SettleTotal => self.leg_done(now, None, out),
            Timer::Total => {
                self.lost(now, Cause::Total, &format!("The run took longer than the limit of {total}"), out);
            }
            Timer::Greeting => self.greeting_timed_out(out),
            Timer::Answer => self.silent(now, format!("did not answer within {idle}"), out),
            Timer::ResponseHead => self.silent(now, format!("did not begin to answer within {head}"), out),
            Timer::Ready => self.silent(now, format!("did not greet on /ws within {head}"), out),
            Timer::Idle => self.silent(now, format!("said nothing for {idle}"), out),
            Timer::Accept => self.accept(now, out),
        }
    }

    /// Waits for events after a terminal event, until the backend is silent for `limits.settle`. The wait lasts at
    /// most `limits.settle_total`, or `limits.settle` if that is longer.
    pub(super) fn settle_for_late_events(&mut self, now: Duration) {
        let limits = &self.setup.limits;
        self.settled = Some(now + limits.settle);
        self.settle_ends.get_or_insert(now + limits.settle_total.max(limits.settle));
    }

    /// The timer of the backend's silence in this phase of the leg, and when it is due.
    fn silence_timer(&self) -> (Timer, Duration) {
        let limits = &self.setup.limits;
        match &self.phase {
            Phase::Opening if self.channel() == Some(Channel::Json) => {
                (Timer::Answer, self.leg_began + limits.idle)
            }
            Phase::Opening => (Timer::ResponseHead, self.leg_began + limits.response_head),
            Phase::Socket(socket) if !socket.is_ready() => {
                (Timer::Ready, self.leg_began + limits.response_head)
            }
            Phase::Stream(_) | Phase::Socket(_) | Phase::Over => (Timer::Idle, self.last_event + limits.idle),
        }
    }

    /// Handles a backend that was silent for too long.
    fn silent(&mut self, now: Duration, what: String, out: &mut SessionOutput) {
        let what = format!("The backend {what}");
        if self.accepted {
            self.lost(now, Cause::Idle, &what, out);
        } else {
            let retry_after = self.setup.limits.retry_after;
            self.refuse(Refusal::unreachable(&format!("{what}."), retry_after), out);
        }
    }
}
