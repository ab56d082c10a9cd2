//! `proxbox-bridge health`: checks whether a running bridge is ready.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{Config, Flags, environment};

/// Check whether the bridge that runs with this configuration is ready. Exit code 0 if it is, 1 if not.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Also check whether its backends are reachable
    #[arg(long)]
    backends: bool,
    /// Time limit for the answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// The largest answer that is read, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Prints the answer of the bridge.
///
/// # Errors
///
/// An invalid configuration, no answer, or a bridge that is not ready.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { flags, backends, timeout: limit } = args;
    let address = connectable_address(Config::admin_listen(&flags, environment())?);
    let path = if backends { "/readyz?backend" } else { "/readyz" };
    let response = timeout(limit, fetch(address, path)).await;
    let limit = humantime::format_duration(limit);
    let (status, body) = response
        .with_context(|| format!("http://{address}{path} did not answer within {limit}"))?
        .with_context(|| format!("cannot connect to the bridge at http://{address}{path} (admin_listen)"))?;
    super::print(&String::from_utf8_lossy(&body))?;
    if status != StatusCode::OK {
        bail!("the bridge is not ready ({status})");
    }
    Ok(())
}

/// The address to connect to for a listener on `address`.
pub(super) fn connectable_address(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn fetch(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header(header::HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let request = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok((status, body.to_bytes()))
    };
    let mut request = std::pin::pin!(request);
    tokio::select! {
        answer = &mut request => answer,
        ended = connection => {
            ended?;
            // The answer may be complete although the connection has ended.
            request.await
        }
    }
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
}
