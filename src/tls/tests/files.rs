//! Errors of unusable files.

use std::io;
use std::path::PathBuf;

use super::support::*;
use crate::tls::FileRole::{Authorities, Certificate, Key};
use crate::tls::trust::system;
use crate::tls::{FileRole, ServerFiles, TlsError, Trust, client, read_certificate, server};

/// A valid leaf in files, and the error when one of the files is replaced.
struct Case {
    folder: Folder,
    leaf: Leaf,
    good: ServerFiles,
}

impl Case {
    fn new() -> Self {
        let (folder, leaf) = (Folder::new(), Leaf::issued_by(&authority("ca")));
        let good = folder.leaf("good", &leaf);
        Self { folder, leaf, good }
    }

    /// The files of a listener of which the one with the role `role` is at `path`.
    fn files(&self, role: FileRole, path: PathBuf) -> ServerFiles {
        let good = self.good.clone();
        match role {
            Certificate => ServerFiles { certificate: path, ..good },
            Key => ServerFiles { key: path, ..good },
            Authorities => ServerFiles { client_ca: Some(path), ..good },
        }
    }

    /// The text of `why` with paths that are relative to the folder.
    fn text(&self, why: &TlsError) -> String {
        let text = why.to_string();
        let name = self.good.certificate.parent().unwrap().display().to_string();
        assert!(!text.contains('\n') && text.contains(&name), "{text}");
        text.replace(&format!("{name}/"), "")
    }

    /// The error of the files of which the one with the role `role` is at `path`.
    fn error(&self, role: FileRole, path: PathBuf) -> TlsError {
        let error = server(&self.files(role, path.clone())).unwrap_err();
        if role == Authorities {
            let backend = client(&Trust::Authority(path), None).unwrap_err();
            assert_eq!(error.to_string(), backend.to_string());
        }
        error
    }

    /// The text of the error of files of which the one with the role `role` holds `text`.
    fn refusal(&self, role: FileRole, text: impl AsRef<[u8]>) -> String {
        self.text(&self.error(role, self.folder.write("file", text)))
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let case = Case::new();
    let nowhere = case.good.certificate.with_file_name("nowhere");
    let gone = "\"nowhere\": No such file or directory (os error 2); check the path";
    for (role, name) in [(Certificate, "certificate"), (Key, "private key"), (Authorities, "CA certificate")]
    {
        let text = case.text(&case.error(role, nowhere.clone()));
        assert_eq!(text, format!("cannot read the {name} {gone}"));
    }
    let files = case.files(Certificate, nowhere);
    let text = case.text(&read_certificate(&files).unwrap_err());
    assert_eq!(text, format!("cannot read the certificate {gone}"));
    let refused = TlsError::Unreadable {
        holds: Key,
        path: PathBuf::from("/etc/key"),
        source: io::Error::from(io::ErrorKind::PermissionDenied),
    };
    assert_eq!(
        refused.to_string(),
        "cannot read the private key \"/etc/key\": permission denied; let the user read it that the bridge \
         runs as"
    );
}

#[test]
fn an_empty_file_is_distinguished_from_one_with_other_content() {
    let case = Case::new();
    for (role, contents) in [
        (Certificate, "it must hold the certificate in PEM, and behind it those of its issuers"),
        (Key, "it must hold the private key of the certificate in PEM"),
        (Authorities, "it must hold one or more CA certificates in PEM"),
    ] {
        for nothing in ["", " \r\n\n"] {
            assert_eq!(case.refusal(role, nothing), format!("\"file\" is empty: {contents}"));
        }
        for text in ["something", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            assert_eq!(case.refusal(role, text), format!("there is no {role} in \"file\": {contents}"));
        }
    }
}

#[test]
fn what_stands_in_a_file_instead_is_recognised() {
    let case = Case::new();
    let (pem, secret) = (case.leaf.certificate.pem(), case.leaf.key.serialize_pem());
    let request = rcgen::CertificateParams::default().serialize_request(&case.leaf.key).unwrap();
    let wide = [0xfeff].into_iter().chain(pem.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let ssh = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n";
    let der = "it seems to be DER; turn it into PEM with \"openssl";
    for (role, text, hint) in [
        (Certificate, secret.into(), "it holds a private key; the two files may be swapped"),
        (Key, pem.into(), "it holds a certificate; the two files may be swapped"),
        (Certificate, case.leaf.der().to_vec(), &format!("{der} x509 -inform der -in OLD -out NEW\"")),
        (Key, case.leaf.key.serialize_der(), &format!("{der} pkey -inform der -in OLD -out NEW\"")),
        (Key, ssh.into(), "what it holds is a key of SSH"),
        (
            Certificate,
            request.pem().unwrap().into(),
            "it holds a request for one; what the CA made of it is wanted",
        ),
        (Authorities, wide, "it is text in UTF-16, as Windows writes it; save it as UTF-8 or ASCII"),
    ] {
        assert_eq!(case.refusal(role, text), format!("there is no {role} in \"file\": {hint}"));
    }
}

#[test]
fn a_key_that_cannot_be_used_is_refused_with_the_remedy() {
    let encrypted = "the private key in \"file\" is encrypted, and the bridge cannot ask for its passphrase: write it \
                     out with \"openssl pkey -in OLD -out NEW\" into a file that only the bridge can read";
    for (text, expected) in [
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n", encrypted),
        (
            "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIIB\n-----END \
             EC PRIVATE KEY-----\n",
            encrypted,
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "the private key in \"file\" cannot be used: it must be RSA with 2048 to 4096 bits, ECDSA with P-256 or \
             P-384, or Ed25519; make a new one, with its certificate",
        ),
        (
            include_str!("p521.pem"),
            "the private key in \"file\" is ECDSA with P-521, which is not supported: make a new one with P-256 or \
             P-384, with its certificate",
        ),
    ] {
        assert_eq!(Case::new().refusal(Key, text), expected);
    }
}

#[test]
fn a_damaged_file_is_refused_and_nothing_of_it_is_repeated() {
    let case = Case::new();
    let secret = case.leaf.key.serialize_pem();
    let body: String = secret.lines().filter(|line| !line.starts_with('-')).collect();
    let end = "-----END PRIVATE KEY-----";
    let half = case.leaf.certificate.pem().replace("-----END CERTIFICATE-----", "");
    let no_end = "it has a BEGIN line without its END line";
    for (role, text, why) in [
        (Key, secret.replace(end, ""), no_end),
        (Key, secret.replace('\n', ""), no_end),
        (Key, secret.replacen("-----\n", "", 1), "it has a BEGIN line that is not whole"),
        (Key, secret.replacen('M', "?", 1), "what stands between a BEGIN and an END line is not base64"),
        (Certificate, half.clone(), no_end),
        (Authorities, half, no_end),
    ] {
        let error = case.error(role, case.folder.write("file", &text));
        for shown in [format!("{error:?}"), error.to_string()] {
            let mut parts = body.as_bytes().windows(8).map(|part| std::str::from_utf8(part).unwrap());
            assert!(parts.all(|part| !shown.contains(part)));
        }
        let expected = format!("\"file\" is damaged: {why}; copy it again, every line of it");
        assert_eq!(case.text(&error), expected);
    }
}

#[test]
fn what_is_pem_and_no_certificate_is_refused() {
    let case = Case::new();
    let own = case.leaf.certificate.pem();
    for (text, position) in [(pem(b"0"), 1), (own + &pem(b"0"), 2)] {
        let why = "cannot be used: it is damaged or not X.509; replace it";
        for role in [Certificate, Authorities] {
            assert_eq!(case.refusal(role, &text), format!("certificate {position} in \"file\" {why}"));
        }
    }
    assert_eq!(
        case.refusal(Certificate, pem(&version_1(case.leaf.der()))),
        "the certificate in \"file\" is of X.509 version 1, which has no host names: make it again with \"openssl req \
         -x509 -addext subjectAltName=DNS:HOST\""
    );
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let case = Case::new();
    let other = Leaf::issued_by(&authority("ca"));
    assert_eq!(
        case.refusal(Certificate, other.certificate.pem() + &case.leaf.certificate.pem()),
        "the private key in \"good.key\" belongs to certificate 2 in \"file\": put that one first, and its issuers \
         behind it"
    );
    let mismatch = "the private key in \"file\" does not belong to the certificate in \"good.pem\": name the two \
                    files that were made together";
    assert_eq!(case.refusal(Key, other.key.serialize_pem()), mismatch);
    let files = case.files(Key, case.folder.write("file", other.key.serialize_pem()));
    assert_eq!(case.text(&client(&Trust::Insecure, Some(&pair(&files))).unwrap_err()), mismatch);
}

#[test]
fn certificate_and_key_may_stand_in_one_file() {
    let case = Case::new();
    let both = case.folder.write("both", case.leaf.key.serialize_pem() + &case.leaf.certificate.pem());
    server(&ServerFiles { certificate: both.clone(), key: both, client_ca: None }).unwrap();
}

#[test]
fn a_system_without_authorities_is_an_error_that_says_how_to_name_some() {
    let way_out = "install the package ca-certificates, set SSL_CERT_FILE to a file with them, or name the \
                   CA of the backend in backend.ca_file, that of NetBox in backend.netbox_ca_file";
    let nothing = system(rustls_native_certs::CertificateResult::default()).unwrap_err();
    assert_eq!(nothing.to_string(), format!("this system has no CA certificates: {way_out}"));
    let failed = rustls_native_certs::load_certs_from_paths(Some("/nowhere/ca.pem".as_ref()), None);
    let failed = system(failed).unwrap_err().to_string();
    assert!(failed.starts_with("this system has no CA certificates ("), "{failed}");
    assert!(failed.contains("/nowhere/ca.pem") && failed.ends_with(way_out), "{failed}");
}

#[test]
fn other_errors_of_rustls_are_reported() {
    let why = TlsError::Setup(rustls::Error::General("no cipher suites".to_owned()));
    assert_eq!(
        why.to_string(),
        "cannot set up TLS: unexpected error: no cipher suites; this is a fault of the bridge"
    );
}

#[test]
fn what_windows_puts_before_a_text_does_not_hide_what_stands_there() {
    let case = Case::new();
    let mark = |text: String| format!("\u{feff}{text}");
    let chain = mark(case.leaf.certificate.pem()) + &mark(authority("ca").pem());
    let certificate = case.folder.write("chain", chain);
    let key = case.folder.write("key", mark(case.leaf.key.serialize_pem()));
    server(&ServerFiles { certificate: certificate.clone(), key, client_ca: None }).unwrap();
    assert_eq!(crate::tls::files::chain(&certificate).unwrap().len(), 2, "the second is not left out");
}
