//! The way to a backend: its name, its addresses, its certificate.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use super::bridge::reason;
use super::certificate::{self, described};
use super::report::Line;
use super::verdict::{Check, Verdict};
use crate::backend::{Backend, ConnectError};
use crate::tls::{Certificate, Trust};

/// Whether a connection to it comes about.
pub(super) async fn reach(backend: &Backend, lines: &mut Vec<Line>) -> bool {
    let host = backend.url().host();
    let addresses = match backend.addresses().await {
        Ok(addresses) => addresses,
        Err(error) => {
            let found = format!("{host} stands for no address: {}", unresolved(&error));
            let advice = "Mend the name in backend.url, or the resolver or hosts file of this machine.";
            lines.push(Line::new(Check::Name, Verdict::Failed, found).advising(advice));
            return false;
        }
    };
    if host.parse::<IpAddr>().is_err() {
        let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
        lines.push(Line::ok(Check::Name, format!("{host} is {}", shown.join(", "))));
    }
    let mut connected = Vec::new();
    let mut tls: Vec<Line> = Vec::new();
    let mut is_reached = false;
    for address in addresses {
        let check = if address.is_ipv4() { Check::ConnectV4 } else { Check::ConnectV6 };
        let greeted = backend.greet(address).await;
        let shown = match greeted {
            Ok(None) => None,
            Ok(Some(certificate)) => Some(trusted(backend, &certificate)),
            Err(ConnectError::Tls { why, .. }) => Some(refused(why, backend.shown(address).await.as_ref())),
            // It took the connection, and then said nothing.
            Err(ConnectError::TimedOut { after, limit: limit @ "limits.handshake", .. }) => {
                let found =
                    format!("no TLS handshake within {} ({limit})", humantime::format_duration(after));
                let line = Line::new(Check::Tls, Verdict::Failed, found);
                Some(line.advising("Does it speak TLS at all? If not, write http:// in backend.url."))
            }
            Err(error) => {
                connected.push(unreachable(check, address, &error));
                continue;
            }
        };
        is_reached = true;
        connected.push(Line::ok(check, address.to_string()));
        // The same on every address is told once.
        tls.extend(shown.filter(|line| tls.iter().all(|known| known.found != line.found)));
    }
    if is_reached {
        for line in connected.iter_mut().filter(|line| line.verdict == Verdict::Failed) {
            line.verdict = Verdict::Warning;
            line.advice =
                Some("The bridge uses the others; an address that nobody needs costs time.".to_owned());
        }
    }
    let is_trusted = tls.iter().all(|line| line.verdict != Verdict::Failed);
    lines.extend(connected.into_iter().chain(tls));
    is_reached && is_trusted
}

fn unresolved(error: &ConnectError) -> String {
    match error {
        ConnectError::Failed { source, .. } => {
            let why = reason(source);
            why.strip_prefix("failed to lookup address information: ").unwrap_or(&why).to_owned()
        }
        ConnectError::TimedOut { after, limit, .. } => {
            format!("no answer within {} ({limit})", humantime::format_duration(*after))
        }
        other => other.to_string(),
    }
}

fn unreachable(check: Check, address: SocketAddr, error: &ConnectError) -> Line {
    let (why, advice) = match error {
        ConnectError::Failed { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
            (reason(source), "Nothing listens there: start the backend, or mend the port in backend.url.")
        }
        ConnectError::Failed { source, .. } => {
            (reason(source), "There is no way there from here: mend backend.url, or the network.")
        }
        ConnectError::TimedOut { after, limit, .. } => (
            format!("no answer within {} ({limit})", humantime::format_duration(*after)),
            "A firewall may be in between, or the machine off: mend that, or backend.url.",
        ),
        other => (other.to_string(), "Mend backend.url."),
    };
    Line::new(check, Verdict::Failed, format!("{address}: {why}")).advising(advice)
}

fn trusted(backend: &Backend, certificate: &Certificate) -> Line {
    let line = certificate::line(Check::Tls, certificate, SystemTime::now());
    let found = line.found.clone();
    match backend.config().trust {
        Trust::Pinned(_) => Line { found: format!("{found}; pinned"), ..line },
        Trust::Insecure => Line { verdict: Verdict::Warning, found: format!("{found}; not checked"), ..line }
            .advising(format!(
                "Any other would do as well: in the place of backend.insecure, name its CA in backend.ca_file, or \
                 set backend.pin = \"{}\".",
                certificate.fingerprint
            )),
        Trust::System | Trust::Authority(_) => line,
    }
}

/// `why` says what to do, and here is what it is about.
fn refused(why: String, shown: Option<&Certificate>) -> Line {
    let line = Line::new(Check::Tls, Verdict::Failed, why);
    let Some(certificate) = shown else { return line };
    let advice = format!(
        "It shows: {}. If that is the right one: backend.pin = \"{}\".",
        described(certificate),
        certificate.fingerprint
    );
    Line { certificate: Some(certificate.into()), ..line }.advising(advice)
}
