//! Answers to a request that never became a stream.

use super::event::Failure;
use super::kind::Kind;
use super::outcome::Cause;
use crate::core::remote::Remote;
use crate::core::text::detail::{self, SENTENCE};
use crate::core::text::plain;

/// A real HTTP answer in place of a stream (R15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: RefusalBody,
    /// The value of `Retry-After`, if a retry makes sense.
    pub retry_after: Option<String>,
    /// Why there is no stream.
    pub cause: Cause,
}

/// The body of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalBody {
    /// Our own words, for a JSON object with `message` and `detail`.
    Bridge {
        /// What happened.
        message: String,
        /// All that is known of it.
        detail: String,
    },
    /// The backend's own JSON, unchanged.
    Backend(Vec<u8>),
}

/// An answer of the backend that is not what it was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorResponse<'a> {
    /// Its HTTP status.
    pub status: u16,
    /// Its `Retry-After`.
    pub retry_after: Option<&'a str>,
    /// Its body, or the beginning of it.
    pub body: &'a [u8],
    /// Its `PayloadPart-Type`.
    pub content_type: Option<&'a str>,
    /// Its `PayloadPart-Encoding`, if it has one although the bridge asks for none. Nothing can be read of its body then.
    pub content_encoding: Option<&'a str>,
}

impl ErrorResponse<'_> {
    /// What is wrong with its encoding, and what to do.
    pub fn compressed(&self) -> Option<String> {
        self.content_encoding.map(|encoding| compressed(Remote::Backend, encoding))
    }
}

/// What is wrong with an answer of `remote` in this `PayloadPart-Encoding`, and what to do.
pub fn compressed(remote: Remote, encoding: &str) -> String {
    let encoding = plain(encoding, MAX_NAMED);
    format!(
        "It is compressed (Content-Encoding: {encoding}), although the bridge asks for identity. Switch compression \
         off in {remote}, or in the proxy in front of it."
    )
}

/// How much of what a header says is repeated, in characters.
const MAX_NAMED: usize = 80;

const KEY_REFUSED: &str = "The backend refused the API key.";

impl Refusal {
    fn from_bridge(status: u16, cause: Cause, message: &str, detail: impl Into<String>) -> Self {
        let body = RefusalBody::Bridge { message: message.to_owned(), detail: detail.into() };
        Self { status, body, retry_after: None, cause }
    }

    fn with_retry_after(self, retry_after: u64) -> Self {
        Self { retry_after: Some(retry_after.to_string()), ..self }
    }

    /// The backend cannot be reached (R16).
    pub fn unreachable(why: &str, retry_after: u64) -> Self {
        Self::from_bridge(503, Cause::Unreachable, "The ProxBox backend cannot be reached.", why)
            .with_retry_after(retry_after)
    }

    /// The backend was reached, and went away without an answer. Releases up to 0.0.11 do so when they
    /// are busy with their dependencies for more than ten seconds, so that trying again makes sense.
    pub fn no_answer(why: &str, retry_after: u64) -> Self {
        Self::from_bridge(503, Cause::BackendLost, "The ProxBox backend did not answer.", why)
            .with_retry_after(retry_after)
    }

    /// The backend did not begin to answer in time, and may have done what it was asked.
    pub fn timed_out(why: &str) -> Self {
        Self::from_bridge(504, Cause::BackendLost, "The ProxBox backend did not answer.", why)
    }

    /// The connection broke, and the backend may have done what it was asked.
    pub fn broken(why: &str) -> Self {
        Self::from_bridge(502, Cause::BackendLost, "The ProxBox backend broke the connection.", why)
    }

    /// The backend agreed to change to another protocol than the WebSocket that it was asked for.
    pub fn other_protocol(named: Option<&[u8]>) -> Self {
        let named = named.map_or_else(
            || "names no protocol".to_owned(),
            |named| format!("names {:?}", plain(&String::from_utf8_lossy(named), SENTENCE)),
        );
        let detail = format!(
            "It was asked for a WebSocket, and the Upgrade of its answer 101 {named}. Look for what stands between \
             the bridge and the backend."
        );
        Self::from_bridge(
            502,
            Cause::BackendLost,
            "The ProxBox backend switched to another protocol.",
            detail,
        )
    }

    /// The bridge is stopping, and the backend has not accepted the work.
    pub fn stopping(retry_after: u64) -> Self {
        let detail = "The bridge is stopping; the sync was not begun.";
        Self::from_bridge(503, Cause::Stopping, "The bridge is stopping.", detail)
            .with_retry_after(retry_after)
    }

    /// There is a run of the same already, and the client wanted one of its own.
    pub fn already_running(job: &str) -> Self {
        let detail =
            format!("Job {job} does the same and has not ended. Leave out bridge.fresh to watch it.");
        Self::from_bridge(409, Cause::Busy, "This sync runs already.", detail)
    }

    /// Too many wait already.
    pub fn queue_full(why: &str, retry_after: u64) -> Self {
        Self::from_bridge(503, Cause::Busy, "Too many syncs wait already.", why).with_retry_after(retry_after)
    }

    /// The backend must be restarted before a sync may run on it.
    pub fn awaits_restart(why: &str, retry_after: u64) -> Self {
        Self::from_bridge(503, Cause::Busy, "The backend must be restarted first.", why)
            .with_retry_after(retry_after)
    }

    /// Nothing may run that cannot be recorded.
    pub fn no_record(why: &str, retry_after: u64) -> Self {
        Self::from_bridge(503, Cause::Unrecorded, "The record of jobs is unavailable.", why)
            .with_retry_after(retry_after)
    }

    /// The run ends for a reason of our own, and the backend has not accepted the work. One that was
    /// cancelled is not to be tried again, which plugins do after a 5xx.
    pub fn stopped(cause: Cause, retry_after: u64) -> Self {
        let cancelled = |detail| Self::from_bridge(409, cause, "The sync was cancelled.", detail);
        match cause {
            Cause::ClientGone => cancelled("Nobody watched it any more; it was not begun."),
            Cause::CancelRequested => cancelled("It was cancelled by request before it was begun."),
            _ => Self::stopping(retry_after),
        }
    }

    /// The backend refused the key in answer to a question that has no body in its answers.
    pub fn key_refused(status: u16, retry_after: Option<&str>) -> Self {
        let detail = match status {
            429 => "Too many failed authentication attempts. Please try again later.",
            _ => "Invalid API key.",
        };
        let refusal = Self::from_bridge(status, Cause::KeyRefused, KEY_REFUSED, detail);
        Self { retry_after: retry_after.map(str::to_owned), ..refusal }
    }

    /// The backend was reached, and then did nothing useful.
    pub fn bad_backend(detail: &str) -> Self {
        Self::from_bridge(502, Cause::BackendLost, "The ProxBox backend did not begin the sync.", detail)
    }

    /// The backend wants a key, and there is none to give. Asking it would count as a failed attempt
    /// there, and five of these lock everybody out.
    pub fn key_missing() -> Self {
        let detail = "API key required. Send it as X-Proxbox-API-Key, or configure backend.api_key_file.";
        Self::from_bridge(401, Cause::KeyRefused, "The backend wants an API key.", detail)
    }

    /// The backend has refused the key, or the lack of one, and is not asked again for `again` seconds.
    pub fn key_refused_recently(has_key: bool, retry_after: u64) -> Self {
        let what = if has_key { "Invalid API key." } else { "API key required." };
        let detail = format!(
            "{what} The backend has said so before, and after five times it locks everybody out: it is asked \
             again in {retry_after} s (limits.refused_key)."
        );
        Self::from_bridge(401, Cause::KeyRefused, KEY_REFUSED, detail)
    }

    /// The backend has asked the client to wait, `again` seconds still.
    pub fn rate_limited(retry_after: u64) -> Self {
        let detail = format!("It has asked your address to wait, {retry_after} s still.");
        Self::from_bridge(429, Cause::KeyRefused, "The ProxBox backend wants no more requests now.", detail)
            .with_retry_after(retry_after)
    }

    /// The backend has not answered for the time `after` whether the keys of requests before this one are right.
    pub fn key_unanswered(after: &str) -> Self {
        let detail = format!(
            "It did not say within {after} (limits.probe) whether the API keys of the requests before this one are \
             right. Until it does, no more requests go on with a key that it has not accepted yet."
        );
        Self::from_bridge(503, Cause::BackendLost, "The ProxBox backend did not answer.", detail)
            .with_retry_after(1)
    }

    /// Too many keys were wrong, and `again` seconds later the next one is tried.
    pub fn wrong_keys(retry_after: u64) -> Self {
        let detail = format!(
            "Too many API keys were wrong: of this client (limits.wrong_keys), or of all clients together. The backend \
             locks clients out after five, so that this key, which it has not accepted yet, is not tried for {retry_after} s. \
             If it counts all clients as one, start it with PROXBOX_TRUSTED_PROXIES."
        );
        Self::from_bridge(429, Cause::KeyRefused, KEY_REFUSED, detail).with_retry_after(retry_after)
    }

    /// The backend has no way to do a sync; `detail` says which, and what it has instead.
    pub fn unsupported(detail: String) -> Self {
        Self::from_bridge(404, Cause::Unsupported, "This sync is not supported.", detail)
    }

    /// The backend cannot be told which Proxmox endpoints are meant, and would take others too.
    pub fn not_scoped(detail: &str) -> Self {
        let message = "The backend cannot be told which Proxmox endpoints are meant.";
        Self::from_bridge(422, Cause::Unsupported, message, detail)
    }

    /// The backend would not tell how the sync ended.
    pub fn cannot_tell_end(detail: &str) -> Self {
        let message = "The backend does not tell how a sync with these Proxmox endpoints ends.";
        Self::from_bridge(422, Cause::Unsupported, message, detail)
    }

    /// The backend would do to the objects of other Proxmox endpoints what it should do to those of the ones that are
    /// meant.
    pub fn harms_others(detail: &str) -> Self {
        let message = "The backend would change objects of other Proxmox endpoints.";
        Self::from_bridge(422, Cause::Unsupported, message, detail)
    }

    /// The backend would write to another place in NetBox than the client means.
    pub fn loses_branch(detail: &str) -> Self {
        Self::from_bridge(
            422,
            Cause::Unsupported,
            "The backend would not write to this branch of NetBox.",
            detail,
        )
    }

    /// The backend closed `/ws` before it was ready, with one of its own codes.
    pub fn from_close(code: u16, reason: &str) -> Self {
        let reason = reason.trim();
        match code {
            // Proxbox's own range. Plugins register their key again when they read of an API key, which
            // is right for a key that is not known and would feed a lock-out.
            1008 | 4000..=4999 => {
                let is_auth_failure = reason.contains("API key") || reason.starts_with("Too many");
                let detail = match reason {
                    "" => "Invalid API key.".to_owned(),
                    reason if is_auth_failure => reason.to_owned(),
                    reason => format!("Invalid API key. {reason}"),
                };
                Self::from_bridge(401, Cause::KeyRefused, KEY_REFUSED, detail)
            }
            1013 => {
                let detail = if reason.is_empty() { "It asked to be tried again later." } else { reason };
                Self::from_bridge(503, Cause::Refused, "The ProxBox backend is busy.", detail)
                    .with_retry_after(1)
            }
            _ => {
                let reason = if reason.is_empty() { String::new() } else { format!(" {reason:?}") };
                Self::bad_backend(&format!(
                    "It closed /ws with code {code}{reason} before it was ready for a command. It does so when it \
                     cannot reach Proxmox or NetBox; its log says why."
                ))
            }
        }
    }

    /// The backend answered with something else than what it was asked for.
    pub fn from_response(answer: ErrorResponse<'_>) -> Self {
        let retry_after = answer.retry_after.map(str::to_owned);
        let cause = if matches!(answer.status, 401 | 429) { Cause::KeyRefused } else { Cause::Refused };
        let compressed = answer.compressed();
        let detail = if compressed.is_some() { None } else { detail::text_of_body(answer.body) };
        if answer.status < 400 {
            // R12, and 2xx that is no stream, or cannot be read.
            let status = answer.status;
            if let Some(compressed) = compressed.filter(|_| (200..300).contains(&status)) {
                return Self::bad_backend(&format!(
                    "It answered {status} with what cannot be read. {compressed}"
                ));
            }
            let kind = answer
                .content_type
                .map_or_else(String::new, |kind| format!(" (Content-Type: {})", plain(kind, MAX_NAMED)));
            let more = detail.map_or_else(String::new, |text| format!(": {text}"));
            return Self::bad_backend(&format!(
                "It answered {status}{kind}, which is not what was asked for{more}"
            ));
        }
        let is_json = compressed.is_none()
            && serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(answer.body).is_ok();
        let body = if is_json {
            RefusalBody::Backend(answer.body.to_vec())
        } else {
            RefusalBody::Bridge {
                message: format!("The backend answered with status {}.", answer.status),
                detail: detail.or(compressed).unwrap_or_else(|| "It gave no reason.".to_owned()),
            }
        };
        Self { status: answer.status, body, retry_after, cause }
    }

    /// The backend refused the opening handshake of `/ws`.
    pub fn from_handshake(answer: ErrorResponse<'_>) -> Self {
        let mut refusal = Self::from_response(answer);
        if let (403, RefusalBody::Bridge { detail, .. }) = (answer.status, &mut refusal.body) {
            detail.push_str(
                " Since 0.0.23.post1 /ws is switched off unless the backend runs with PROXBOX_EXECUTION_MODE=legacy.",
            );
        }
        refusal
    }

    /// The same as the failure of a stream of `kind`.
    pub fn failure(&self, kind: Kind) -> Failure {
        let detail = self.text();
        Failure { step: kind.row().step.to_owned(), error: plain(&detail, SENTENCE).into_owned(), detail }
    }

    /// Whether it is in the backend's own words.
    pub fn is_from_backend(&self) -> bool {
        matches!(self.body, RefusalBody::Backend(_))
    }

    /// What was said, in one text.
    pub fn text(&self) -> String {
        match &self.body {
            RefusalBody::Bridge { message, detail } if detail.starts_with(message.as_str()) => detail.clone(),
            RefusalBody::Bridge { message, detail } => format!("{message} {detail}"),
            RefusalBody::Backend(body) => {
                let detail = detail::text_of_body(body).unwrap_or_default();
                format!("The backend answered with status {}. {detail}", self.status)
            }
        }
    }
}
