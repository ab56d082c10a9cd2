//! A connection of a client.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use futures::future::{BoxFuture, Either};
use http::header::CONNECTION;
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::LINGER;
use super::activity::{ConnectionActivity, ConnectionTimeout};
use super::http_connection::HttpConnection;
use super::http1_guard::{CLOSE, GuardSignals, Http1Guard};
use super::role::ListenerRole;
use super::stream_slot::StreamSlot;
use super::write_timeout::WriteTimeout;
use crate::admin;
use crate::app::ClientListener;
use crate::config::Config;
use crate::core::http::guard::{self, KeepAlive};
use crate::core::http::headers::list;
use crate::deadline;
use crate::proxy::Proxy;
use crate::proxy::informational::InformationalResponses;
use crate::proxy::request::{Peer, StallFlag};
use crate::proxy::router::is_sync_stream;
use crate::respond::{self, Body, BoxError};
use crate::telemetry;
use crate::tls;

/// How much of a response rustls buffers while the client does not read, in bytes.
const TLS_BUFFER: usize = 16 * 1024;

/// The context of an accepted connection.
pub(super) struct ConnectionContext {
    pub(super) address: IpAddr,
    pub(super) role: ListenerRole,
    pub(super) listen_address: Option<SocketAddr>,
    pub(super) proxy: Arc<Proxy>,
    /// The configuration when it was accepted. A reload does not change it.
    pub(super) config: Arc<Config>,
    /// Signals that the connection must close.
    pub(super) closing: watch::Receiver<bool>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Serves `stream` until it closes, over TLS if the listener has a certificate.
///
/// A connection keeps the memory of this future until it closes. So what is needed only before it is served is not a part
/// of it, without TLS.
pub(super) fn serve(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    connection: ConnectionContext,
) -> impl Future<Output = ()> + Send {
    let gauge = ConnectionGauge::new(&connection);
    match tls {
        None => Either::Left(served(Box::new(stream), Scheme::HTTP, connection, gauge)),
        Some(tls) => Either::Right(Box::pin(serve_tls(stream, tls, connection, gauge))),
    }
}

async fn serve_tls(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
    connection: ConnectionContext,
    gauge: ConnectionGauge,
) {
    // Boxed: a handshake needs more memory than a connection.
    match tls_accept(stream, tls, &connection).boxed().await {
        Ok(Some(stream)) => served(stream, Scheme::HTTPS, connection, gauge).await,
        Ok(None) => {}
        Err(error) => {
            let certificate = connection.role.certificate_key();
            let error = tls::explain_client(&error, connection.config.limits.handshake, certificate);
            telemetry::HandshakeFailed { client: connection.address, error: &error }.emit();
        }
    }
}

/// Counts a connection in the metrics.
struct ConnectionGauge {
    listener: telemetry::Listener,
    client: IpAddr,
    error: Option<BoxError>,
}

impl ConnectionGauge {
    fn new(connection: &ConnectionContext) -> Self {
        let (listener, client) = (connection.role.listener(), connection.address);
        telemetry::ConnectionOpened { listener, client }.emit();
        Self { listener, client, error: None }
    }

    /// Counts its end, and the error that ended it.
    fn close(mut self, error: Option<BoxError>) {
        self.error = error;
    }
}

impl Drop for ConnectionGauge {
    fn drop(&mut self) {
        let Self { listener, client, error } = self;
        let error = error.as_deref().map(|error| error as &(dyn std::error::Error + 'static));
        telemetry::ConnectionClosed { listener: *listener, client: *client, error }.emit();
    }
}

fn served(
    stream: Box<dyn Stream>,
    scheme: Scheme,
    connection: ConnectionContext,
    gauge: ConnectionGauge,
) -> impl Future<Output = ()> + Send {
    let ConnectionContext { address, role, listen_address, proxy, config, mut closing } = connection;
    let limits = &config.limits;
    let peer = Peer {
        address,
        listener: match role {
            ListenerRole::Clients(listener) => listener,
            ListenerRole::Admin | ListenerRole::Netbox(_) => ClientListener::Shared,
        },
        scheme,
        listen_address,
        request: 0,
        stopped: Arc::default(),
        informational: InformationalResponses::default(),
        stall: StallFlag::default(),
        closing: closing.clone(),
    };
    let stuck = peer.stall.clone();
    let io = WriteTimeout::new(TokioIo::new(stream), limits.client_write, stuck.clone());
    let activity = Arc::new(ConnectionActivity::default());
    let slot = Arc::new(StreamSlot::default());
    let signals = GuardSignals {
        stopped: Arc::clone(&peer.stopped),
        interim: peer.informational.clone(),
        activity: Arc::clone(&activity),
        slot: Arc::clone(&slot),
    };
    let io = Http1Guard::new(io, address, limits.bounds(), limits.client_head, signals);
    let (watched, wrapping) = (Arc::clone(&activity), Arc::clone(&slot));
    let mut revoked = access_revoked(Arc::clone(&proxy), role, address);
    let requests = AtomicU64::new(0);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let request_number = requests.fetch_add(1, Ordering::Relaxed) + 1;
        let peer = Peer { request: request_number, ..peer.clone() };
        let (proxy, watched, slot) = (Arc::clone(&proxy), Arc::clone(&watched), Arc::clone(&wrapping));
        // Boxed: hyper keeps the memory of a future until the connection closes, and this one is large.
        Box::pin(async move {
            let exchange = watched.begin();
            if request.headers_mut().remove(CLOSE).is_some() {
                watched.end_when_idle();
            }
            let version = request.version();
            // After an upgrade request the connection changes its protocol or closes: the guard has not checked what
            // follows.
            let mut may_upgrade = guard::may_upgrade(&request);
            if may_upgrade && is_sync_stream(request.uri()) {
                // The guard passes nothing after it, and its response has no `Connection` (R14).
                may_upgrade = false;
                watched.end_when_idle();
            }
            let may_stream =
                version == http::Version::HTTP_11 && !may_upgrade && request.body().is_end_stream();
            let closes =
                list(request.headers(), &CONNECTION).any(|option| option.eq_ignore_ascii_case(b"close"));
            let keep_alive = if closes { KeepAlive::No } else { KeepAlive::Yes };
            let is_head = request.method() == Method::HEAD;
            if version == http::Version::HTTP_11 {
                peer.informational.begin(request_number);
            }
            let mut response = answer(&proxy, role, request, &peer).await;
            peer.informational.end();
            if is_head && version == http::Version::HTTP_2 {
                // hyper omits the body over HTTP/1 only, and in HTTP/2 a body is a protocol error.
                response = respond::without_body(response);
            }
            if may_upgrade && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let response = response.map(|body| exchange.watch(body, version));
            Ok::<_, Infallible>(if may_stream { slot.wrap(response, keep_alive) } else { response })
        })
    });
    let mut served = HttpConnection::new(io, service, slot, Arc::clone(&config));
    async move {
        // When the shutdown of the connection began.
        let mut closed: Option<Instant> = None;
        loop {
            tokio::select! {
                ended = &mut served => {
                    // Whoever reads that it is closed finds nothing of it open.
                    drop(served);
                    return gauge.close(ended.err());
                }
                // A dropped sender closes it too.
                _ = closing.wait_for(|closing| *closing), if closed.is_none() => {}
                () = activity.drained(), if closed.is_none() => {}
                () = &mut revoked => {
                    telemetry::NetboxAccessDenied { client: address }.emit();
                    return;
                }
                overdue = activity.timed_out(&config.limits, closed) => {
                    if overdue == ConnectionTimeout::Write {
                        stuck.set();
                        telemetry::ConnectionStalled { client: address }.emit();
                        return;
                    }
                    // A closing connection has a limited time for its last frames as well.
                    if closed.is_some() {
                        return;
                    }
                }
            }
            closed = Some(Instant::now());
            served.graceful_shutdown();
        }
    }
}

async fn answer(
    proxy: &Arc<Proxy>,
    role: ListenerRole,
    request: Request<Incoming>,
    peer: &Peer,
) -> Response<Body> {
    // The others are boxed: this future would have the size of the largest.
    match role {
        ListenerRole::Clients(_) => proxy.answer(request, peer).await,
        ListenerRole::Admin => admin::answer(proxy, request, peer).boxed().await,
        ListenerRole::Netbox(wanted) => tokio::select! {
            biased;
            // The connection closes with it.
            () = access_revoked(Arc::clone(proxy), role, peer.address) => pending().await,
            response = proxy.answer_netbox(request, peer, wanted).boxed() => response,
        },
    }
}

/// Waits until a reloaded configuration no longer allows `address` to use `role`.
fn access_revoked(proxy: Arc<Proxy>, role: ListenerRole, address: IpAddr) -> BoxFuture<'static, ()> {
    match role {
        ListenerRole::Netbox(wanted) => {
            async move { proxy.netbox_listener_refuses(wanted, address).await }.boxed()
        }
        ListenerRole::Clients(_) | ListenerRole::Admin => pending().boxed(),
    }
}

/// Sends the last `answer`, and waits briefly for the client to read it: closing a socket with unread data resets the
/// connection, and the client may lose the answer.
pub(super) async fn send_and_close(stream: &mut TcpStream, answer: &[u8]) -> io::Result<()> {
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    let mut unread = [0; 4096];
    let drained = async { while stream.read(&mut unread).await.is_ok_and(|read| read > 0) {} };
    let _ = timeout(LINGER, drained).await;
    Ok(())
}

/// Performs the TLS handshake on `stream`. `None` if the client speaks plain HTTP, which is answered, or closes or
/// resets the connection before its first byte, as health checks of load balancers do.
async fn tls_accept(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
    connection: &ConnectionContext,
) -> io::Result<Option<Box<dyn Stream>>> {
    let shaken = deadline::timeout(connection.config.limits.handshake, async {
        let mut first = [0; 8];
        let seen = match stream.peek(&mut first).await {
            Ok(0) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            seen => seen?,
        };
        if tls::looks_like_http(&first[..seen]) {
            send_and_close(&mut stream, &tls::plain_on_tls()).await?;
            return Ok(None);
        }
        let mut accepted = TlsAcceptor::from(config).accept(stream).await?;
        accepted.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
        Ok(Some(Box::new(accepted) as Box<dyn Stream>))
    });
    shaken.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests;
