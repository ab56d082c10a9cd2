//! `/ws`, for old plugin pages and clients that support nothing else.
//!
//! The bridge implements the protocol of the backend, whatever the release: a command becomes a regular job, and its
//! log is translated to the frames that old pages build their table from.

mod session;

use std::sync::Arc;

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tracing::Instrument;

use super::errors::{OrResponse, check_origin};
use super::quota::acquire_stream;
use super::request::RequestContext;
use super::streams::{invalid_query, unknown_parameter};
use super::tunnel::{BY_UPGRADE, WEBSOCKET};
use crate::backend::KEY_STATUS;
use crate::core::http::query::{BridgeParameters, Query};
use crate::respond::{self, Body};
use session::LegacySocketSession;

/// Its path.
pub(super) const PATH: &str = "/ws";
/// The version of the protocol (RFC 6455).
const VERSION: &str = "13";
/// How much is read at once, in bytes.
const READ_BUFFER: usize = 8 * 1024;

/// Answers a request for `/ws`.
pub(super) async fn answer(context: RequestContext, mut parts: Parts) -> OrResponse<Response<Body>> {
    check_origin(&context, &parts.headers)?;
    let client = parts.extensions.remove::<OnUpgrade>();
    let (Some(client), Some(accept)) = (client, accept(&parts)) else {
        let detail = "It needs GET over HTTP/1.1, a Sec-WebSocket-Key, and Sec-WebSocket-Version 13.";
        let mut response =
            respond::message(StatusCode::UPGRADE_REQUIRED, "This is not a WebSocket handshake.", detail);
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
        return Err(response.into());
    };
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let Query { backend_query, parameters } = query.map_err(|invalid| invalid_query(&invalid))?;
    if parameters != BridgeParameters::default() {
        return Err(unknown_parameter("Parameters of the bridge apply to streams only, not to /ws.").into());
    }
    let slot = acquire_stream(&context, None)?;
    // An unreachable backend is reported now, as backends report an unreachable Proxmox.
    let unavailable = |why: String| respond::refusal(&context.backend.unavailable(&why));
    let lacks_keys = context.backend.lacks(KEY_STATUS, &parts.headers).await.map_err(unavailable)?;
    let wants_key = !lacks_keys && context.backend.config().api_key.is_none();
    let limit = context.state.config.limits.socket_bytes;
    let proxy = Arc::clone(&context.proxy);
    let session = LegacySocketSession { context, query: backend_query, headers: parts.headers, wants_key };
    let session = async move {
        if let Ok(upgraded) = client.await {
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_BUFFER)
                .max_message_size(Some(limit))
                .max_frame_size(Some(limit));
            let stream = TokioIo::new(upgraded);
            let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
            session.run(socket).await;
        }
        drop(slot);
    };
    proxy.tunnels.open(session.in_current_span());
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, BY_UPGRADE);
    headers.insert(UPGRADE, WEBSOCKET);
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(respond::switching(headers))
}

/// The `Sec-WebSocket-Accept` for an opening handshake, if it is valid.
fn accept(parts: &Parts) -> Option<HeaderValue> {
    let is_version = parts.headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == VERSION);
    let key = parts.headers.get(SEC_WEBSOCKET_KEY).filter(|_| is_version && parts.method == Method::GET)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}
