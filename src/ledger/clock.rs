//! The system clocks.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::Timestamp;

/// The wall clock and the monotonic clock. Tests substitute their own.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The wall clock. It may be set at any time.
    fn wall(&self) -> Timestamp;

    /// The time since some fixed point in the past, including time spent suspended. It cannot be set.
    fn monotonic(&self) -> Duration;

    /// Whether the system reports its wall clock as synchronised. `None` if it does not report that.
    fn is_synchronised(&self) -> Option<bool>;
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    #[cfg(target_os = "linux")]
    fn monotonic(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::try_from(now).unwrap_or_default()
    }

    #[cfg(not(target_os = "linux"))]
    fn monotonic(&self) -> Duration {
        static START: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        START.elapsed()
    }

    /// `adjtimex(2)` cannot be called without unsafe code. systemd-timesyncd announces synchronisation with this
    /// file; with other time daemons the state is unknown.
    fn is_synchronised(&self) -> Option<bool> {
        let timesyncd = Path::new("/run/systemd/timesync");
        timesyncd.is_dir().then(|| timesyncd.join("synchronized").exists())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_clocks_of_the_system_are_those_of_the_system() {
        let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let (before, began) = (Timestamp::now(), SystemClock.monotonic());
        assert!(since_1970 <= u128::from(before.0));
        let wall = SystemClock.wall();
        assert!(before <= wall && wall <= Timestamp::now());
        assert!(began > Duration::ZERO && began <= SystemClock.monotonic());
    }
}
