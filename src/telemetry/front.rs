//! What happens where clients come in.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::metrics::family::{Label, PerLabel};
use super::metrics::{Listener, METRICS, Route, ShimLabel, Status};
use super::throttle::Throttle;
use crate::core::compat::{Shim, ShimAction};
use crate::core::http::guard::RejectReason;
use crate::core::http::limit::Limit;

/// An address is listened on.
#[derive(Debug)]
pub struct ListenerOpened {
    /// The key that says so.
    pub key: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
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
                "Listening without TLS on an address that others reach: keys can be read on their way."
            );
        }
    }
}

/// A request was answered.
#[derive(Debug)]
pub struct RequestAnswered<'a> {
    /// What it was for.
    pub route: Route,
    /// Its method.
    pub method: &'a str,
    /// Its path.
    pub path: &'a str,
    /// The status of the answer.
    pub status: StatusCode,
    /// Where it came from.
    pub client: IpAddr,
    /// How long it took until the head of the answer.
    pub duration: Duration,
}

impl RequestAnswered<'_> {
    /// Writes the log line and moves the metrics. Probes and scrapes come every few seconds, and are not for
    /// everybody's eyes.
    pub fn emit(self) {
        let Self { route, method, path, status, client, duration } = self;
        METRICS.front.requests.get(route).get(Status::from_code(status)).inc();
        let (route_word, status, duration_seconds) =
            (route.as_str(), status.as_u16(), duration.as_secs_f64());
        let is_quiet = route == Route::Admin && matches!(method, "GET" | "HEAD");
        if is_quiet {
            tracing::debug!(route = route_word, method, path, status, %client, duration_seconds, "Request answered.");
        } else {
            tracing::info!(route = route_word, method, path, status, %client, duration_seconds, "Request answered.");
        }
    }
}

/// A backend fell short of what was asked, and the bridge closed the gap or said why it cannot.
#[derive(Debug)]
pub struct RequestShimmed<'a> {
    /// Which gap.
    pub shim: Shim,
    /// How.
    pub action: ShimAction,
    /// The path that was asked for.
    pub path: &'a str,
}

impl RequestShimmed<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        let Self { shim, action, path } = self;
        METRICS.front.shims.get(ShimLabel { shim, action }).inc();
        tracing::debug!(shim = shim.as_str(), action = action.as_str(), path, "Shim applied.");
    }
}

/// A connection of a client is there.
#[derive(Debug)]
pub struct ConnectionOpened {
    /// Where it came in.
    pub listener: Listener,
    /// Who it is.
    pub client: IpAddr,
}

impl ConnectionOpened {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.front.accepted.get(self.listener).inc();
        METRICS.front.connections.get(self.listener).inc();
        tracing::trace!(listener = self.listener.as_str(), client = %self.client, "Connection opened.");
    }
}

/// It is gone.
#[derive(Debug)]
pub struct ConnectionClosed<'a> {
    /// Where it came in.
    pub listener: Listener,
    /// Who it was.
    pub client: IpAddr,
    /// Why, if it did not end in good order.
    pub error: Option<&'a (dyn std::error::Error + 'static)>,
}

impl ConnectionClosed<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.front.connections.get(self.listener).dec();
        tracing::debug!(client = %self.client, error = self.error, "A client's connection ended.");
    }
}

/// A client takes nothing of what it is sent.
#[derive(Debug)]
pub struct ConnectionStalled {
    /// Who it is.
    pub client: IpAddr,
}

impl ConnectionStalled {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::debug!(client = %self.client, "A client took nothing within limits.client_write.");
    }
}

/// A connection could not be accepted.
#[derive(Debug)]
pub struct AcceptFailed<'a> {
    /// Why.
    pub error: &'a std::io::Error,
}

impl AcceptFailed<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::warn!(error = %self.error, "Cannot accept a connection.");
    }
}

/// The newest handshake that failed, and why. Whoever reaches the port can make them fail.
static HANDSHAKES: LazyLock<Throttle<(IpAddr, String)>> = LazyLock::new(Throttle::default);

/// The TLS handshake of a client failed.
#[derive(Debug)]
pub struct HandshakeFailed<'a> {
    /// Who it was.
    pub client: IpAddr,
    /// Why, and what to do.
    pub error: &'a str,
}

impl HandshakeFailed<'_> {
    /// Writes the log line, at most one a second, and moves the metrics.
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

/// A WebSocket is open.
#[derive(Debug)]
pub struct TunnelOpened;

impl TunnelOpened {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.front.tunnels.inc();
        tracing::debug!("WebSocket opened.");
    }
}

/// It is closed.
#[derive(Debug)]
pub struct TunnelClosed;

impl TunnelClosed {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.front.tunnels.dec();
        tracing::debug!("WebSocket closed.");
    }
}

/// A request was refused for what it is.
#[derive(Debug)]
pub struct RequestRejected<'a> {
    /// Why, in one word.
    pub reason: RejectReason,
    /// Why, in a sentence.
    pub detail: &'a str,
    /// Where it came from.
    pub client: IpAddr,
}

impl RequestRejected<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.front.rejections.get(self.reason).inc();
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

/// For each limit, the newest client that ran into it.
static OVER_LIMIT: LazyLock<PerLabel<Limit, Throttle<IpAddr>>> =
    LazyLock::new(|| PerLabel::new(|_| Throttle::default()));

impl OverLimit {
    /// Moves the metrics, and writes a log line for each limit once a second at most.
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

/// A request of a backend was not answered by NetBox.
pub struct NetboxUnreachable<'a> {
    /// The URL of the backend.
    pub backend: &'a dyn Display,
    /// Why.
    pub error: &'a str,
}

/// The newest request that NetBox did not answer: the backend, and why.
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

/// A connection to a NetBox listener was closed: its address is not allowed.
#[derive(Debug)]
pub struct NetboxStranger {
    /// The address.
    pub client: IpAddr,
}

/// The newest of these addresses. Whoever reaches the listener can connect as often as they like.
static NETBOX_STRANGERS: LazyLock<Throttle<IpAddr>> = LazyLock::new(Throttle::default);

impl NetboxStranger {
    /// Writes the log line, at most one a second.
    pub fn emit(self) {
        if let Some(line) = NETBOX_STRANGERS.add(Instant::now(), self.client) {
            netbox_strangers(line);
        }
    }
}

fn netbox_strangers((count, client): (u64, IpAddr)) {
    tracing::warn!(
        count,
        %client,
        "Connections to a NetBox listener were closed: if this is the backend, add its address to \
         backend.netbox_allow."
    );
}

/// Writes the log lines that were held back for a second, so that the last events of a burst are in the log, too.
pub fn flush_throttled_lines() {
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
    if let Some(line) = NETBOX_STRANGERS.flush(Instant::now()) {
        netbox_strangers(line);
    }
}

/// The key that names the certificate that clients of backends are shown.
pub const CERTIFICATE: &str = "tls.certificate";

/// The files of the certificate of a listener have changed and were read again.
#[derive(Debug)]
pub struct CertificateRead {
    /// The key that names the certificate.
    pub key: &'static str,
    /// Why the one before is still shown, if that is so.
    pub error: Option<String>,
}

impl CertificateRead {
    /// Writes the log line.
    pub fn emit(self) {
        let Self { key, error } = self;
        match error {
            None => tracing::info!(key, "Certificate read again, because its files have changed."),
            Some(error) => {
                tracing::error!(key, error, "The files of the certificate have changed and cannot be used.");
            }
        }
    }
}

/// What files of certificates are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesOf<'a> {
    /// The certificate that a listener shows, named by this key.
    Listener(&'static str),
    /// Connections to the backend of this name.
    Backend(&'a str),
    /// Connections to NetBox for the backend of this name.
    Netbox(&'a str),
}

/// The files of certificates could not be read in time.
#[derive(Debug)]
pub struct CertificatesOverdue<'a> {
    /// What they are for.
    pub owner: FilesOf<'a>,
    /// How long that may take.
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
                "The files of the bridge's certificate ({key}) cannot be read: see whether the disk that they are on \
                 answers. Those read before stay in use."
            ),
            FilesOf::Backend(backend) => tracing::error!(
                backend,
                limit_seconds,
                "The files of the certificates for this backend cannot be read: see whether the disk that they are \
                 on answers. Those read before stay in use."
            ),
            FilesOf::Netbox(backend) => tracing::error!(
                backend,
                limit_seconds,
                "The files of the certificates for NetBox (backend.netbox_ca_file and backend.netbox_client_certificate) \
                 cannot be read: see whether the disk that they are on answers. Those read before stay in use."
            ),
        }
    }
}

/// Whether a certificate may be shown at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It is valid.
    Valid,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYet,
}

/// This is the certificate that a listener shows from now on, or it has another validity than before.
#[derive(Debug)]
pub struct CertificateShown {
    /// The key that names the certificate.
    pub key: &'static str,
    /// When it ends, in seconds since 1970; nothing without TLS.
    pub ends: Option<u64>,
    /// Whether clients accept it now.
    pub validity: Validity,
}

impl CertificateShown {
    /// Writes the log line and moves the metrics.
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
                "The certificate of the bridge ({key}) has expired, and clients refuse it: renew it."
            ),
            Validity::NotYet => tracing::warn!(
                ends,
                "The certificate of the bridge ({key}) is not valid yet: check the clock of this machine."
            ),
        }
    }
}
