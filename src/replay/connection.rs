//! One connection: its HTTP requests, and its WebSocket after an upgrade.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::Shared;
use super::answer::{RecordedResponse, ResponseHead};
use super::body::{Body, whole};
use super::http::{detail, replay, respond};
use super::line::{ConnectionDropped, ConnectionHandle, CountedStream};
use super::log::{ServerEvent, ServerLog, Side};
use super::session::ReplaySession;
use crate::core::http::headers::text;

/// The HTTP service of one connection.
struct ReplayConnection {
    number: u64,
    shared: Arc<Shared>,
    line: ConnectionHandle,
    /// The WebSocket that the connection is upgraded to, with its path.
    upgrade: Mutex<Option<(OnUpgrade, String)>>,
}

/// Logs the end of a connection when it is dropped.
struct CloseLogger<'a> {
    log: &'a ServerLog,
    connection: u64,
    by: Side,
}

impl Drop for CloseLogger<'_> {
    fn drop(&mut self) {
        self.log.note(ServerEvent::Closed { connection: self.connection, by: self.by });
    }
}

/// Serves one connection until either side ends it.
pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream, number: u64) {
    shared.log.note(ServerEvent::Opened { connection: number });
    // If this future is dropped before it completes, the server ended the connection.
    let mut goodbye = CloseLogger { log: &shared.log, connection: number, by: Side::Server };
    let (stream, line) = CountedStream::new(stream);
    let upgrade = Mutex::new(None);
    let connection = Arc::new(ReplayConnection { number, shared: Arc::clone(&shared), line, upgrade });

    let service = service_fn(|request| Arc::clone(&connection).respond(request));
    // An error means that the client disconnected or the connection was dropped on purpose; `line` knows which.
    let _ = http1::Builder::new().serve_connection(stream, service).with_upgrades().await;

    let upgrade = connection.upgrade.lock().take();
    goodbye.by = match upgrade {
        Some((upgrade, path)) => connection.run_websocket(upgrade, &path).await,
        None if connection.line.is_ending() => Side::Server,
        None => Side::Client,
    };
}

impl ReplayConnection {
    async fn respond(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, ConnectionDropped> {
        self.shared.log.note(ServerEvent::Request {
            connection: self.number,
            method: request.method().to_string(),
            target: request.uri().to_string(),
            headers: plain(request.headers()),
        });
        let response = if is_websocket_request(request.headers()) {
            self.shake_hands(&mut request).await
        } else {
            // Backends read the body and keep the connection. With an unread body, hyper would close it.
            while let Some(Ok(_)) = request.body_mut().frame().await {}
            respond(&self.shared, &self.line, &request).await
        };
        if response.is_err() {
            self.line.end();
        }
        response
    }

    /// Answers the request that opens a WebSocket.
    async fn shake_hands(
        &self,
        request: &mut Request<Incoming>,
    ) -> Result<Response<Body>, ConnectionDropped> {
        let path = request.uri().path().to_owned();
        let response = match self.shared.library.socket(&path) {
            Some(socket) if socket.handshake.status() == Some(101) => {
                let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
                    return Ok(detail(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing"));
                };
                let accept = derive_accept_key(key.as_bytes());
                let answer = RecordedResponse::from_recording(&socket.handshake);
                let Some(ResponseHead { after, headers, .. }) = answer.head else {
                    return Err(ConnectionDropped);
                };
                self.shared.options.speed.wait(Instant::now(), after).await;
                let upgrade = hyper::upgrade::on(request);
                *self.upgrade.lock() = Some((upgrade, path));
                return Ok(accepted(headers, &accept));
            }
            Some(socket) => replay(&self.shared, &self.line, &socket.handshake).await,
            None => {
                let mut response = Response::new(whole(""));
                *response.status_mut() = StatusCode::FORBIDDEN;
                let plain = HeaderValue::from_static("text/plain; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, plain);
                Ok(response)
            }
        };
        // A refused handshake ends the connection.
        self.line.end();
        response.map(|mut response| {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        })
    }

    /// Runs the conversation on a WebSocket. Returns the side that ended it.
    async fn run_websocket(&self, upgrade: OnUpgrade, path: &str) -> Side {
        let (Ok(upgraded), Some(socket)) = (upgrade.await, self.shared.library.socket(path)) else {
            return Side::Client;
        };
        let io = TokioIo::new(upgraded);
        let stream = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        ReplaySession::new(&self.shared, self.number, socket, stream).run().await
    }
}

fn accepted(recorded: HeaderMap, accept: &str) -> Response<Body> {
    let mut response = Response::new(whole(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    *headers = recorded;
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    // Base64 is valid in a header.
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

fn is_websocket_request(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).map(HeaderValue::as_bytes);
    upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket"))
}

fn plain(headers: &HeaderMap) -> Vec<(String, String)> {
    let one = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), text(value));
    headers.iter().map(one).collect()
}
