//! Answers to a request that did not become a stream.

use super::event::Failure;
use super::kind::Kind;
use super::outcome::Cause;
use crate::core::remote::Remote;
use crate::core::text::detail::{self, SENTENCE};
use crate::core::text::plain;

/// An HTTP answer in place of a stream (R15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: RefusalBody,
    /// The value of `Retry-After`, if a retry is useful.
    pub retry_after: Option<String>,
    /// Why there is no stream.
    pub cause: Cause,
}

/// The body of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalBody {
    /// The bridge's own error: a JSON object with `message` and `detail`.
    Bridge {
        /// The error as a sentence.
        message: String,
        /// All details.
        detail: String,
    },
    /// The backend's own JSON, unchanged.
    Backend(Vec<u8>),
}

/// An unexpected answer of the backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorResponse<'a> {
    /// Its HTTP status.
    pub status: u16,
    /// Its `Retry-After`.
    pub retry_after: Option<&'a str>,
    /// Its body, or the first part of it.
    pub body: &'a [u8],
    /// Its `Content-Type`.
    pub content_type: Option<&'a str>,
    /// Its `Content-Encoding`. The bridge requests none, so the body is unreadable if this is set.
    pub content_encoding: Option<&'a str>,
}

impl ErrorResponse<'_> {
    /// The error for its encoding, with a remedy.
    pub fn compressed(&self) -> Option<String> {
        self.content_encoding.map(|encoding| compressed(Remote::Backend, encoding))
    }
}

/// The error for an answer of `remote` with this `Content-Encoding`, with a remedy.
pub fn compressed(remote: Remote, encoding: &str) -> String {
    let encoding = plain(encoding, MAX_NAMED);
    format!(
        "It is compressed (Content-Encoding: {encoding}), although the bridge requests identity. Disable compression \
         in {remote}, or in the proxy in front of it."
    )
}

/// The maximum length of a repeated header value, in characters.
const MAX_NAMED: usize = 80;

/// The message of every refusal of a request in a loop.
pub const LOOP_DETECTED: &str = "Loop detected.";

const KEY_REFUSED: &str = "The backend refused the API key.";

impl Refusal {
    fn from_bridge(status: u16, cause: Cause, message: &str, detail: impl Into<String>) -> Self {
        let body = RefusalBody::Bridge { message: message.to_owned(), detail: detail.into() };
        Self { status, body, retry_after: None, cause }
    }

    /// 503 Service Unavailable, with the seconds until a retry is useful.
    fn unavailable(cause: Cause, message: &str, detail: impl Into<String>, retry_after: u64) -> Self {
        Self::from_bridge(503, cause, message, detail).with_retry_after(retry_after)
    }

    fn with_retry_after(self, retry_after: u64) -> Self {
        Self { retry_after: Some(retry_after.to_string()), ..self }
    }

    /// The backend is unreachable (R16).
    pub fn unreachable(why: &str, retry_after: u64) -> Self {
        Self::unavailable(Cause::Unreachable, "The ProxBox backend cannot be reached.", why, retry_after)
    }

    /// Requests to the backend come back. `why` names the key to change.
    pub fn in_loop(why: &str) -> Self {
        Self::from_bridge(508, Cause::Refused, LOOP_DETECTED, why)
    }

    /// The backend closed the connection without an answer. Releases up to 0.0.11 do so if their dependencies block
    /// them for more than ten seconds, so a retry is useful.
    pub fn no_answer(why: &str, retry_after: u64) -> Self {
        Self::unavailable(Cause::BackendLost, "The ProxBox backend did not answer.", why, retry_after)
    }

    /// The backend did not answer in time. It may have executed the request.
    pub fn timed_out(why: &str) -> Self {
        Self::from_bridge(504, Cause::BackendLost, "The ProxBox backend did not answer.", why)
    }

    /// The connection broke. The backend may have executed the request.
    pub fn broken(why: &str) -> Self {
        Self::from_bridge(502, Cause::BackendLost, "The ProxBox backend broke the connection.", why)
    }

    /// The backend switched to a protocol other than WebSocket.
    pub fn other_protocol(named: Option<&[u8]>) -> Self {
        let named = match named {
            None => "names no protocol".to_owned(),
            Some(named) => format!("names {:?}", plain(&String::from_utf8_lossy(named), SENTENCE)),
        };
        let detail = format!(
            "The bridge requested a WebSocket, and the Upgrade header of the 101 response {named}. Check the proxies \
             between the bridge and the backend."
        );
        let message = "The ProxBox backend switched to another protocol.";
        Self::from_bridge(502, Cause::BackendLost, message, detail)
    }

    /// The bridge is shutting down, and the backend has not accepted the work.
    pub fn stopping(retry_after: u64) -> Self {
        let detail = "The bridge is stopping. The sync was not started.";
        Self::unavailable(Cause::Stopping, "The bridge is stopping.", detail, retry_after)
    }

    /// The same sync is already running, and the client requested a new one.
    pub fn already_running(job: &str) -> Self {
        let detail =
            format!("Job {job} runs the same sync. Remove bridge.fresh from the request to attach to it.");
        Self::from_bridge(409, Cause::Busy, "This sync is already running.", detail)
    }

    /// The queue is full.
    pub fn queue_full(why: &str, retry_after: u64) -> Self {
        Self::unavailable(Cause::Busy, "Too many syncs are queued.", why, retry_after)
    }

    /// The backend must be restarted before it can run a sync.
    pub fn awaits_restart(why: &str, retry_after: u64) -> Self {
        Self::unavailable(Cause::Busy, "The backend must be restarted first.", why, retry_after)
    }

    /// The job could not be recorded, so it does not run.
    pub fn no_record(why: &str, retry_after: u64) -> Self {
        Self::unavailable(Cause::Unrecorded, "The record of jobs is unavailable.", why, retry_after)
    }

    /// The bridge stopped the run before the backend accepted the work. A cancelled run gets no 5xx, because plugins
    /// retry after one.
    pub fn stopped(cause: Cause, retry_after: u64) -> Self {
        let cancelled = |detail| Self::from_bridge(409, cause, "The sync was cancelled.", detail);
        match cause {
            Cause::ClientGone => cancelled("Its last client disconnected before it started."),
            Cause::CancelRequested => cancelled("It was cancelled on request before it started."),
            _ => Self::stopping(retry_after),
        }
    }

    /// The backend rejected the key in an answer without a body.
    pub fn key_refused(status: u16, retry_after: Option<&str>) -> Self {
        let detail = match status {
            429 => "Too many failed authentication attempts. Please try again later.",
            _ => "Invalid API key.",
        };
        let refusal = Self::from_bridge(status, Cause::KeyRefused, KEY_REFUSED, detail);
        Self { retry_after: retry_after.map(str::to_owned), ..refusal }
    }

    /// The backend was reached but gave no usable answer.
    pub fn bad_backend(detail: &str) -> Self {
        Self::from_bridge(502, Cause::BackendLost, "The ProxBox backend did not begin the sync.", detail)
    }

    /// The backend requires a key, and none is configured. A request without a key would count as a failed attempt,
    /// and five of these lock out every client.
    pub fn key_missing() -> Self {
        let detail = "API key required. Send it as X-Proxbox-API-Key, or configure backend.api_key_file.";
        Self::from_bridge(401, Cause::KeyRefused, "API key required.", detail)
    }

    /// The backend has rejected the key. The next attempt is in `retry_after` seconds.
    pub fn key_refused_recently(retry_after: u64) -> Self {
        Self::refused_recently("Invalid API key.", retry_after)
    }

    /// The backend has rejected a request without a key. The next attempt is in `retry_after` seconds.
    pub fn key_missing_recently(retry_after: u64) -> Self {
        Self::refused_recently("API key required.", retry_after)
    }

    fn refused_recently(what: &str, retry_after: u64) -> Self {
        let detail = format!(
            "{what} The backend has rejected it before, and locks all clients out after five failures. The next \
             attempt is in {retry_after} s (limits.refused_key)."
        );
        Self::from_bridge(401, Cause::KeyRefused, KEY_REFUSED, detail)
    }

    /// The backend rate-limits the client for another `retry_after` seconds.
    pub fn rate_limited(retry_after: u64) -> Self {
        let detail = format!("It rate-limits your address for another {retry_after} s.");
        let message = "The ProxBox backend refuses further requests for now.";
        Self::from_bridge(429, Cause::KeyRefused, message, detail).with_retry_after(retry_after)
    }

    /// The backend has not confirmed or rejected the keys of earlier requests for the time `after`.
    pub fn key_unanswered(after: &str) -> Self {
        let detail = format!(
            "It has not accepted or rejected the API keys of earlier requests within {after} (limits.probe). Until it \
             does, no request with a key that it has not accepted is forwarded."
        );
        Self::unavailable(Cause::BackendLost, "The ProxBox backend did not answer.", detail, 1)
    }

    /// Too many keys were wrong. The next one is tried in `retry_after` seconds.
    pub fn wrong_keys(retry_after: u64) -> Self {
        let detail = format!(
            "Too many API keys were wrong: of this client (limits.wrong_keys), or of all clients together. The backend \
             locks clients out after five, so that this key, which it has not accepted yet, is not tried for {retry_after} s. \
             If it counts all clients as one, start it with PROXBOX_TRUSTED_PROXIES."
        );
        Self::from_bridge(429, Cause::KeyRefused, KEY_REFUSED, detail).with_retry_after(retry_after)
    }

    /// The backend does not support the sync. `detail` names it and the supported ones.
    pub fn unsupported(detail: String) -> Self {
        Self::from_bridge(404, Cause::Unsupported, "This sync is not supported.", detail)
    }

    /// The backend cannot restrict the sync to the requested Proxmox endpoints, and would include others.
    pub fn not_scoped(detail: &str) -> Self {
        let message = "The backend cannot restrict a sync to single Proxmox endpoints.";
        Self::from_bridge(422, Cause::Unsupported, message, detail)
    }

    /// The backend would not report how the sync ended.
    pub fn cannot_detect_end(detail: &str) -> Self {
        let message = "The backend does not report how a sync with these Proxmox endpoints ends.";
        Self::from_bridge(422, Cause::Unsupported, message, detail)
    }

    /// The backend would also modify the objects of Proxmox endpoints that were not requested.
    pub fn harms_others(detail: &str) -> Self {
        let message = "The backend would change objects of other Proxmox endpoints.";
        Self::from_bridge(422, Cause::Unsupported, message, detail)
    }

    /// The backend would write to another NetBox branch than the client requested.
    pub fn loses_branch(detail: &str) -> Self {
        let message = "The backend would not write to this branch of NetBox.";
        Self::from_bridge(422, Cause::Unsupported, message, detail)
    }

    /// The backend closed `/ws` before its greeting, with one of its own codes.
    pub fn from_close(code: u16, reason: &str) -> Self {
        let reason = reason.trim();
        match code {
            // ProxBox's own range. Plugins register their key again if the text mentions an API key. That is right for
            // an unknown key, but would extend a lock-out.
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
                let detail = if reason.is_empty() { "It asks clients to retry later." } else { reason };
                Self::unavailable(Cause::Refused, "The ProxBox backend is busy.", detail, 1)
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

    /// The backend answered with something other than the requested stream.
    pub fn from_response(answer: ErrorResponse<'_>) -> Self {
        let retry_after = answer.retry_after.map(str::to_owned);
        let cause = if matches!(answer.status, 401 | 429) { Cause::KeyRefused } else { Cause::Refused };
        let compressed = answer.compressed();
        let detail = if compressed.is_some() { None } else { detail::text_of_body(answer.body) };
        if answer.status < 400 {
            // R12, and 2xx answers that are no stream or unreadable.
            let status = answer.status;
            if let Some(compressed) = compressed.filter(|_| (200..300).contains(&status)) {
                let detail = format!("It answered {status} with a body that cannot be decoded. {compressed}");
                return Self::bad_backend(&detail);
            }
            let kind = answer.content_type.map(|kind| format!(" (Content-Type: {})", plain(kind, MAX_NAMED)));
            let (kind, more) = (kind.unwrap_or_default(), detail.map(|text| format!(": {text}")));
            let more = more.unwrap_or_default();
            return Self::bad_backend(&format!("It answered {status}{kind}, not the requested stream{more}"));
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

    /// The backend rejected the opening handshake of `/ws`.
    pub fn from_handshake(answer: ErrorResponse<'_>) -> Self {
        let mut refusal = Self::from_response(answer);
        if let (403, RefusalBody::Bridge { detail, .. }) = (answer.status, &mut refusal.body) {
            detail.push_str(
                " Since 0.0.23.post1 /ws is switched off unless the backend runs with PROXBOX_EXECUTION_MODE=legacy.",
            );
        }
        refusal
    }

    /// The refusal as the failure of a stream of `kind`.
    pub fn failure(&self, kind: Kind) -> Failure {
        let detail = self.text();
        Failure { step: kind.row().step.to_owned(), error: plain(&detail, SENTENCE).into_owned(), detail }
    }

    /// Whether the body is the backend's own.
    pub fn is_from_backend(&self) -> bool {
        matches!(self.body, RefusalBody::Backend(_))
    }

    /// The whole error as one text.
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
