//! The clock that records age by.
//!
//! Machines boot with wrong clocks, and a removed record cannot be restored. So records do not age by the wall clock,
//! but by the *ledger's time*: it advances with the monotonic clock while a bridge runs, and with the wall clock
//! between two runs. A jump of the wall clock by more than `limits.clock_jump` is not counted, unless an operator
//! orders it. After a jump, cleaning is held for a while, so that an operator can check the clock.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::retention::milliseconds;
use super::{Clock, Retention, Timestamp};
use crate::telemetry::{ClockTrustReason, LedgerClockJumped, LedgerClockTrusted};

/// The state of the ledger's time, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClockState {
    /// The ledger's time, in milliseconds. It starts at the wall clock.
    pub(super) time: i64,
    /// How far the wall clock is ahead of it: the sum of the jumps that were not counted.
    offset: i64,
}

impl ClockState {
    pub(super) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.time.to_be_bytes());
        bytes[8..].copy_from_slice(&self.offset.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; 16]) -> Self {
        let [mut time, mut offset] = [[0; 8]; 2];
        time.copy_from_slice(&bytes[..8]);
        offset.copy_from_slice(&bytes[8..]);
        Self { time: i64::from_be_bytes(time), offset: i64::from_be_bytes(offset) }
    }

    /// How far the wall clock is from its expected time.
    fn jump(self, wall: i64) -> i64 {
        wall.saturating_sub(self.time.saturating_add(self.offset))
    }
}

/// The factor by which the hold after a jump is longer while the system reports its clock as unsynchronised. Many
/// machines always report that, so the hold must end as well.
const UNSYNCHRONISED_FACTOR: u32 = 3;

/// The ledger's time in this process, and the clocks that drive it.
#[derive(Clone, Debug)]
pub(super) struct RecordClock {
    clock: Arc<dyn Clock>,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    retention: Retention,
    /// `None` before the ledger was first opened.
    running: Option<RunningClock>,
    /// The reason why cleaning is held.
    held: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct RunningClock {
    state: ClockState,
    /// The monotonic clock when the state was last updated.
    read: Duration,
    hold: Option<ClockHold>,
}

/// A hold on cleaning after a jump of the wall clock.
#[derive(Clone, Copy, Debug)]
struct ClockHold {
    /// The monotonic clock when the jump was noticed.
    since: Duration,
    jump: i64,
}

/// A change of the trust in the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClockChange {
    None,
    Jumped(i64),
    Trusted(ClockTrustReason),
}

impl RunningClock {
    fn new(stand: ClockState, monotonic: Duration) -> Self {
        Self { state: stand, read: monotonic, hold: None }
    }

    /// Advances to the time of the clocks.
    fn observe(&mut self, wall: i64, monotonic: Duration, held_for: Duration, most: Duration) -> ClockChange {
        let passed = milliseconds(monotonic.saturating_sub(self.read));
        self.state.time = self.state.time.saturating_add(passed);
        self.read = monotonic;
        let jump = self.state.jump(wall);
        let most = milliseconds(most).unsigned_abs();
        if jump.unsigned_abs() <= most {
            // Time never advances by less than the monotonic clock.
            self.state.time = self.state.time.saturating_add(jump.max(0));
            return self
                .hold
                .take()
                .map_or(ClockChange::None, |_| ClockChange::Trusted(ClockTrustReason::WentBack));
        }
        match self.hold {
            Some(hold) if hold.jump.abs_diff(jump) <= most => {
                if monotonic.saturating_sub(hold.since) < held_for {
                    return ClockChange::None;
                }
                // The clock is trusted from now on, but the jump is not counted.
                self.state.offset = self.state.offset.saturating_add(jump);
                self.hold = None;
                ClockChange::Trusted(ClockTrustReason::Stayed)
            }
            _ => {
                self.hold = Some(ClockHold { since: monotonic, jump });
                ClockChange::Jumped(jump)
            }
        }
    }

    /// Trusts the wall clock, and counts the time by which it is ahead.
    fn trust(&mut self, wall: i64) -> ClockChange {
        let jump = self.state.jump(wall);
        if jump > 0 {
            self.state.time = self.state.time.saturating_add(jump);
        } else {
            self.state.offset = self.state.offset.saturating_add(jump);
        }
        self.hold.take().map_or(ClockChange::None, |_| ClockChange::Trusted(ClockTrustReason::Ordered))
    }
}

impl RecordClock {
    pub(super) fn new(clock: Arc<dyn Clock>, retention: Retention) -> Self {
        let inner = Inner { retention, running: None, held: None };
        Self { clock, inner: Arc::new(Mutex::new(inner)) }
    }

    /// Applies `retention` from now on.
    pub(super) fn set_retention(&self, retention: Retention) {
        self.inner().retention = retention;
    }

    pub(super) fn retention(&self) -> Retention {
        self.inner().retention
    }

    /// The reason why cleaning is held, if it is.
    pub(super) fn held(&self) -> Option<String> {
        self.inner().held.clone()
    }

    /// Resumes from the stored state of the ledger's time or, if there is none, from the `newest` time in the ledger.
    /// Within one process the time continues without it.
    pub(super) fn resume(&self, stored: Option<ClockState>, newest: Option<Timestamp>) -> ClockState {
        let (wall, monotonic) = (self.clock.wall().to_i64(), self.clock.monotonic());
        {
            let mut inner = self.inner();
            if inner.running.is_none() {
                let newest = newest.map_or(wall, |newest| newest.to_i64().min(wall));
                let stand = stored.unwrap_or(ClockState { time: newest, offset: 0 });
                inner.running = Some(RunningClock::new(stand, monotonic));
            }
        }
        self.observe()
    }

    /// The wall clock.
    pub(super) fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    /// The current state of the ledger's time.
    pub(super) fn observe(&self) -> ClockState {
        self.with(|_, _| ClockChange::None)
    }

    /// The current state, after an operator has confirmed the wall clock.
    pub(super) fn trust(&self) -> ClockState {
        self.with(RunningClock::trust)
    }

    fn with(&self, then: impl FnOnce(&mut RunningClock, i64) -> ClockChange) -> ClockState {
        let (wall, monotonic) = (self.clock.wall().to_i64(), self.clock.monotonic());
        let is_synchronised = self.clock.is_synchronised();
        let mut inner = self.inner();
        let Retention { clock_jump, clock_hold, .. } = inner.retention;
        let held_for = clock_hold * if is_synchronised == Some(false) { UNSYNCHRONISED_FACTOR } else { 1 };
        let new = ClockState { time: wall, offset: 0 };
        let running = inner.running.get_or_insert(RunningClock::new(new, monotonic));
        let changes = [running.observe(wall, monotonic, held_for, clock_jump), then(running, wall)];
        let stand = running.state;
        for change in changes {
            inner.note(change, held_for, is_synchronised);
        }
        stand
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

impl Inner {
    /// Logs `change` for operators.
    fn note(&mut self, change: ClockChange, held_for: Duration, is_synchronised: Option<bool>) {
        match change {
            ClockChange::None => {}
            ClockChange::Jumped(jump) => {
                let problem = problem(jump, held_for, is_synchronised);
                LedgerClockJumped { problem: &problem }.emit();
                self.held = Some(problem);
            }
            ClockChange::Trusted(why) => {
                LedgerClockTrusted { why }.emit();
                self.held = None;
            }
        }
    }
}

fn problem(jump: i64, held_for: Duration, is_synchronised: Option<bool>) -> String {
    let way = if jump > 0 { "ahead of" } else { "behind" };
    let seconds = Duration::from_secs(jump.unsigned_abs() / 1000);
    let unsynchronised = match is_synchronised {
        Some(false) => ", and systemd-timesyncd has not synchronised it",
        Some(true) | None => "",
    };
    format!(
        "the clock is {} {way} the time that the ledger expects (limits.clock_jump){unsynchronised}: nothing is removed \
         for its age for {} (limits.clock_hold). If the clock is wrong, set it; if it is right, POST /clean on the \
         admin listener removes what is due",
        humantime::format_duration(seconds),
        humantime::format_duration(held_for),
    )
}
