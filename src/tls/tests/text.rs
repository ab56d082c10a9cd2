//! Texts about certificates and errors.

use std::io;
use std::time::{Duration, SystemTime};

use rcgen::{DnType, SanType};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::support::*;
use crate::core::remote::Remote;
use crate::tls::{
    ConnectionUse, Fingerprint, describe, explain, explain_client, explain_tls, explain_unanswered,
};

fn explained(error: impl Into<Error>) -> String {
    explain(Remote::Backend, &io::Error::new(io::ErrorKind::InvalidData, error.into()))
}

#[test]
fn a_certificate_is_described() {
    let leaf = Leaf::changed(&authority("The CA"), |params| {
        *params =
            rcgen::CertificateParams::new([HOST, "*.example.org", "10.0.0.1", "fd00::1"].map(str::to_owned))
                .unwrap();
        params.subject_alt_names.push(SanType::Rfc822Name("root@example.org".try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "pve1");
        params.distinguished_name.push(DnType::OrganizationName, "Bücher");
        params.not_before = rcgen::date_time_ymd(1969, 12, 31);
        params.not_after = rcgen::date_time_ymd(2050, 1, 1);
    });
    let described = describe(leaf.der()).unwrap();
    assert_eq!(described.subject, "CN=pve1, O=Bücher");
    assert_eq!(described.issuer, "CN=The CA");
    assert_eq!(described.names, [HOST, "*.example.org", "10.0.0.1", "fd00::1"]);
    assert_eq!(described.not_before, SystemTime::UNIX_EPOCH - Duration::from_secs(86_400));
    assert_eq!(humantime::format_rfc3339_seconds(described.not_after).to_string(), "2050-01-01T00:00:00Z");
    assert_eq!(described.fingerprint, Fingerprint::from_certificate(leaf.der()));
}

#[test]
fn what_is_not_exactly_one_certificate_is_not_described() {
    let leaf = Leaf::issued_by(&authority("ca"));
    let longer = [leaf.der().as_ref(), b"\0"].concat();
    for der in [Vec::new(), b"certificate".to_vec(), leaf.der()[..leaf.der().len() - 1].to_vec(), longer] {
        assert_eq!(describe(&CertificateDer::from(der)), None);
    }
}

#[tokio::test]
async fn what_a_certificate_says_cannot_write_into_a_terminal_or_a_log() {
    let leaf = Leaf::self_signed(|params| {
        params.distinguished_name.push(DnType::CommonName, "a\nb\u{1b}[31m\u{202e}");
        params.subject_alt_names = vec![SanType::DnsName("x\r\ny\u{1b}[0m".try_into().unwrap())];
    });
    let described = describe(leaf.der()).unwrap();
    for text in [&described.subject, &described.issuer] {
        assert_eq!(text, "CN=a\\nb\\u{1b}[31m\\u{202e}");
    }
    assert_eq!(described.names, ["x\\r\\ny\\u{1b}[0m"]);
    let why = explained(CertificateError::NotValidForNameContext {
        expected: ServerName::try_from(HOST).unwrap(),
        presented: vec!["DnsName(\"x\r\ny\u{1b}[0m\")".to_owned(), "Unsupported(0x01)".to_owned()],
    });
    let start = "its certificate is for x\\r\\ny\\u{1b}[0m, not for pve1.example.org: ";
    assert!(why.starts_with(start), "{why}");
}

#[test]
fn every_error_of_a_handshake_with_a_backend_is_explained() {
    use AlertDescription as Alert;
    use CertificateError as Fault;

    let late = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    let tls = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
    let alerts = [
        Alert::CertificateRequired,
        Alert::BadCertificate,
        Alert::CertificateExpired,
        Alert::HandshakeFailure,
        Alert::ProtocolVersion,
        Alert::NoApplicationProtocol,
        Alert::UnrecognisedName,
        Alert::InternalError,
    ];
    let faults = [
        Fault::Expired,
        Fault::ExpiredContext { time: late, not_after: late },
        Fault::NotValidYet,
        Fault::NotValidForName,
        Fault::InvalidPurpose,
        Fault::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: Vec::new(),
            public_key_algorithm_id: Vec::new(),
        },
        Fault::Revoked,
    ];
    let others = [
        tls(Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon)),
        tls(Error::General("a\nb".to_owned())),
        io::Error::other(io::Error::other(tls(Fault::UnknownIssuer.into()))),
        io::ErrorKind::ConnectionReset.into(),
        io::ErrorKind::TimedOut.into(),
    ];
    let errors = alerts.map(|alert| tls(Error::AlertReceived(alert))).into_iter();
    let errors = errors.chain(faults.map(|fault| tls(fault.into()))).chain(others);
    let texts = errors.map(|error| format!("{error:?}\n    {}\n", explain(Remote::Backend, &error)));
    insta::assert_snapshot!(texts.collect::<String>());
}

#[test]
fn a_client_key_that_may_be_too_short_is_distinguished_from_another_authority() {
    let explained = |why: CertificateError| {
        let error = io::Error::new(io::ErrorKind::InvalidData, Error::from(why));
        explain_client(&error, Duration::from_secs(1), "tls.certificate")
    };
    let why = explained(CertificateError::BadSignature);
    assert!(
        why.contains("a wrong key, or with an RSA key of less than 2048 bits, which is too short: "),
        "{why}"
    );
    let why = explained(CertificateError::UnknownIssuer);
    assert!(why.contains("tls.client_ca names the authorities") && !why.contains("RSA"), "{why}");
}

#[test]
fn a_connection_that_was_cut_is_explained_without_a_link_to_the_documentation_of_a_library() {
    // The text of rustls.
    let text = "peer closed connection without sending TLS close_notify: https://docs.rs/rustls/latest";
    let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, text);
    let unanswered = |error: &io::Error, on| explain_unanswered(Remote::Backend, error, on);
    for error in [cut(), io::Error::other(cut())] {
        assert_eq!(
            unanswered(&error, ConnectionUse::Fresh).unwrap(),
            "it closed the connection before it answered: it has ended or was restarted, or it refuses the client \
             certificate or requires one (backend.client_certificate); its log says why"
        );
        assert_eq!(
            unanswered(&error, ConnectionUse::Reused).unwrap(),
            "it closed the connection before it answered: it has ended or was restarted; its log says why"
        );
        let later = explain_tls(Remote::Backend, &error).unwrap();
        assert!(later.contains("without the end that TLS has") && !later.contains("docs.rs"), "{later}");
    }
    let other = io::Error::from(io::ErrorKind::UnexpectedEof);
    assert_eq!(unanswered(&other, ConnectionUse::Fresh), None);
    assert_eq!(explain_tls(Remote::Backend, &other), None);
}
