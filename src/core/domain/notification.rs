//! What operators are notified of.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::outcome::{Cause, Outcome};
use crate::core::text::string_enum::string_enum;

string_enum! {
    /// The subject of a notification.
    pub enum NotificationEvent {
        /// A run failed.
        Failed = "failed",
        /// A run completed, and objects failed in it.
        ObjectsFailed = "objects_failed",
        /// The bridge terminated during a run.
        Interrupted = "interrupted",
        /// A run completed after a notification of a problem.
        Recovered = "recovered",
        /// No run has completed for too long.
        Stale = "stale",
        /// An operator tests the target.
        Test = "test",
    }
}

string_enum! {
    /// The form of the requests to a target.
    pub enum NotificationForm {
        /// CloudEvents 1.0 as JSON, signed by the rules of Standard Webhooks.
        Json = "json",
        /// Incoming webhooks of Slack, Mattermost and Rocket.Chat.
        Slack = "slack",
        /// A topic of ntfy.
        Ntfy = "ntfy",
        /// The API of the Prometheus Alertmanager.
        Alertmanager = "alertmanager",
    }
}

impl NotificationEvent {
    /// The problems that the end of a run shows, in the order of their importance. `failed` is the number of failed
    /// objects. A run that was cancelled, or that the backend does not support, shows none.
    pub fn problems(outcome: Outcome, cause: Option<Cause>, failed: u64) -> impl Iterator<Item = Self> {
        let first = match outcome {
            Outcome::Interrupted => Some(Self::Interrupted),
            Outcome::Errored | Outcome::TimedOut if cause != Some(Cause::Unsupported) => Some(Self::Failed),
            _ => None,
        };
        let has_failed_objects = failed > 0 && (first.is_some() || outcome == Outcome::Completed);
        first.into_iter().chain(has_failed_objects.then_some(Self::ObjectsFailed))
    }
}

/// A text is not a secret for signatures.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret for signatures is `whsec_` and 24 to 64 bytes in Base64")]
pub struct InvalidSigningSecret;

/// The key for the signatures of Standard Webhooks in `secret`: `whsec_`, and 24 to 64 bytes in Base64.
///
/// # Errors
///
/// If it is none.
pub fn signing_key(secret: &str) -> Result<Zeroizing<Vec<u8>>, InvalidSigningSecret> {
    let encoded = secret.strip_prefix("whsec_").ok_or(InvalidSigningSecret)?;
    let key = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| InvalidSigningSecret)?);
    if (24..=64).contains(&key.len()) { Ok(key) } else { Err(InvalidSigningSecret) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_for_signatures_has_its_prefix_and_enough_bytes() {
        let encoded = STANDARD.encode([7; 24]);
        assert_eq!(*signing_key(&format!("whsec_{encoded}")).unwrap(), [7; 24]);
        let short = format!("whsec_{}", STANDARD.encode([7; 23]));
        for text in [encoded.as_str(), &short, "whsec_", "whsec_?"] {
            assert_eq!(signing_key(text), Err(InvalidSigningSecret), "{text}");
        }
    }

    #[test]
    fn a_run_that_was_cancelled_or_is_unsupported_shows_no_problem() {
        use NotificationEvent::{Failed, Interrupted, ObjectsFailed};
        let problems = |cause: Option<Cause>, failed| -> Vec<_> {
            let outcome = cause.map_or(Outcome::Completed, Cause::outcome);
            NotificationEvent::problems(outcome, cause, failed).collect()
        };
        for (cause, failed, expected) in [
            (None, 0, vec![]),
            (None, 2, vec![ObjectsFailed]),
            (Some(Cause::BackendFailed), 0, vec![Failed]),
            (Some(Cause::ObjectsFailed), 2, vec![Failed, ObjectsFailed]),
            (Some(Cause::Idle), 0, vec![Failed]),
            (Some(Cause::Crashed), 1, vec![Interrupted, ObjectsFailed]),
            (Some(Cause::Stopping), 0, vec![Interrupted]),
            (Some(Cause::CancelRequested), 3, vec![]),
            (Some(Cause::ClientGone), 0, vec![]),
            (Some(Cause::Unsupported), 0, vec![]),
        ] {
            assert_eq!(problems(cause, failed), expected, "{cause:?}");
        }
    }
}
