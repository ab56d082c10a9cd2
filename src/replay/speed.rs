//! The speed of a replay.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

/// The speed of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Speed {
    /// As recorded.
    #[default]
    Recorded,
    /// Faster by this factor; finite and above zero.
    Times(f64),
    /// Without any waiting.
    Max,
}

impl Speed {
    /// The duration of a recorded wait at this speed.
    pub fn scale(self, recorded: Duration) -> Duration {
        match self {
            Self::Recorded => recorded,
            Self::Times(times) => {
                Duration::try_from_secs_f64(recorded.as_secs_f64() / times).unwrap_or(recorded)
            }
            Self::Max => Duration::ZERO,
        }
    }

    /// Waits until `recorded` has passed since `start`.
    pub(super) async fn wait(self, start: Instant, recorded: Duration) {
        if self != Self::Max {
            tokio::time::sleep_until(start + self.scale(recorded)).await;
        }
    }
}

/// A text that is not a speed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `recorded`, `max` or a number above zero, such as 10 for ten times as fast")]
pub struct NotASpeed;

impl FromStr for Speed {
    type Err = NotASpeed;

    fn from_str(text: &str) -> Result<Self, NotASpeed> {
        match text {
            "recorded" => Ok(Self::Recorded),
            "max" => Ok(Self::Max),
            number => match number.parse::<f64>() {
                Ok(times) if times.is_finite() && times > 0.0 => Ok(Self::Times(times)),
                _ => Err(NotASpeed),
            },
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recorded => f.write_str("recorded"),
            Self::Times(times) => write!(f, "{times}"),
            Self::Max => f.write_str("max"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_written_as_it_is_read() {
        for text in ["recorded", "max", "2.5", "10"] {
            assert_eq!(text.parse::<Speed>().unwrap().to_string(), text);
        }
        for text in ["", "0", "-1", "inf", "nan", "fast"] {
            assert_eq!(text.parse::<Speed>(), Err(NotASpeed));
        }
    }

    #[test]
    fn ten_times_as_fast_takes_a_tenth() {
        let second = Duration::from_secs(1);
        assert_eq!(Speed::Times(10.0).scale(second), Duration::from_millis(100));
        assert_eq!(Speed::Recorded.scale(second), second);
        assert_eq!(Speed::Max.scale(second), Duration::ZERO);
    }
}
