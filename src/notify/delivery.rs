//! The connection to a target, and its answer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::form;
use super::message::Message;
use crate::client::connection::{self, ClientBody};
use crate::config::NotifyConfig;
use crate::tls;

/// The longest time of one attempt, from the look-up of the name to the head of the answer.
const ATTEMPT: Duration = Duration::from_secs(15);

/// Why a target did not accept a notification.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryError {
    /// It refused the notification for good.
    #[error("{0}")]
    Refused(String),
    /// A later attempt may succeed.
    #[error("{problem}")]
    Transient {
        /// The problem.
        problem: String,
        /// The time after which the target may be tried again, if it says.
        retry_after: Option<Duration>,
    },
}

impl DeliveryError {
    fn transient(problem: impl ToString) -> Self {
        Self::Transient { problem: problem.to_string(), retry_after: None }
    }

    /// The delivery panicked.
    pub(super) fn panicked() -> Self {
        Self::transient("the bridge failed while it sent the notification")
    }
}

/// Sends `message` to `target`. Returns the status of the answer, which is a success.
pub(super) async fn deliver(target: &NotifyConfig, message: &Message<'_>) -> Result<String, DeliveryError> {
    let request = form::request(target, message).map_err(DeliveryError::transient)?;
    let answered = timeout(ATTEMPT, exchange(target, request)).await.map_err(|_| {
        let limit = ATTEMPT.as_secs();
        DeliveryError::transient(format!("no answer within {limit} s"))
    })?;
    let response = answered.map_err(DeliveryError::transient)?;
    let status = response.status();
    let problem = format!("the target answered {status}");
    let is_temporary = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    match status {
        _ if status.is_success() => Ok(status.to_string()),
        _ if status.is_client_error() && !is_temporary => Err(DeliveryError::Refused(problem)),
        _ if status.is_redirection() => {
            Err(DeliveryError::Refused(format!("{problem}, and redirects are not followed")))
        }
        _ => {
            Err(DeliveryError::Transient { problem, retry_after: retry_after(&response, SystemTime::now()) })
        }
    }
}

/// The time in `Retry-After`, which is a number of seconds or a date.
pub(super) fn retry_after<B>(response: &Response<B>, now: SystemTime) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let seconds = value.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| httpdate::parse_http_date(value).ok()?.duration_since(now).ok())
}

async fn exchange(
    target: &NotifyConfig,
    request: Request<Full<Bytes>>,
) -> Result<Response<ClientBody>, String> {
    let origin = target.url.origin();
    let stream = connect(target).await?;
    let sent = if origin.is_tls() {
        let trust = target.trust.clone();
        // It reads files.
        let config =
            spawn_blocking(move || tls::client(&trust, None)).await.map_err(|error| error.to_string())?;
        let secured = connection::secure(config.map_err(|error| error.to_string())?, origin, stream).await;
        connection::send(secured.map_err(|error| format!("no TLS connection: {error}"))?, request).await
    } else {
        connection::send(stream, request).await
    };
    sent.map_err(|error| format!("no answer: {error}"))
}

/// Connects to the first address of the target that accepts. Addresses that are not allowed are not tried: this is
/// decided for each address that is dialled, because the name may resolve to another one at any time.
async fn connect(target: &NotifyConfig) -> Result<TcpStream, String> {
    let origin = target.url.origin();
    let host = origin.host();
    let found = lookup_host((host, origin.port())).await;
    let all: Vec<SocketAddr> = found.map_err(|error| format!("{host} does not resolve: {error}"))?.collect();
    let allowed: Vec<SocketAddr> =
        all.iter().copied().filter(|address| target.allow_local || !is_local(address.ip())).collect();
    let Some(count) = u32::try_from(allowed.len()).ok().filter(|count| *count > 0) else {
        let shown = all.first().map_or_else(String::new, |address| format!(" ({})", address.ip()));
        return Err(format!(
            "the address of {host}{shown} is a loopback or link-local one, or that of a metadata service: set \
             notify.allow_local to allow it"
        ));
    };
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in allowed {
        match timeout(ATTEMPT / (2 * count), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(format!("cannot connect to {host}: {last}"))
}

/// Whether `address` is one of this machine, of its link, or of the metadata service of a cloud.
pub(super) fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_local_v4(address),
        IpAddr::V6(address) => {
            let is_own = address.is_loopback() || address.is_unspecified() || address.is_unicast_link_local();
            is_own || METADATA_V6.contains(&address) || embedded_v4(address).is_some_and(is_local_v4)
        }
    }
}

/// The metadata services of Alibaba, Azure and Oracle that are not at link-local addresses.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];

/// The metadata services of AWS and Google.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254),
    Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254),
];

fn is_local_v4(address: Ipv4Addr) -> bool {
    // Linux routes 0.0.0.0 to the loopback interface.
    let is_own = address.is_loopback() || address.is_link_local() || address.octets()[0] == 0;
    is_own || METADATA_V4.contains(&address)
}

/// The IPv4 address in an IPv6 address: a mapped or compatible one, that of NAT64 (RFC 6052), or of 6to4.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        _ => address.to_ipv4(),
    }
}
