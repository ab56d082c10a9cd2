//! One connection of a client.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::activity::Activity;
use super::listener::Door;
use super::patience::Patience;
use super::screen::{CLOSE, Screen};
use crate::config::Limits;
use crate::core::guard::Bounds;
use crate::core::limit::Limit;
use crate::handler::{Bridge, Entrance, Peer, admin};
use crate::respond::Body;
use crate::tls;

/// How many requests an HTTP/2 connection may have at once.
const STREAMS: u32 = 128;
/// How much of a request hyper may have in its hands, in bytes; a head that the guard let through must fit.
const BUFFER: usize = 512 * 1024;
/// How much of an answer an HTTP/2 stream keeps while its reader does not take it, in bytes.
const SEND_BUFFER: usize = 64 * 1024;

/// What is known of a connection before anything was said on it.
pub(super) struct Connection {
    pub(super) address: IpAddr,
    pub(super) door: Door,
    pub(super) bridge: Arc<Bridge>,
    pub(super) limits: Limits,
    /// It is to come to an end.
    pub(super) closing: watch::Receiver<bool>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Serves `stream`, over TLS if there is a certificate, until it ends.
pub(super) async fn serve(stream: TcpStream, tls: Option<Arc<ServerConfig>>, connection: Connection) {
    let is_tls = tls.is_some();
    let stream: Box<dyn Stream> = match tls {
        None => Box::new(stream),
        Some(config) => match secured(stream, config, &connection).await {
            Ok(Some(stream)) => stream,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(client = %connection.address, %error, "There was no TLS handshake.");
                return;
            }
        },
    };
    let Connection { address, door, bridge, limits, mut closing } = connection;
    let entrance = match door {
        Door::Clients(entrance) => entrance,
        Door::Admin => Entrance::Common,
    };
    let peer = Peer { address, entrance, is_tls, stopped: Arc::default() };
    let bounds = Bounds {
        head_bytes: limits.head_bytes,
        header_count: limits.header_count,
        target_bytes: limits.target_bytes,
    };
    let io = Patience::new(TokioIo::new(stream), limits.client_write);
    let io = Screen::new(io, bounds, limits.client_head, Arc::clone(&peer.stopped));
    let activity = Arc::new(Activity::default());
    let watched = Arc::clone(&activity);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (bridge, peer, watched) = (Arc::clone(&bridge), peer.clone(), Arc::clone(&watched));
        async move {
            let exchange = watched.begin();
            if request.headers_mut().remove(CLOSE).is_some() {
                watched.end_when_idle();
            }
            let is_http_2 = request.version() == http::Version::HTTP_2;
            let response = answer(&bridge, door, request, &peer).await;
            Ok::<_, Infallible>(response.map(|body| exchange.watch(body, is_http_2)))
        }
    });
    let streams = Streams::default();
    let mut builder = auto::Builder::new(streams.clone());
    // The time for a head is counted by the screen. This is the time between two requests.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.client_idle)
        .max_headers(limits.header_count + 1)
        .max_buf_size(BUFFER.max(2 * limits.head_bytes));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER);
    let served = builder.serve_connection_with_upgrades(io, service);
    let mut served = std::pin::pin!(served);
    let mut is_closing = false;
    loop {
        tokio::select! {
            ended = &mut served => {
                if let Err(error) = ended {
                    tracing::debug!(client = %address, error, "A client's connection ended.");
                }
                return;
            }
            // Also when whoever could say it is gone.
            _ = closing.wait_for(|closing| *closing), if !is_closing => {
                is_closing = true;
                served.as_mut().graceful_shutdown();
            }
            stuck = activity.stuck(limits.client_write, (!is_closing).then_some(limits.client_idle)) => {
                if stuck {
                    tracing::debug!(client = %address, "A client took nothing within limits.client_write.");
                    return;
                }
                is_closing = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn answer(bridge: &Bridge, door: Door, request: Request<Incoming>, peer: &Peer) -> Response<Body> {
    match door {
        Door::Clients(_) => bridge.answer(request, peer).await,
        Door::Admin => admin::answer(bridge, request, peer).await,
    }
}

/// `stream` behind a TLS handshake. Nothing, if the client speaks plain HTTP and was told so.
async fn secured(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
    connection: &Connection,
) -> io::Result<Option<Box<dyn Stream>>> {
    let shaken = timeout(connection.limits.handshake, async {
        let mut first = [0; 8];
        let seen = stream.peek(&mut first).await?;
        if tls::looks_like_http(&first[..seen]) {
            stream.write_all(&tls::plain_on_tls()).await?;
            stream.shutdown().await?;
            return Ok(None);
        }
        let accepted = TlsAcceptor::from(config).accept(stream).await?;
        Ok(Some(Box::new(accepted) as Box<dyn Stream>))
    });
    shaken.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The whole answer to a client that comes when there are too many.
pub(super) fn turned_away(limit: Limit) -> String {
    let status = http::StatusCode::from_u16(limit.status()).unwrap_or_default();
    let body = serde_json::json!({ "message": "There is too much at once.", "detail": limit.detail() });
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nretry-after: 5\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The streams of an HTTP/2 connection, which end with it.
#[derive(Clone, Debug, Default)]
struct Streams(Arc<Mutex<JoinSet<()>>>);

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while streams.try_join_next().is_some() {}
        streams.spawn(async move {
            stream.await;
        });
    }
}
