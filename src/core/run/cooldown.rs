//! How long a backend may keep working after the bridge has ended its run.
//!
//! No backend refuses a second sync while one is running, and two concurrent syncs lose objects. The run therefore
//! keeps its slot for a cool-down if the backend may continue it:
//!
//! | how it was driven | after the connection closes, the backend | cool-down |
//! |---|---|---|
//! | native, one stage, 0.0.7 or newer | cancels it within 10 ms; up to five requests follow | 5 s |
//! | native, one stage, older or unknown | runs to the end | the expected rest |
//! | native, full update | runs to the end of the current stage | the expected rest of one stage |
//! | `/ws` | stops at its next frame; tasks already started write for another 5 to 20 s | `least` |
//! | JSON | runs to the end | the expected rest |
//!
//! The expected rest is the 90th percentile of the durations of completed runs of the same kind on the same backend,
//! minus the time since the leg began. It is never less than `least`. It equals `least` if no run has completed.
//!
//! A failure that the backend itself reports ends a native run of 0.0.7 or newer. In all other runs the remaining
//! tasks continue, as if the connection had been cut.

use std::time::Duration;

use crate::core::domain::channel::Channel;
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::Cause;
use crate::core::domain::release::Release;

/// The first release that cancels a stage when the client of its stream disconnects.
const FIRST_TO_CANCEL: Release = Release::new(0, 0, 7);
/// The first release that has `/sync/active`.
const FIRST_WITH_ACTIVE: Release = Release::new(0, 0, 11);
/// How long a backend that cancels a stage may still be busy with it.
const CANCELLED: Duration = Duration::from_secs(5);

/// What a backend does with a run after the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterDisconnect {
    /// It cancels the run at once.
    Cancels,
    /// It stops when it sends its next frame.
    StopsAtNextFrame,
    /// It finishes the current stage and starts no other.
    FinishesStage,
    /// It finishes the run.
    Finishes,
}

impl AfterDisconnect {
    /// What a backend of `release` does with a leg of `kind` that runs over `channel`. An unknown release counts as
    /// one of the oldest.
    pub fn new(release: Option<Release>, channel: Channel, kind: Kind) -> Self {
        match channel {
            Channel::Websocket => Self::StopsAtNextFrame,
            Channel::Json => Self::Finishes,
            Channel::Native if kind == Kind::FullUpdate => Self::FinishesStage,
            Channel::Native if cancels(release) => Self::Cancels,
            Channel::Native => Self::Finishes,
        }
    }

    /// Whether the cool-down depends on the durations of earlier runs.
    pub fn needs_durations(self) -> bool {
        matches!(self, Self::FinishesStage | Self::Finishes)
    }
}

/// How long a backend may keep working on a leg, estimated when the leg begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The minimum time after the connection closes.
    pub least: Duration,
    /// The time from the start of the leg to its expected end. Zero if the end does not matter.
    pub expected: Duration,
}

impl Estimate {
    /// Estimates a leg of `kind`. `durations` are those of completed runs on the same backend. `min` is the shortest
    /// cool-down of a backend that does not cancel the run.
    pub fn new(after: AfterDisconnect, kind: Kind, durations: &[(Kind, Duration)], min: Duration) -> Self {
        let percentile = |kind: Kind| percentile_90(durations.iter().filter(|(of, _)| *of == kind));
        match after {
            AfterDisconnect::Cancels => Self { least: CANCELLED, expected: Duration::ZERO },
            AfterDisconnect::StopsAtNextFrame => Self { least: min, expected: Duration::ZERO },
            AfterDisconnect::Finishes => Self { least: min, expected: percentile(kind).unwrap_or_default() },
            // The current stage may have just begun. If no stage has ever run alone, the duration of the full update
            // is the bound.
            AfterDisconnect::FinishesStage => {
                match Kind::all().filter(|kind| *kind != Kind::FullUpdate).filter_map(percentile).max() {
                    Some(stage) => Self { least: min.max(stage), expected: Duration::ZERO },
                    None => Self { least: min, expected: percentile(kind).unwrap_or_default() },
                }
            }
        }
    }

    /// How long the backend may keep working if the connection closes `elapsed` after the start of the leg, at most
    /// `max`.
    pub fn remaining(self, elapsed: Duration, max: Duration) -> Duration {
        self.expected.saturating_sub(elapsed).max(self.least).min(max)
    }
}

/// The 90th percentile: the smallest duration that nine of ten runs did not exceed.
fn percentile_90<'a>(runs: impl Iterator<Item = &'a (Kind, Duration)>) -> Option<Duration> {
    let mut durations: Vec<Duration> = runs.map(|(_, duration)| *duration).collect();
    durations.sort_unstable();
    let rank = (durations.len() * 9).div_ceil(10);
    durations.get(rank.checked_sub(1)?).copied()
}

/// Whether a backend of `release` may still be working on a leg over `channel` that has ended. `cause` is the cause of
/// the run's failure; `None` means that the run completed.
pub fn leaves_work(cause: Option<Cause>, release: Option<Release>, channel: Channel) -> bool {
    match cause {
        // The backend reported that it was done.
        None | Some(Cause::ObjectsFailed | Cause::KeyRefused) => false,
        // The backend reported a failure.
        Some(Cause::BackendFailed | Cause::BackendNonsense | Cause::Refused) => {
            channel != Channel::Native || !cancels(release)
        }
        // The connection closed before the backend reported an end.
        Some(_) => true,
    }
}

/// Whether `GET /sync/active` can report a leg of `kind` that runs over `channel`.
///
/// The route reports only full updates, each for as long as its request lasts. `active: true` proves that a full
/// update is still running, for example because a proxy keeps its connection open. `active: false` proves nothing: the
/// request ends at once, and the current stage continues without it. The answer can therefore lengthen a cool-down but
/// never shorten it.
pub fn is_reported(release: Option<Release>, channel: Channel, kind: Kind) -> bool {
    let has_route = release.is_some_and(|release| release >= FIRST_WITH_ACTIVE);
    has_route && channel == Channel::Native && kind == Kind::FullUpdate
}

fn cancels(release: Option<Release>) -> bool {
    release.is_some_and(|release| release >= FIRST_TO_CANCEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_secs(30);
    const MOST: Duration = Duration::from_secs(900);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn release(text: &str) -> Option<Release> {
        text.parse().ok()
    }

    /// The cool-down in seconds of a leg that is cut after `elapsed` seconds.
    fn rest(
        text: &str,
        channel: Channel,
        kind: Kind,
        durations: &[(Kind, Duration)],
        elapsed: u64,
    ) -> Duration {
        let after = AfterDisconnect::new(release(text), channel, kind);
        Estimate::new(after, kind, durations, LEAST).remaining(seconds(elapsed), MOST)
    }

    #[test]
    fn a_stage_is_cancelled_since_0_0_7_and_continues_before() {
        let durations = [(Kind::VirtualMachines, seconds(100)), (Kind::Devices, seconds(600))];
        let of = |text, elapsed| rest(text, Channel::Native, Kind::VirtualMachines, &durations, elapsed);
        for text in ["0.0.7", "0.0.11.post2", "0.0.30"] {
            assert_eq!(of(text, 1), seconds(5), "{text}");
        }
        for text in ["0.0.3", "0.0.6.post4", "not known"] {
            assert_eq!(of(text, 20), seconds(80), "{text}: the rest of what such a run takes");
            assert_eq!(of(text, 95), LEAST, "{text}");
            assert_eq!(of(text, 500), LEAST, "{text}: longer than any before");
        }
    }

    #[test]
    fn the_rest_of_a_lost_leg_is_expected_from_earlier_runs_between_the_limits() {
        use Channel::{Json, Native, Websocket};
        use Kind::{Devices, FullUpdate};
        let full = (FullUpdate, seconds(500));
        let stages = [full, (Devices, seconds(20)), (Kind::VirtualMachines, seconds(200))];
        let [normal, long] = [300, 7200].map(|time| [(Devices, seconds(time))]);
        for (name, release, channel, kind, durations, elapsed, expected) in [
            ("a stream without earlier runs", "0.0.6", Native, Devices, &[][..], 0, LEAST),
            ("a request without earlier runs", "0.0.6", Json, Devices, &[], 0, LEAST),
            (
                "the longest stage may have begun just now",
                "0.0.30",
                Native,
                FullUpdate,
                &stages,
                400,
                seconds(200),
            ),
            ("no longer than the whole", "0.0.30", Native, FullUpdate, &[full], 400, seconds(100)),
            ("a full update without earlier runs", "0.0.30", Native, FullUpdate, &[], 400, LEAST),
            ("a socket stops at its next frame", "0.0.2", Websocket, Devices, &normal, 10, LEAST),
            ("a request continues", "0.0.30", Json, Devices, &normal, 10, seconds(290)),
            ("the limit bounds it", "0.0.6", Native, Devices, &long, 0, MOST),
        ] {
            assert_eq!(rest(release, channel, kind, durations, elapsed), expected, "{name}");
        }
        let after = AfterDisconnect::new(release("0.0.30"), Native, Devices);
        let estimate = Estimate::new(after, Devices, &[], LEAST);
        assert_eq!(estimate.remaining(seconds(1), seconds(2)), seconds(2));
    }

    #[test]
    fn nine_of_ten_runs_are_not_longer_than_the_percentile() {
        let runs = |count: u64| (1..=count).map(|n| (Kind::Devices, seconds(n))).collect::<Vec<_>>();
        for (count, expected) in [(0, None), (1, Some(1)), (2, Some(2)), (10, Some(9)), (100, Some(90))] {
            assert_eq!(percentile_90(runs(count).iter()), expected.map(seconds), "{count}");
        }
    }

    #[test]
    fn a_failure_ends_a_native_run_since_0_0_7_alone() {
        let leaves = |cause, text, channel| leaves_work(cause, release(text), channel);
        let failed = Some(Cause::BackendFailed);
        assert!(!leaves(failed, "0.0.7", Channel::Native));
        assert!(leaves(failed, "0.0.6.post4", Channel::Native));
        assert!(leaves(failed, "not known", Channel::Native));
        assert!(leaves(failed, "0.0.30", Channel::Websocket));
        for text in ["0.0.2", "0.0.30"] {
            for cause in [None, Some(Cause::ObjectsFailed)] {
                assert!(!leaves(cause, text, Channel::Native), "{cause:?}");
            }
            for cause in [Cause::BackendLost, Cause::Idle, Cause::Total, Cause::CancelRequested] {
                assert!(leaves(Some(cause), text, Channel::Native), "{cause:?}");
            }
        }
    }

    #[test]
    fn only_full_updates_are_reported_and_only_since_0_0_11() {
        assert!(is_reported(release("0.0.11"), Channel::Native, Kind::FullUpdate));
        assert!(!is_reported(release("0.0.7.post1"), Channel::Native, Kind::FullUpdate));
        assert!(!is_reported(None, Channel::Native, Kind::FullUpdate));
        assert!(!is_reported(release("0.0.30"), Channel::Native, Kind::VirtualMachines));
    }
}
