//! What happens where clients come in.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::metrics::METRICS;
use crate::core::guard::Reason;
use crate::core::limit::Limit;

/// An address is listened on.
#[derive(Debug)]
pub struct Listening {
    /// The key that says so.
    pub key: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub is_tls: bool,
}

impl Listening {
    /// Writes the log line.
    pub fn emit(self) {
        let Self { key, address, is_tls } = self;
        if is_tls || address.ip().is_loopback() {
            tracing::info!(%address, key, tls = is_tls, "Listening.");
        } else {
            tracing::warn!(
                %address,
                key,
                tls = is_tls,
                "Listening without TLS on an address that others reach: keys can be read on their way."
            );
        }
    }
}

/// A request was answered.
#[derive(Debug)]
pub struct Answered<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path.
    pub path: &'a str,
    /// The status of the answer.
    pub status: u16,
    /// Where it came from.
    pub client: IpAddr,
    /// How long it took until the head of the answer.
    pub duration: Duration,
}

impl Answered<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::info!(
            method = self.method,
            path = self.path,
            status = self.status,
            client = %self.client,
            duration_seconds = self.duration.as_secs_f64(),
            "Request answered."
        );
    }
}

/// A request was refused for what it is.
#[derive(Debug)]
pub struct Rejected<'a> {
    /// Why, in one word.
    pub reason: Reason,
    /// Why, in a sentence.
    pub detail: &'a str,
    /// Where it came from.
    pub client: IpAddr,
}

impl Rejected<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.rejections.with_label_values(&[self.reason.as_str()]).inc();
        tracing::warn!(
            reason = self.reason.as_str(),
            detail = self.detail,
            client = %self.client,
            "Request rejected."
        );
    }
}

/// A client wanted more than it may have.
#[derive(Debug)]
pub struct OverLimit {
    /// The limit.
    pub limit: Limit,
    /// Who it was.
    pub client: IpAddr,
}

impl OverLimit {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.over_limit.with_label_values(&[self.limit.as_str()]).inc();
        tracing::warn!(limit = self.limit.as_str(), client = %self.client, "{}", self.limit.detail());
    }
}

/// The configuration was read again.
#[derive(Debug)]
pub struct Reloaded {
    /// Why nothing has changed, if that is so.
    pub error: Option<String>,
}

impl Reloaded {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        let result = if self.error.is_some() { "failure" } else { "success" };
        METRICS.reloads.with_label_values(&[result]).inc();
        match self.error {
            None => tracing::info!("Configuration read again."),
            Some(error) => {
                tracing::error!(
                    error,
                    "The configuration could not be read again; the one before is in force."
                );
            }
        }
    }
}

/// The files of the certificate have changed and were read again.
#[derive(Debug)]
pub struct CertificateRead {
    /// Why the one before is still shown, if that is so.
    pub error: Option<String>,
}

impl CertificateRead {
    /// Writes the log line.
    pub fn emit(self) {
        match self.error {
            None => tracing::info!("Certificate read again, because its files have changed."),
            Some(error) => {
                tracing::error!(error, "The files of the certificate have changed and cannot be used.");
            }
        }
    }
}
