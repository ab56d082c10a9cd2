//! A client of the admin API of a running bridge, for the subcommands that control one.
//!
//! | module | subject |
//! |---|---|
//! | [`connection`] | one HTTP request on a connection of its own, with or without TLS; notifications and requests to backends use it, too |
//! | `events` | the events of a job, over as many connections as that takes |
//! | `error` | why a request failed, and what to do about it |

pub mod connection;
mod error;
mod events;

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{AUTHORIZATION, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyDataStream, BodyExt, Empty, Limited};
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::core::domain::credential::ApiKey;
use crate::core::http::url::{BackendUrl, HttpUrl, InvalidBackendUrl};
use crate::core::secret;
use crate::tls::{self, Trust};
use connection::ClientBody;

pub use error::{ApiError, BridgeError};
pub use events::{JobEvent, JobEvents, MAX_EVENT_BYTES, MAX_SILENCE, StreamItem, parse_events};

/// The user of a request, whom the bridge names in the records of jobs and in the audit log.
const ACTOR: HeaderName = HeaderName::from_static("x-proxbox-actor");
/// The largest answer that is read as a whole, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Where the admin API of a bridge is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeUrl {
    origin: BackendUrl,
    /// The path under which a proxy serves the API, without the slash at its end.
    base: String,
    /// The configuration key or the flag that sets it.
    setting: &'static str,
}

impl BridgeUrl {
    /// The bridge on this machine whose admin listener has the address `address`.
    pub fn local(address: SocketAddr) -> Self {
        Self { origin: connectable_address(address).into(), base: String::new(), setting: "admin_listen" }
    }

    /// The URL of `target`, a path with a query.
    fn join(&self, target: &str) -> String {
        format!("{}{}{target}", self.origin, self.base)
    }
}

impl FromStr for BridgeUrl {
    type Err = InvalidBackendUrl;

    /// Parses the value of `--bridge`.
    fn from_str(text: &str) -> Result<Self, InvalidBackendUrl> {
        let url: HttpUrl = text.parse()?;
        if url.target().contains('?') {
            return Err(InvalidBackendUrl::Target);
        }
        let base = url.target().trim_end_matches('/').to_owned();
        Ok(Self { origin: url.origin().clone(), base, setting: "--bridge" })
    }
}

/// The token for the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// The token itself. Without it, only a bridge with `admin_open_reads` answers.
    pub token: Option<ApiKey>,
    /// The flag, key or variable that it comes from, or the reason why there is none, for messages.
    pub origin: String,
}

/// A client of one bridge. Each request has a connection of its own.
#[derive(Clone, Debug)]
pub struct BridgeClient {
    url: BridgeUrl,
    token: AccessToken,
    /// The user that requests name, for the records of jobs and the audit log.
    actor: Option<HeaderValue>,
    /// The time limit of a request: that of a stream ends with the head of the response.
    limit: Duration,
}

impl BridgeClient {
    /// A client of the bridge at `url`.
    pub fn new(url: BridgeUrl, token: AccessToken, actor: Option<HeaderValue>, limit: Duration) -> Self {
        Self { url, token, actor, limit }
    }

    /// Sends a request with further `headers` and reads the whole response, whatever its status. `target` is a path with
    /// a query.
    ///
    /// # Errors
    ///
    /// If there is no complete response within the time limit.
    pub async fn request(
        &self,
        method: Method,
        target: &str,
        headers: HeaderMap,
    ) -> Result<(StatusCode, Bytes), BridgeError> {
        self.limited(target, async {
            let response = self.exchange(method, target, headers).await?;
            let status = response.status();
            Ok((status, self.whole(response, target).await?))
        })
        .await
    }

    /// Sends a request with further `headers` and returns the body of the response, which is a success.
    ///
    /// # Errors
    ///
    /// If there is no complete response within the time limit, or if it is an error.
    pub async fn call(&self, method: Method, target: &str, headers: HeaderMap) -> Result<Bytes, BridgeError> {
        let (status, body) = self.request(method, target, headers).await?;
        if status.is_success() { Ok(body) } else { Err(self.refused(status, &body)) }
    }

    /// Sends a GET request and parses the JSON object of the response, which is a success.
    ///
    /// # Errors
    ///
    /// As [`BridgeClient::call`], or if the response is no such object.
    pub async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, BridgeError> {
        let body = self.call(Method::GET, target, HeaderMap::new()).await?;
        serde_json::from_slice(&body)
            .map_err(|source| BridgeError::Unexpected { url: self.url.join(target), source })
    }

    /// Sends a GET request with further `headers` for a response that may be long or live, which is a success. Its head
    /// has to come within the time limit.
    ///
    /// # Errors
    ///
    /// If there is no response within the time limit, or if it is an error.
    pub async fn open(&self, target: &str, headers: HeaderMap) -> Result<BridgeStream, BridgeError> {
        self.limited(target, async {
            let response = self.exchange(Method::GET, target, headers).await?;
            let status = response.status();
            if status.is_success() {
                let url = self.url.join(target);
                return Ok(BridgeStream { status, body: BodyDataStream::new(response.into_body()), url });
            }
            Err(self.refused(status, &self.whole(response, target).await?))
        })
        .await
    }

    async fn limited<T>(
        &self,
        target: &str,
        request: impl Future<Output = Result<T, BridgeError>>,
    ) -> Result<T, BridgeError> {
        let timed_out = |_| BridgeError::TimedOut { url: self.url.join(target), limit: self.limit };
        timeout(self.limit, request).await.map_err(timed_out)?
    }

    async fn exchange(
        &self,
        method: Method,
        target: &str,
        headers: HeaderMap,
    ) -> Result<Response<ClientBody>, BridgeError> {
        let BridgeUrl { origin, base, setting } = &self.url;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method;
        *request.uri_mut() = format!("{base}{target}").parse()?;
        *request.headers_mut() = headers;
        let mut add = |name: HeaderName, value| request.headers_mut().insert(name, value);
        add(HOST, HeaderValue::from_str(&origin.authority())?);
        if let Some(token) = &self.token.token {
            add(AUTHORIZATION, secret::header(&["Bearer ", token.expose()])?);
        }
        if let Some(actor) = &self.actor {
            add(ACTOR, actor.clone());
        }
        let unreachable = |source| BridgeError::Unreachable { url: self.url.join(target), setting, source };
        let stream = TcpStream::connect((origin.host(), origin.port())).await.map_err(unreachable)?;
        let sent = if origin.is_tls() {
            let config = tls::client(&Trust::System, None)?;
            let stream = connection::secure(config, origin, stream).await.map_err(unreachable)?;
            connection::send(stream, request).await
        } else {
            connection::send(stream, request).await
        };
        sent.map_err(|source| self.broken(target, source.into()))
    }

    /// The whole body of `response`.
    async fn whole(&self, response: Response<ClientBody>, target: &str) -> Result<Bytes, BridgeError> {
        let read = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        Ok(read.map_err(|source| self.broken(target, source))?.to_bytes())
    }

    fn broken(&self, target: &str, source: Box<dyn Error + Send + Sync>) -> BridgeError {
        BridgeError::Broken { url: self.url.join(target), source }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> BridgeError {
        BridgeError::Refused(ApiError::new(status, body, &self.token))
    }
}

/// The body of a response that may be long or live.
#[derive(Debug)]
pub struct BridgeStream {
    /// The status of the response: a success.
    pub status: StatusCode,
    body: BodyDataStream<ClientBody>,
    url: String,
}

impl BridgeStream {
    /// The next part of the body; `None` at its end.
    ///
    /// # Errors
    ///
    /// If the connection broke.
    pub async fn next(&mut self) -> Option<Result<Bytes, BridgeError>> {
        let part = self.body.next().await?;
        Some(part.map_err(|source| BridgeError::Broken { url: self.url.clone(), source: source.into() }))
    }
}

/// The address to connect to for a listener on `address`.
pub fn connectable_address(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_reached_on_this_machine() {
        for (address, here) in [
            ("0.0.0.0:8801", "127.0.0.1:8801"),
            ("[::]:8801", "[::1]:8801"),
            ("127.0.0.1:8801", "127.0.0.1:8801"),
            ("10.0.0.7:1", "10.0.0.7:1"),
        ] {
            assert_eq!(connectable_address(address.parse().unwrap()), here.parse().unwrap());
        }
    }

    #[test]
    fn a_path_in_the_url_of_a_bridge_is_where_a_proxy_serves_the_api() {
        for (text, joined) in [
            ("https://bridge.example", "https://bridge.example/jobs?limit=1"),
            ("http://[::1]:8801/", "http://[::1]:8801/jobs?limit=1"),
            ("https://netbox.example/proxbox-bridge/", "https://netbox.example/proxbox-bridge/jobs?limit=1"),
        ] {
            assert_eq!(text.parse::<BridgeUrl>().unwrap().join("/jobs?limit=1"), joined);
        }
    }
}
