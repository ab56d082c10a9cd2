//! Events on the listeners: connections, requests, TLS and certificates.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::log;
use super::metrics::family::{Label, PerLabel};
use super::metrics::{GaugeGuard, Listener, METRICS, Route, ShimLabel, Status};
use super::throttle::Throttle;
use crate::core::compat::{Shim, ShimAction};
use crate::core::http::guard::RejectReason;
use crate::core::http::limit::Limit;

/// A listener was opened.
#[derive(Debug)]
pub struct ListenerOpened {
    /// The configuration key of the address.
    pub key: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// Whether it uses TLS.
    pub is_tls: bool,
}

impl ListenerOpened {
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
                "Listening without TLS on an address that is not loopback: API keys are sent in clear text."
            );
        }
    }
}

/// A request arrived.
#[derive(Debug)]
pub struct RequestReceived {
    /// The listener.
    pub listener: Listener,
}

impl RequestReceived {
    /// Updates the metrics. The request is in flight until the guard is dropped.
    pub fn emit(self) -> GaugeGuard {
        GaugeGuard::new(METRICS.front.in_flight.get(self.listener))
    }
}

/// A request was answered.
#[derive(Debug)]
pub struct RequestAnswered<'a> {
    /// The part of the bridge that answered it.
    pub route: Route,
    /// Its method.
    pub method: &'a str,
    /// Its path.
    pub path: &'a str,
    /// The status of the answer.
    pub status: StatusCode,
    /// The address of the client.
    pub client: IpAddr,
    /// The job that the answer is for.
    pub job: Option<&'a str>,
    /// The time until the head of the answer.
    pub duration: Duration,
}

impl RequestAnswered<'_> {
    /// Writes the log line and updates the metrics. GET and HEAD on the admin listener are logged at debug: probes and
    /// scrapes recur every few seconds.
    pub fn emit(self) {
        let Self { route, method, path, status, client, job, duration } = self;
        METRICS.front.requests.get(route).get(Status::from_code(status)).inc();
        METRICS.front.latency.get(route).observe(duration.as_secs_f64());
        let (route_word, status, duration_seconds) =
            (route.as_str(), status.as_u16(), duration.as_secs_f64());
        let is_quiet = route == Route::Admin && matches!(method, "GET" | "HEAD");
        if is_quiet {
            tracing::debug!(route = route_word, method, path, status, %client, job, duration_seconds, "Request answered.");
        } else {
            tracing::info!(route = route_word, method, path, status, %client, job, duration_seconds, "Request answered.");
        }
    }
}

/// The bridge filled a gap of an old backend, or refused the request because it cannot.
#[derive(Debug)]
pub struct RequestShimmed<'a> {
    /// The shim.
    pub shim: Shim,
    /// Its action.
    pub action: ShimAction,
    /// The path of the request.
    pub path: &'a str,
}

impl RequestShimmed<'_> {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        let Self { shim, action, path } = self;
        METRICS.front.shims.get(ShimLabel { shim, action }).inc();
        tracing::debug!(shim = shim.as_str(), action = action.as_str(), path, "Shim applied.");
    }
}

/// A connection of a client was accepted.
#[derive(Debug)]
pub struct ConnectionOpened {
    /// The listener.
    pub listener: Listener,
    /// The address of the client.
    pub client: IpAddr,
}

impl ConnectionOpened {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.front.accepted.get(self.listener).inc();
        METRICS.front.connections.get(self.listener).inc();
        tracing::trace!(listener = self.listener.as_str(), client = %self.client, "Connection opened.");
    }
}

/// A connection of a client was closed.
#[derive(Debug)]
pub struct ConnectionClosed<'a> {
    /// The listener.
    pub listener: Listener,
    /// The address of the client.
    pub client: IpAddr,
    /// The error, if the connection was not closed cleanly.
    pub error: Option<&'a (dyn std::error::Error + 'static)>,
}

impl ConnectionClosed<'_> {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.front.connections.get(self.listener).dec();
        tracing::debug!(client = %self.client, error = self.error, "Connection closed.");
    }
}

/// A client read nothing within `limits.client_write`.
#[derive(Debug)]
pub struct ConnectionStalled {
    /// The address of the client.
    pub client: IpAddr,
}

impl ConnectionStalled {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::debug!(client = %self.client, "Client read nothing within limits.client_write.");
    }
}

/// A connection could not be accepted.
#[derive(Debug)]
pub struct AcceptFailed<'a> {
    /// The error of the system.
    pub error: &'a std::io::Error,
}

impl AcceptFailed<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::warn!(error = %self.error, "Cannot accept a connection.");
    }
}

/// The newest failed handshake and its error. Throttled, because any peer can cause them.
static HANDSHAKES: LazyLock<Throttle<(IpAddr, String)>> = LazyLock::new(Throttle::default);

/// The TLS handshake of a client failed.
#[derive(Debug)]
pub struct HandshakeFailed<'a> {
    /// The address of the client.
    pub client: IpAddr,
    /// The reason, and what to do.
    pub error: &'a str,
}

impl HandshakeFailed<'_> {
    /// Writes the log line, at most one a second, and updates the metrics.
    pub fn emit(self) {
        let Self { client, error } = self;
        METRICS.front.handshake_failures.inc();
        if let Some(line) = HANDSHAKES.add(Instant::now(), (client, error.to_owned())) {
            handshakes_failed(line);
        }
    }
}

fn handshakes_failed((count, (client, error)): (u64, (IpAddr, String))) {
    tracing::warn!(count, %client, %error, "TLS handshakes with clients failed.");
}

/// A WebSocket was opened.
#[derive(Debug)]
pub struct TunnelOpened;

impl TunnelOpened {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.front.tunnels.inc();
        tracing::debug!("WebSocket opened.");
    }
}

/// A WebSocket was closed.
#[derive(Debug)]
pub struct TunnelClosed;

impl TunnelClosed {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.front.tunnels.dec();
        tracing::debug!("WebSocket closed.");
    }
}

/// A request was rejected before it was routed: it is malformed or ambiguous.
#[derive(Debug)]
pub struct RequestRejected<'a> {
    /// The reason, as the metrics' label.
    pub reason: RejectReason,
    /// The reason, as a sentence.
    pub detail: &'a str,
    /// The address of the client.
    pub client: IpAddr,
}

impl RequestRejected<'_> {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        let Self { reason, detail, client } = self;
        METRICS.front.rejections.get(reason).inc();
        let reason_word = reason.as_str();
        if reason == RejectReason::Loop {
            tracing::error!(reason = reason_word, detail, %client, "Request rejected.");
        } else {
            tracing::warn!(reason = reason_word, detail, %client, "Request rejected.");
        }
    }
}

/// A client exceeded a limit.
#[derive(Debug)]
pub struct OverLimit {
    /// The limit.
    pub limit: Limit,
    /// The address of the client.
    pub client: IpAddr,
}

/// For each limit, the newest client that exceeded it.
static OVER_LIMIT: LazyLock<PerLabel<Limit, Throttle<IpAddr>>> =
    LazyLock::new(|| PerLabel::new(|_| Throttle::default()));

impl OverLimit {
    /// Updates the metrics, and writes at most one log line a second for each limit.
    pub fn emit(self) {
        let Self { limit, client } = self;
        METRICS.front.over_limit.get(limit).inc();
        if let Some(line) = OVER_LIMIT.get(limit).add(Instant::now(), client) {
            over_limit(limit, line);
        }
    }
}

fn over_limit(limit: Limit, (count, client): (u64, IpAddr)) {
    tracing::warn!(limit = limit.as_str(), count, %client, "{}", limit.detail());
}

/// NetBox did not answer a request of a backend.
pub struct NetboxUnreachable<'a> {
    /// The URL of the backend.
    pub backend: &'a dyn Display,
    /// The error.
    pub error: &'a str,
}

/// The newest request that NetBox did not answer: the backend and the error.
static NETBOX_UNREACHABLE: LazyLock<Throttle<(String, String)>> = LazyLock::new(Throttle::default);

impl NetboxUnreachable<'_> {
    /// Writes the log line, at most one a second.
    pub fn emit(self) {
        let event = (self.backend.to_string(), self.error.to_owned());
        if let Some(line) = NETBOX_UNREACHABLE.add(Instant::now(), event) {
            netbox_unreachable(line);
        }
    }
}

fn netbox_unreachable((count, (backend, error)): (u64, (String, String))) {
    tracing::warn!(count, backend, error, "NetBox did not answer requests of this backend.");
}

/// A connection to a NetBox listener was closed because its address is not allowed.
#[derive(Debug)]
pub struct NetboxAccessDenied {
    /// The address.
    pub client: IpAddr,
}

/// The newest of these addresses. Throttled, because any peer can cause them.
static NETBOX_ACCESS_DENIED: LazyLock<Throttle<IpAddr>> = LazyLock::new(Throttle::default);

impl NetboxAccessDenied {
    /// Writes the log line, at most one a second.
    pub fn emit(self) {
        if let Some(line) = NETBOX_ACCESS_DENIED.add(Instant::now(), self.client) {
            netbox_access_denied(line);
        }
    }
}

fn netbox_access_denied((count, client): (u64, IpAddr)) {
    tracing::warn!(
        count,
        %client,
        "Connections to a NetBox listener were refused: if this address is the backend's, add it to \
         backend.netbox_allow."
    );
}

/// Writes the throttled log lines that are due, so that the log has the last events of a burst.
pub fn flush_throttled_lines() {
    log::flush_repeats();
    for limit in Limit::all() {
        if let Some(line) = OVER_LIMIT.get(limit).flush(Instant::now()) {
            over_limit(limit, line);
        }
    }
    if let Some(line) = HANDSHAKES.flush(Instant::now()) {
        handshakes_failed(line);
    }
    if let Some(line) = NETBOX_UNREACHABLE.flush(Instant::now()) {
        netbox_unreachable(line);
    }
    if let Some(line) = NETBOX_ACCESS_DENIED.flush(Instant::now()) {
        netbox_access_denied(line);
    }
}

/// The configuration key of the certificate for clients.
pub const CERTIFICATE: &str = "tls.certificate";

/// The certificate files of a listener changed and were read again.
#[derive(Debug)]
pub struct CertificateRead {
    /// The configuration key of the certificate.
    pub key: &'static str,
    /// Why the new files cannot be used. The certificate before stays in use.
    pub error: Option<String>,
}

impl CertificateRead {
    /// Writes the log line.
    pub fn emit(self) {
        let Self { key, error } = self;
        match error {
            None => tracing::info!(key, "Certificate files changed and were read again."),
            Some(error) => {
                tracing::error!(
                    key,
                    error,
                    "The certificate files changed and cannot be used. The previous certificate stays in use."
                );
            }
        }
    }
}

/// The connections that certificate files are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesOf<'a> {
    /// A listener, with the configuration key of its certificate.
    Listener(&'static str),
    /// Connections to the backend of this name.
    Backend(&'a str),
    /// Connections to NetBox for the backend of this name.
    Netbox(&'a str),
}

/// Certificate files could not be read in time.
#[derive(Debug)]
pub struct CertificatesOverdue<'a> {
    /// The connections that they are for.
    pub owner: FilesOf<'a>,
    /// The time limit.
    pub limit: Duration,
}

impl CertificatesOverdue<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        let limit_seconds = self.limit.as_secs_f64();
        match self.owner {
            FilesOf::Listener(key) => tracing::error!(
                key,
                limit_seconds,
                "The files of the bridge's certificate ({key}) cannot be read in time: check their disk. The previous \
                 ones stay in use."
            ),
            FilesOf::Backend(backend) => tracing::error!(
                backend,
                limit_seconds,
                "The TLS files for this backend cannot be read in time: check their disk. The previous ones stay in \
                 use."
            ),
            FilesOf::Netbox(backend) => tracing::error!(
                backend,
                limit_seconds,
                "The TLS files for NetBox (backend.netbox_ca_file and backend.netbox_client_certificate) cannot be \
                 read in time: check their disk. The previous ones stay in use."
            ),
        }
    }
}

/// Whether a certificate is valid now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It is valid.
    Valid,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYet,
}

/// A listener uses a new certificate, or the validity of its certificate changed.
#[derive(Debug)]
pub struct CertificateShown {
    /// The configuration key of the certificate.
    pub key: &'static str,
    /// When it expires, in seconds since the Unix epoch. `None` without TLS.
    pub ends: Option<u64>,
    /// Whether it is valid now.
    pub validity: Validity,
}

impl CertificateShown {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        let Self { key, ends, validity } = self;
        if key == CERTIFICATE {
            METRICS.front.certificate_expiry.set(ends.unwrap_or_default() as f64);
        }
        let Some(ends) = ends else { return };
        match validity {
            Validity::Valid => tracing::debug!(key, ends, "Certificate in use."),
            Validity::Expired => tracing::warn!(
                ends,
                "The bridge's certificate ({key}) has expired and clients refuse it: renew it."
            ),
            Validity::NotYet => tracing::warn!(
                ends,
                "The bridge's certificate ({key}) is not valid yet: check the clock of this machine."
            ),
        }
    }
}
