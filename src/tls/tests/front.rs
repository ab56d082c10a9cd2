//! The configuration of a listener, and its reload.

use std::fs;

use rustls::HandshakeKind;
use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};

use super::support::*;
use crate::tls::{Fingerprint, TlsError, Trust, client, read_certificate, server};

#[tokio::test]
async fn clients_of_both_versions_are_served_and_get_http_2_before_http_1() {
    let folder = Folder::new();
    let server = server(&folder.leaf("leaf", &Leaf::issued_by(&authority("ca")))).unwrap();
    for (version, offered, spoken, chosen) in [
        (&TLS13, &[&b"http/1.1"[..], b"h2"][..], ProtocolVersion::TLSv1_3, Some(&b"h2"[..])),
        (&TLS13, &[b"http/1.1"], ProtocolVersion::TLSv1_3, Some(b"http/1.1")),
        (&TLS13, &[], ProtocolVersion::TLSv1_3, None),
        (&TLS12, &[], ProtocolVersion::TLSv1_2, None),
    ] {
        let (near, far) = shake(&server, &client_with(version, offered), HOST).await;
        for stands in [near.unwrap(), far.unwrap()] {
            assert_eq!((stands.version, stands.protocol.as_deref()), (Some(spoken), chosen));
        }
    }
    let (near, _) = shake(&server, &client_with(&TLS13, &[b"spdy/3"]), HOST).await;
    near.unwrap_err();
}

#[tokio::test]
async fn building_again_takes_up_new_files_and_ends_the_sessions_of_the_old_ones() {
    let (folder, ca) = (Folder::new(), authority("ca"));
    let (old, new) = (Leaf::issued_by(&ca), Leaf::issued_by(&ca));
    let files = folder.leaf("leaf", &old);
    let before = server(&files).unwrap();

    fs::write(&files.certificate, new.certificate.pem()).unwrap();
    let torn = server(&files).unwrap_err();
    assert!(matches!(torn, TlsError::Mismatch { .. }), "{torn}");

    fs::write(&files.key, new.key.serialize_pem()).unwrap();
    let after = server(&files).unwrap();
    assert_eq!(read_certificate(&files).unwrap().fingerprint, Fingerprint::from_certificate(new.der()));
    let client = client(&Trust::Insecure, None).unwrap();
    for (server, shown, kind) in [
        (&before, &old, HandshakeKind::Full),
        (&before, &old, HandshakeKind::Resumed),
        (&after, &new, HandshakeKind::Full),
        (&after, &new, HandshakeKind::Resumed),
    ] {
        let (near, far) = shake(server, &client, HOST).await;
        let near = near.unwrap();
        assert_eq!(near.peer.as_ref(), Some(shown.der()));
        assert_eq!((near.kind, far.unwrap().kind), (Some(kind), Some(kind)));
    }
}

#[tokio::test]
async fn an_expired_certificate_is_served_and_described() {
    let folder = Folder::new();
    let files = folder.leaf("leaf", &Leaf::changed(&authority("ca"), expired));
    let (near, far) = shake(&server(&files).unwrap(), &client(&Trust::Insecure, None).unwrap(), HOST).await;
    near.unwrap();
    far.unwrap();
    let not_after = read_certificate(&files).unwrap().not_after;
    assert_eq!(humantime::format_rfc3339_seconds(not_after).to_string(), "2020-01-01T00:00:00Z");
}

#[tokio::test]
async fn the_certificates_of_the_issuers_go_with_that_of_the_server() {
    let (folder, root) = (Folder::new(), authority("root"));
    let mut params = params("between");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let between = Authority::signed_by(params, key(), &root).unwrap();
    let leaf = Leaf::issued_by(&between);
    let mut files = folder.leaf("leaf", &leaf);
    let trust = Trust::Authority(folder.write("root.pem", root.pem()));
    let client = client(&trust, None).unwrap();
    shake(&server(&files).unwrap(), &client, HOST).await.0.unwrap_err();
    files.certificate = folder.write("chain.pem", leaf.certificate.pem() + &between.pem());
    shake(&server(&files).unwrap(), &client, HOST).await.0.unwrap();
}
