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
    /// The maximum silence of the backend.
    Idle,
    /// The end of the wait for a status line.
    Accept,
}

impl Session {
    /// When to call again with [`SessionEvent::Tick`](super::SessionEvent::Tick) if no event arrives earlier.
    pub fn deadline(&self) -> Option<Duration> {
        self.timers().into_iter().filter_map(|(_, due)| due).min()
    }

    fn timers(&self) -> [(Timer, Option<Duration>); 7] {
        let limits = &self.setup.limits;
        let is_over = matches!(self.phase, Phase::Over);
        // The backend does not count as silent while it is not read.
        let reads = !self.has_notices();
        let timers = [
            (Timer::Notice, self.notice),
            (Timer::Settled, self.settled),
            (Timer::SettleTotal, self.settled.and(self.settle_ends)),
            (Timer::Total, Some(limits.total)),
            (Timer::Greeting, self.greeting_deadline().filter(|_| reads)),
            (Timer::Idle, self.idle_deadline().filter(|_| reads)),
            (Timer::Accept, (!self.accepted).then_some(limits.accept_wait)),
        ];
        timers.map(|(timer, due)| (timer, due.filter(|_| !is_over)))
    }

    /// Fires the timers that are due.
    pub(super) fn tick(&mut self, now: Duration, out: &mut SessionOutput) {
        let due = self.timers().into_iter().find(|(_, due)| due.is_some_and(|due| now >= due));
        let Some((timer, _)) = due else { return };
        let limits = self.setup.limits;
        match timer {
            Timer::Notice => self.send_notice(now, out),
            Timer::Settled | Timer::SettleTotal => self.leg_done(now, None, out),
            Timer::Total => {
                let what =
                    format!("The run took longer than the limit of {}", ending::duration(limits.total));
                self.lost(now, Cause::Total, &what, out);
            }
            Timer::Greeting => self.greeting_timed_out(out),
            Timer::Idle => self.idle_timed_out(now, out),
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

    /// When the backend has been silent for too long. The limit depends on the phase of the leg.
    fn idle_deadline(&self) -> Option<Duration> {
        let limits = &self.setup.limits;
        Some(match &self.phase {
            Phase::Over => return None,
            Phase::Opening if self.channel() == Some(Channel::Json) => self.leg_began + limits.idle,
            Phase::Opening => self.leg_began + limits.response_head,
            Phase::Socket(socket) if !socket.is_ready() => self.leg_began + limits.response_head,
            Phase::Stream(_) | Phase::Socket(_) => self.last_event + limits.idle,
        })
    }

    fn idle_timed_out(&mut self, now: Duration, out: &mut SessionOutput) {
        let limits = &self.setup.limits;
        let idle = ending::duration(limits.idle);
        let what = match &self.phase {
            Phase::Opening if self.channel() == Some(Channel::Json) => {
                format!("The backend did not answer within {idle}")
            }
            Phase::Opening => {
                format!(
                    "The backend did not begin to answer within {}",
                    ending::duration(limits.response_head)
                )
            }
            Phase::Socket(socket) if !socket.is_ready() => {
                format!("The backend did not greet on /ws within {}", ending::duration(limits.response_head))
            }
            _ => format!("The backend said nothing for {idle}"),
        };
        if self.accepted {
            self.lost(now, Cause::Idle, &what, out);
        } else {
            self.refuse(Refusal::unreachable(&format!("{what}."), limits.retry_after), out);
        }
    }
}
