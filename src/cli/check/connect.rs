//! The connection to a backend: its host name, its addresses, its certificate.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::SystemTime;

use super::bridge::reason;
use super::certificate::{self, describe};
use super::report::CheckLine;
use super::verdict::{CheckName, CheckVerdict};
use crate::backend::{Backend, ConnectError};
use crate::config::Config;
use crate::tls::{Certificate, Trust};

/// Whether at least one connection to the backend succeeds. Nothing is sent to an address of the bridge itself.
pub(super) async fn check_connection(config: &Config, backend: &Backend, lines: &mut Vec<CheckLine>) -> bool {
    let host = backend.url().host();
    let addresses = match backend.addresses().await {
        Ok(addresses) => addresses,
        Err(error) => {
            let found = format!("{host} does not resolve: {}", unresolved(&error));
            let advice = "Fix the name in backend.url, or the resolver or hosts file of this machine.";
            lines.push(CheckLine::failed(CheckName::Name, found).with_advice(advice));
            return false;
        }
    };
    if host.parse::<IpAddr>().is_err() {
        let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
        lines.push(CheckLine::ok(CheckName::Name, format!("{host} resolves to {}", shown.join(", "))));
    }
    if let Some(line) = addresses.iter().find_map(|address| loop_line(config, *address)) {
        lines.push(line);
        return false;
    }
    let mut connected = Vec::new();
    let mut tls: Vec<CheckLine> = Vec::new();
    let mut is_reached = false;
    for address in addresses {
        let check = if address.is_ipv4() { CheckName::ConnectV4 } else { CheckName::ConnectV6 };
        let greeted = backend.handshake(address).await;
        let shown = match greeted {
            Ok(None) => None,
            Ok(Some(certificate)) => Some(trust_line(backend, &certificate)),
            Err(ConnectError::Tls(_, why)) => {
                Some(refusal_line(why, backend.peer_certificate(address).await.as_ref()))
            }
            // It accepted the connection and then sent nothing.
            Err(ConnectError::TimedOut { after, limit: limit @ "limits.handshake", .. }) => {
                let found =
                    format!("no TLS handshake within {} ({limit})", humantime::format_duration(after));
                let line = CheckLine::failed(CheckName::Tls, found);
                Some(line.with_advice("If it does not use TLS, write http:// in backend.url."))
            }
            Err(error) => {
                connected.push(unreachable_line(check, address, &error));
                continue;
            }
        };
        is_reached = true;
        connected.push(CheckLine::ok(check, address.to_string()));
        // The same line for several addresses is listed once.
        tls.extend(shown.filter(|line| tls.iter().all(|listed| listed.found != line.found)));
    }
    if is_reached {
        for line in connected.iter_mut().filter(|line| line.verdict == CheckVerdict::Failed) {
            line.verdict = CheckVerdict::Warning;
            line.advice =
                Some("The bridge uses the other addresses. If this one is not needed, remove it from DNS: attempts cost time."
                    .to_owned());
        }
    }
    let is_trusted = tls.iter().all(|line| line.verdict != CheckVerdict::Failed);
    lines.extend(connected.into_iter().chain(tls));
    is_reached && is_trusted
}

/// The line on a backend at `address`, if that is an address of the bridge itself.
pub(super) fn loop_line(config: &Config, address: SocketAddr) -> Option<CheckLine> {
    let mut listeners = vec![("admin_listen", config.admin_listen)];
    for backend in &config.backends {
        listeners.push(match backend.listen {
            Some(own) => ("backend.listen", own),
            None => ("listen", config.listen),
        });
        listeners.extend(backend.netbox.as_ref().map(|netbox| ("backend.netbox_listen", netbox.listen)));
    }
    let (key, _) = listeners.into_iter().find(|(_, listener)| accepts(*listener, address))?;
    let found = format!("backend.url leads to {address}, an address of the bridge itself ({key})");
    let line = CheckLine::failed(CheckName::Loop, found);
    Some(line.with_advice(format!("Set backend.url to the address of the backend, or {key} to another one.")))
}

/// Whether `listener` accepts connections to `address`.
fn accepts(listener: SocketAddr, address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let is_same = listener.ip().to_canonical() == ip;
    // Only an address of this machine can be bound.
    let is_on_any = listener.ip().is_unspecified() && UdpSocket::bind((ip, 0)).is_ok();
    listener.port() == address.port() && (is_same || is_on_any)
}

fn unresolved(error: &ConnectError) -> String {
    match error {
        ConnectError::Failed(_, source) => {
            let why = reason(source);
            why.strip_prefix("failed to lookup address information: ").unwrap_or(&why).to_owned()
        }
        ConnectError::TimedOut { after, limit, .. } => {
            format!("no answer within {} ({limit})", humantime::format_duration(*after))
        }
        other => other.to_string(),
    }
}

fn unreachable_line(check: CheckName, address: SocketAddr, error: &ConnectError) -> CheckLine {
    let (why, advice) = match error {
        ConnectError::Failed(_, source) if source.kind() == io::ErrorKind::ConnectionRefused => {
            (reason(source), "Nothing listens there: start the backend, or fix the port in backend.url.")
        }
        ConnectError::Failed(_, source) => (
            reason(source),
            "The address is not reachable from this machine: fix backend.url or the network.",
        ),
        ConnectError::TimedOut { after, limit, .. } => (
            format!("no answer within {} ({limit})", humantime::format_duration(*after)),
            "A firewall may drop the packets, or the machine may be off: fix that, or backend.url.",
        ),
        other => (other.to_string(), "Fix backend.url."),
    };
    CheckLine::failed(check, format!("{address}: {why}")).with_advice(advice)
}

fn trust_line(backend: &Backend, certificate: &Certificate) -> CheckLine {
    let line = certificate::line(CheckName::Tls, certificate, SystemTime::now());
    let found = line.found.clone();
    match backend.config().trust {
        Trust::Pinned(_) => CheckLine { found: format!("{found}; pinned"), ..line },
        Trust::Insecure => CheckLine { verdict: CheckVerdict::Warning, found: format!("{found}; not verified"), ..line }
            .with_advice(format!(
                "Any certificate is accepted: instead of backend.insecure, name its CA in backend.ca_file, or set \
                 backend.pin = \"{}\".",
                certificate.fingerprint
            )),
        Trust::System | Trust::Authority(_) => line,
    }
}

/// The line on a refused certificate: `why` is the reason, and the advice describes the certificate.
fn refusal_line(why: String, shown: Option<&Certificate>) -> CheckLine {
    let line = CheckLine::failed(CheckName::Tls, why);
    let Some(certificate) = shown else { return line };
    let advice = format!(
        "Its certificate: {}. If that is the right one, set backend.pin = \"{}\".",
        describe(certificate),
        certificate.fingerprint
    );
    CheckLine { certificate: Some(certificate.into()), ..line }.with_advice(advice)
}
