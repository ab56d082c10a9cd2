//! The backend's `/ws`.
//!
//! The opening handshake is a plain HTTP request, so that the body of a refusal can be read whole, whatever its
//! length.

use http::{HeaderValue, Method, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::exchange::RequestError;
use super::{Backend, BackendResponse, RequestIdentity};

/// By default tungstenite reads 128 KiB at a time, and keeps a buffer of that size per socket.
const READ_BUFFER: usize = 8 * 1024;

/// An open socket. Dropping it closes the connection.
#[derive(Debug)]
pub struct BackendSocket {
    /// Its frames.
    pub frames: WebSocketStream<TokioIo<Upgraded>>,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketOpenError {
    /// No response arrived.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The backend did not switch protocols.
    #[error("the backend answered with status {}", .0.status)]
    Refused(Box<BackendResponse>),
    /// The backend switched protocols, but its handshake is invalid.
    #[error("the backend's handshake is not that of a WebSocket ({0})")]
    Handshake(&'static str),
    /// The connection broke during the switch.
    #[error("the connection broke in the handshake ({0})")]
    Broken(#[from] hyper::Error),
}

/// Opens the socket at `target` (path and query).
pub async fn open(
    backend: &Backend,
    target: &str,
    identity: &RequestIdentity,
) -> Result<BackendSocket, SocketOpenError> {
    let key = generate_key();
    let mut identity = identity.clone();
    for (name, value) in [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_VERSION, "13"),
        (header::SEC_WEBSOCKET_KEY, key.as_str()),
    ] {
        let value = HeaderValue::from_str(value).map_err(http::Error::from).map_err(RequestError::from)?;
        identity.forwarded_headers.insert(name, value);
    }
    let exchange = backend.send(Method::GET, target, &identity).await?;
    if exchange.status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(SocketOpenError::Refused(Box::new(exchange)));
    }
    let expected = derive_accept_key(key.as_bytes());
    if exchange.headers.get(header::SEC_WEBSOCKET_ACCEPT).is_none_or(|value| value != expected.as_str()) {
        return Err(SocketOpenError::Handshake(
            "its Sec-WebSocket-Accept is not the one that belongs to our key",
        ));
    }
    let upgraded = exchange.upgraded().await?;
    let limit = backend.limits().event_bytes;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .max_message_size(Some(limit))
        .max_frame_size(Some(limit));
    let frames = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await;
    Ok(BackendSocket { frames })
}
