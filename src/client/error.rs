//! Why a request to a running bridge failed.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

use http::StatusCode;
use http::header::InvalidHeaderValue;
use http::uri::InvalidUri;
use serde::Deserialize;

use super::AccessToken;
use crate::core::domain::error_code::ErrorCode;
use crate::core::text::plain;
use crate::tls::TlsError;

/// Why a request to a running bridge failed.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// There is no connection to it.
    #[error("cannot connect to the bridge at {url} ({setting})")]
    Unreachable {
        /// The URL of the request.
        url: String,
        /// The key or the flag that sets it.
        setting: &'static str,
        /// The error of the connection.
        source: io::Error,
    },
    /// There was no answer in time.
    #[error("{url} did not answer within {}", humantime::format_duration(*.limit))]
    TimedOut {
        /// The URL of the request.
        url: String,
        /// The time limit.
        limit: Duration,
    },
    /// The connection broke before the end of the response.
    #[error("the connection to {url} broke")]
    Broken {
        /// The URL of the request.
        url: String,
        /// The error of the connection.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The response is not one of a bridge.
    #[error("{url} sent an unexpected answer: is it the admin listener (admin_listen) of a bridge?")]
    Unexpected {
        /// The URL of the request.
        url: String,
        /// The problem of its body.
        source: serde_json::Error,
    },
    /// The bridge refused the request.
    #[error(transparent)]
    Refused(ApiError),
    /// The path or the query of the request is invalid.
    #[error(transparent)]
    Target(#[from] InvalidUri),
    /// A header of the request is invalid.
    #[error(transparent)]
    Header(#[from] InvalidHeaderValue),
    /// The certificates of the system cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl BridgeError {
    /// Whether no bridge runs there.
    pub fn is_not_running(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if source.kind() == ErrorKind::ConnectionRefused)
    }

    /// The error that the bridge answered with.
    pub fn refusal(&self) -> Option<&ApiError> {
        if let Self::Refused(error) = self { Some(error) } else { None }
    }
}

/// An error answer of the admin API. For a missing or wrong token, it says where the token was looked for.
#[derive(Debug)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// The code for programs, such as `unknown_job`; empty in the answer of another server.
    pub code: String,
    message: String,
    detail: String,
}

/// What is read of an answer. Its `detail` may be any JSON in the answer of a backend.
#[derive(Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    detail: serde_json::Value,
}

/// How much of an answer without a message is shown, in characters.
const MAX_SHOWN: usize = 300;

impl ApiError {
    /// The error in the answer `body` to a request with `token`.
    pub(super) fn new(status: StatusCode, body: &[u8], token: &AccessToken) -> Self {
        let ErrorBody { code, message, detail } = serde_json::from_slice(body).unwrap_or_default();
        let detail = match detail {
            serde_json::Value::String(text) => text,
            serde_json::Value::Null if message.is_empty() => {
                plain(&String::from_utf8_lossy(body), MAX_SHOWN).into_owned()
            }
            serde_json::Value::Null => String::new(),
            other => other.to_string(),
        };
        let AccessToken { token, origin } = token;
        let detail = match (ErrorCode::from_name(&code), token) {
            (Some(ErrorCode::TokenRequired), None) => format!("No token was sent: {origin}."),
            (Some(ErrorCode::TokenRequired), Some(_)) => {
                format!("The bridge does not accept the token of {origin}.")
            }
            (Some(ErrorCode::TokenReadOnly), Some(_)) => format!("{detail} It was sent from {origin}."),
            _ => detail,
        };
        Self { status, code, message, detail }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bridge answered {}:", self.status)?;
        let texts = [&self.message, &self.detail];
        texts.into_iter().filter(|text| !text.is_empty()).try_for_each(|text| write!(f, " {text}"))
    }
}

impl Error for ApiError {}
