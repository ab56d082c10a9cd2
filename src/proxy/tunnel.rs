//! WebSockets that are forwarded: bytes in both directions, once the backend has switched protocols.

mod relay;

pub(super) use relay::OnFirstFrame;

use std::time::Duration;

use http::header::{CONNECTION, TE, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::coalesce::{self, RequestInfo};
use super::errors::{OrResponse, error_response, refusal_response};
use super::headers::{inbound, outbound, without_body};
use super::quota::acquire_stream;
use super::request::RequestContext;
use crate::backend::ForwardError;
use crate::core::domain::refusal::Refusal;
use crate::core::http::headers::is_websocket;
use crate::core::remote::Remote;
use crate::proxy::credentials::request_key;
use crate::respond::{self, Body};
use crate::telemetry;

pub(super) const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
pub(super) const BY_UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// The reason in the close frame of every WebSocket when the bridge stops.
pub(super) const STOPPING: &str = "The bridge is stopping.";
/// How long the closing handshake of a socket may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The open tunnels and sockets.
#[derive(Debug, Default)]
pub(super) struct Tunnels {
    open: Mutex<JoinSet<()>>,
    closing: watch::Sender<bool>,
}

impl Tunnels {
    /// A receiver for the signal to close.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    pub(super) fn open(&self, tunnel: impl Future<Output = ()> + Send + 'static) {
        let mut tunnels = self.open.lock();
        while tunnels.try_join_next().is_some() {}
        tunnels.spawn(async move {
            let _counted = TunnelGauge::new();
            tunnel.await;
        });
    }

    /// Closes all of them.
    pub(super) async fn close(&self) {
        self.closing.send_replace(true);
        let mut open = std::mem::take(&mut *self.open.lock());
        let _ = timeout(CLOSE_TIMEOUT, async { while open.join_next().await.is_some() {} }).await;
        open.shutdown().await;
    }
}

/// Counts an open tunnel or socket in the metrics.
struct TunnelGauge;

impl TunnelGauge {
    fn new() -> Self {
        telemetry::TunnelOpened.emit();
        Self
    }
}

impl Drop for TunnelGauge {
    fn drop(&mut self) {
        telemetry::TunnelClosed.emit();
    }
}

/// Forwards a WebSocket request, and then the bytes in both directions.
pub(super) async fn answer(
    context: &RequestContext,
    request: Request<Incoming>,
) -> OrResponse<Response<Body>> {
    let key = request_key(request.headers());
    let slot = acquire_stream(context, key.as_ref())?;
    let (mut parts, _) = request.into_parts();
    let has_key_in_frame = coalesce::has_key_in_frame(&parts.uri);
    let key_attempt = match has_key_in_frame {
        true => coalesce::admit_unseen(context, &parts).await?,
        false => coalesce::admit(context, &parts).await?,
    };
    let info = RequestInfo::new(context, &parts);
    outbound(&mut parts.headers, parts.version, &context.state.pseudonym);
    without_body(&mut parts.headers);
    parts.headers.remove(TE);
    parts.headers.insert(CONNECTION, BY_UPGRADE);
    parts.headers.insert(UPGRADE, WEBSOCKET);
    let Some(client) = parts.extensions.remove::<OnUpgrade>() else {
        let detail = "Ask for it with GET over HTTP/1.1.";
        let message = "This connection cannot become a WebSocket.";
        return Err(respond::message(StatusCode::BAD_REQUEST, message, detail).into());
    };
    let backend = &context.backend;
    let mut request = Request::from_parts(parts, ());
    context.informational.pass(&mut request);
    let failed = |error| error_response(context, &Method::GET, &info.path, &error);
    let exchange = backend.upgrade(request).await.map_err(failed)?;
    if exchange.status != StatusCode::SWITCHING_PROTOCOLS {
        let mut response = exchange.into_response();
        inbound(response.headers_mut());
        return Ok(info.learn_from(context, response).await);
    }
    if !is_websocket(&exchange.headers) {
        let refusal = Refusal::other_protocol(exchange.headers.get(UPGRADE).map(HeaderValue::as_bytes));
        return Err(refusal_response(&info.path, &refusal));
    }
    let mut headers = exchange.headers.clone();
    inbound(&mut headers);
    headers.insert(CONNECTION, BY_UPGRADE);
    headers.insert(UPGRADE, WEBSOCKET);
    let broken =
        |error: hyper::Error| ForwardError::Broken { remote: Remote::Backend, why: error.to_string() };
    let upgraded = exchange.upgraded().await.map_err(|error| failed(broken(error)))?;
    let first = has_key_in_frame.then(|| coalesce::check_first_frame(context, key_attempt));
    let (linger, stopping) = (backend.limits().tunnel_close, context.proxy.tunnels.closing());
    context.proxy.tunnels.open(async move {
        if let Ok(client) = client.await {
            relay::join(TokioIo::new(client), TokioIo::new(upgraded), linger, stopping, first).await;
        }
        drop(slot);
    });
    Ok(respond::switching(headers))
}
