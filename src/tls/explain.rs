//! Explanations of failed TLS handshakes, with the remedy.

use std::error::Error as StdError;
use std::io;
use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::certificate::printable;
use super::verifier::{MIN_RSA_BITS, PinMismatch, ShortKey};
use crate::core::remote::Remote;

/// How many names of a certificate are shown, and how many characters of each.
const MAX_NAMES: usize = 8;
const MAX_NAME: usize = 253;

/// Explains a failed handshake with `remote` and the remedy, in one sentence that calls the remote *it*.
///
/// In TLS 1.3 a client learns only after the handshake, from its first read, that its certificate was refused. That
/// error is explained too.
pub fn explain(remote: Remote, error: &io::Error) -> String {
    if let Some(why) = tls_error_in(error) {
        return explain_rustls(remote, why);
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => format!(
            "it closed the connection during the TLS handshake: if it speaks plain HTTP, write http:// in \
             {}; if it speaks TLS, its log says why",
            remote.url_key()
        ),
        _ => printable(&error.to_string(), 512),
    }
}

/// Like [`explain`], for an error of an established connection, if TLS caused it.
pub fn explain_tls(remote: Remote, error: &(dyn StdError + 'static)) -> Option<String> {
    const CUT: &str =
        "it closed the connection without the end that TLS has (close_notify): something may be missing";

    let why = tls_error_in(error).map(|why| explain_rustls(remote, why));
    why.or_else(|| is_cut(error).then(|| CUT.to_owned()))
}

/// The earlier use of a connection on which a request was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionUse {
    /// No response was received.
    Fresh,
    /// A response to an earlier request was received.
    Reused,
}

/// Like [`explain_tls`], for an error before the first byte of a response, on a connection used as `connection_use`
/// says.
pub fn explain_unanswered(
    remote: Remote,
    error: &(dyn StdError + 'static),
    connection_use: ConnectionUse,
) -> Option<String> {
    if !is_cut(error) {
        return explain_tls(remote, error);
    }
    let ended = "it closed the connection before it answered: it has ended or was restarted";
    Some(match connection_use {
        ConnectionUse::Fresh => format!(
            "{ended}, or it refuses the client certificate or requires one ({}); its log says why",
            remote.client_certificate_key()
        ),
        ConnectionUse::Reused => format!("{ended}; its log says why"),
    })
}

/// Returns whether a TLS connection was closed without `close_notify`. The text of rustls contains a link to its
/// documentation.
fn is_cut(error: &(dyn StdError + 'static)) -> bool {
    let is_eof = |error: &io::Error| {
        error.kind() == io::ErrorKind::UnexpectedEof && error.to_string().contains("close_notify")
    };
    causes(error).any(|error| error.downcast_ref().is_some_and(is_eof))
}

/// Explains a failed handshake with a client and the remedy, calling the client *it*. `certificate` is the key that
/// configures the certificate of the listener, and `limit` the time limit of a handshake.
pub fn explain_client(error: &io::Error, limit: Duration, certificate: &str) -> String {
    use AlertDescription as Alert;
    match (tls_error_in(error), error.kind()) {
        (
            Some(Error::AlertReceived(
                alert @ (Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::CertificateUnknown
                | Alert::CertificateExpired
                | Alert::UnsupportedCertificate),
            )),
            _,
        ) => format!(
            "it does not accept the certificate of {certificate} ({alert:?}): it has to know its CA, and the file has \
             to hold the certificates of the issuers behind it"
        ),
        (Some(Error::NoCertificatesPresented), _) => {
            "it presented no certificate, which tls.client_ca requires".to_owned()
        }
        (Some(Error::InvalidCertificate(CertificateError::BadSignature)), _) => format!(
            "its certificate or its handshake is signed with a wrong key, or with an RSA key of less than {MIN_RSA_BITS} \
             bits, which is too short: make a key of {MIN_RSA_BITS} bits or more for it, and a new certificate"
        ),
        (Some(Error::InvalidCertificate(why)), _) => format!(
            "its certificate is refused ({}): tls.client_ca names the authorities",
            printable(&why.to_string(), 512)
        ),
        (Some(other), _) => printable(&other.to_string(), 512),
        (None, io::ErrorKind::TimedOut) => {
            format!("it did not end within {} (limits.handshake)", humantime::format_duration(limit))
        }
        (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            "it closed the connection".to_owned()
        }
        (None, _) => printable(&error.to_string(), 512),
    }
}

/// The rustls error in the chain of causes.
fn tls_error_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    causes(error).find_map(|error| error.downcast_ref())
}

/// `error` and its causes.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn StdError + 'static) = *error;
        match error.downcast_ref::<io::Error>() {
            // The source of an `io::Error` is that of its inner error, and the inner error itself is wanted.
            Some(error) => error.get_ref().map(|held| held as _),
            None => error.source(),
        }
    })
}

fn explain_rustls(remote: Remote, error: &Error) -> String {
    let url = remote.url_key();
    match error {
        Error::InvalidCertificate(why) => explain_certificate(remote, why),
        Error::AlertReceived(alert) => explain_alert(remote, *alert),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => format!(
            "what it speaks is not TLS: if it is plain HTTP, write http:// instead of https:// in {url}"
        ),
        Error::PeerIncompatible(why) => {
            format!("it offers no TLS that is safe ({why:?}): let it speak TLS 1.2 or 1.3")
        }
        other => format!("the TLS handshake failed: {}", printable(&other.to_string(), 512)),
    }
}

fn explain_certificate(remote: Remote, error: &CertificateError) -> String {
    let (url, ca_file, pin) = (remote.url_key(), remote.ca_file_key(), remote.pin_key());
    let unusable = |text: &str| format!("its certificate cannot be used: {}", printable(text, 512));
    match error {
        CertificateError::UnknownIssuer => format!(
            "its certificate was not issued by an authority that is trusted here: name the file of its CA in \
             {ca_file}, or pin the certificate in {pin}"
        ),
        CertificateError::Expired => {
            format!("its certificate has expired: renew it, or pin it in {pin}")
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate expired at {}: renew it, or pin it in {pin}", date(*not_after))
        }
        CertificateError::NotValidYet => {
            "its certificate is not valid yet: check the clocks of both".to_owned()
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("its certificate is not valid before {}: check the clocks of both", date(*not_before))
        }
        CertificateError::NotValidForName => {
            format!("its certificate is for another name: use that name in {url}, or pin it in {pin}")
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            explain_names(remote, &expected.to_str(), presented)
        }
        CertificateError::BadSignature => format!(
            "its certificate or its handshake is signed with a wrong key: if its CA was made anew, name the \
             new one in {ca_file}; if not, somebody may stand in between"
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!(
                "its certificate is not one for servers (extendedKeyUsage): replace it, or pin it in {pin}"
            )
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => format!(
            "its certificate is signed in a way that is not supported, such as SHA-1 or ECDSA with P-521: replace \
             it, or pin it in {pin}"
        ),
        CertificateError::BadEncoding => {
            "its certificate is damaged, or of X.509 version 1, which only a pin accepts, and only in TLS \
             1.3: make it again with a subjectAltName"
                .to_owned()
        }
        CertificateError::Other(other) => {
            match (other.0.downcast_ref::<PinMismatch>(), other.0.to_string()) {
                (Some(mismatch), _) => mismatch.explain(pin),
                (None, text) if other.0.is::<ShortKey>() => text,
                // An error of webpki that rustls has no variant for. Its type is not in our dependencies; a test pins its
                // name.
                (None, text) if text == "CaUsedAsEndEntity" => format!(
                    "its certificate is self-signed, as one of an authority: name the file with it in {ca_file}, or \
                 pin it in {pin}"
                ),
                (None, text) => unusable(&text),
            }
        }
        other => unusable(&other.to_string()),
    }
}

fn explain_names(remote: Remote, expected: &str, presented: &[String]) -> String {
    let (url, pin) = (remote.url_key(), remote.pin_key());
    let expected = printable(expected, MAX_NAME);
    let names: Vec<_> = presented.iter().filter_map(|name| host(name)).collect();
    if names.is_empty() {
        return format!(
            "its certificate is for no host at all, and so not for {expected}: make it again with a \
             subjectAltName, or pin it in {pin}"
        );
    }
    let shown: Vec<_> = names.iter().take(MAX_NAMES).map(|name| printable(name, MAX_NAME)).collect();
    let more = match names.len().saturating_sub(MAX_NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "its certificate is for {}{more}, not for {expected}: use a name that it has in {url}, or pin it in \
         {pin}",
        shown.join(", ")
    )
}

/// A host as webpki prints it (`DnsName("pve1")`, `IpAddress(127.0.0.1)`), without its kind; `None` for other names.
fn host(shown: &str) -> Option<&str> {
    let dns = shown.strip_prefix("DnsName(\"").and_then(|name| name.strip_suffix("\")"));
    dns.or_else(|| shown.strip_prefix("IpAddress(").and_then(|name| name.strip_suffix(')')))
}

fn explain_alert(remote: Remote, alert: AlertDescription) -> String {
    use AlertDescription as Alert;

    let (url, certificate) = (remote.url_key(), remote.client_certificate_key());
    match alert {
        Alert::CertificateRequired | Alert::NoCertificate => {
            format!("it requires a client certificate: set {certificate} and its key")
        }
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied => {
            format!("it refused the client certificate ({alert:?}): set {certificate} to one that it accepts")
        }
        Alert::HandshakeFailure | Alert::InsufficientSecurity => format!(
            "it refused the TLS handshake: it may require a client certificate ({certificate}), not support \
             what TLS 1.2 and 1.3 need, or have a key that is not supported here, such as ECDSA with P-521"
        ),
        Alert::ProtocolVersion => "it speaks neither TLS 1.2 nor TLS 1.3: upgrade it".to_owned(),
        Alert::NoApplicationProtocol => "it does not speak HTTP/1.1 over TLS: switch that on".to_owned(),
        Alert::UnrecognisedName => {
            format!("it does not know the requested server name: use its own in {url}")
        }
        other => format!("it broke off the TLS handshake ({other:?}): its log says why"),
    }
}

fn date(time: UnixTime) -> String {
    /// The first second without a four-digit year, which humantime cannot display.
    const YEAR_10000: u64 = 253_402_300_800;

    let seconds = time.as_secs().min(YEAR_10000 - 1);
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}
