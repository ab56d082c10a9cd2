//! Errors of unusable files.

use std::io;
use std::path::PathBuf;

use super::support::*;
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

    fn error_text(&self, why: TlsError) -> String {
        let text = why.to_string();
        let name = self.good.certificate.parent().unwrap().display().to_string();
        assert!(!text.contains('\n') && text.contains(&name), "{text}");
        text.replace(&format!("{name}/"), "")
    }

    fn with_certificate(&self, text: impl AsRef<[u8]>) -> String {
        let certificate = self.folder.write("certificate", text);
        let files = ServerFiles { certificate, ..self.good.clone() };
        self.error_text(server(&files).unwrap_err())
    }

    fn with_key(&self, text: impl AsRef<[u8]>) -> String {
        let key = self.folder.write("key", text);
        self.error_text(server(&ServerFiles { key, ..self.good.clone() }).unwrap_err())
    }

    fn with_authorities(&self, text: impl AsRef<[u8]>) -> String {
        let path = self.folder.write("ca", text);
        let listener = ServerFiles { client_ca: Some(path.clone()), ..self.good.clone() };
        let (front, back) =
            (server(&listener).unwrap_err(), client(&Trust::Authority(path), None).unwrap_err());
        assert_eq!(front.to_string(), back.to_string());
        self.error_text(front)
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let case = Case::new();
    let nowhere = case.good.certificate.with_file_name("nowhere");
    let gone = "No such file or directory (os error 2); check the path";
    let files = ServerFiles { certificate: nowhere.clone(), ..case.good.clone() };
    assert_eq!(
        case.error_text(server(&files).unwrap_err()),
        format!("cannot read the certificate \"nowhere\": {gone}")
    );
    assert_eq!(
        case.error_text(read_certificate(&files).unwrap_err()),
        format!("cannot read the certificate \"nowhere\": {gone}")
    );
    let files = ServerFiles { key: nowhere.clone(), ..case.good.clone() };
    assert_eq!(
        case.error_text(server(&files).unwrap_err()),
        format!("cannot read the private key \"nowhere\": {gone}")
    );
    assert_eq!(
        case.error_text(client(&Trust::Authority(nowhere), None).unwrap_err()),
        format!("cannot read the CA certificate \"nowhere\": {gone}")
    );
    let refused = TlsError::Unreadable {
        holds: FileRole::Key,
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
    let certificate = "it must hold the certificate in PEM, and behind it those of its issuers";
    let key = "it must hold the private key of the certificate in PEM";
    let authorities = "it must hold one or more CA certificates in PEM";
    for nothing in ["", " \r\n\n"] {
        assert_eq!(case.with_certificate(nothing), format!("\"certificate\" is empty: {certificate}"));
        assert_eq!(case.with_key(nothing), format!("\"key\" is empty: {key}"));
        assert_eq!(case.with_authorities(nothing), format!("\"ca\" is empty: {authorities}"));
    }
    for text in ["something", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        assert_eq!(
            case.with_certificate(text),
            format!("there is no certificate in \"certificate\": {certificate}")
        );
        assert_eq!(case.with_key(text), format!("there is no private key in \"key\": {key}"));
        assert_eq!(
            case.with_authorities(text),
            format!("there is no CA certificate in \"ca\": {authorities}")
        );
    }
}

#[test]
fn what_stands_in_a_file_instead_is_recognised() {
    let case = Case::new();
    let (pem, secret) = (case.leaf.certificate.pem(), case.leaf.key.serialize_pem());
    let swapped = "the two files may be swapped";
    assert_eq!(
        case.with_certificate(&secret),
        format!("there is no certificate in \"certificate\": it holds a private key; {swapped}")
    );
    assert_eq!(
        case.with_key(&pem),
        format!("there is no private key in \"key\": it holds a certificate; {swapped}")
    );
    assert_eq!(
        case.with_certificate(case.leaf.der()),
        "there is no certificate in \"certificate\": it seems to be DER; turn it into PEM with \"openssl \
         x509 -inform der -in OLD -out NEW\""
    );
    assert_eq!(
        case.with_key(case.leaf.key.serialize_der()),
        "there is no private key in \"key\": it seems to be DER; turn it into PEM with \"openssl pkey \
         -inform der -in OLD -out NEW\""
    );
    assert_eq!(
        case.with_key("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"),
        "there is no private key in \"key\": what it holds is a key of SSH"
    );
    let request = rcgen::CertificateParams::default().serialize_request(&case.leaf.key).unwrap();
    assert_eq!(
        case.with_certificate(request.pem().unwrap()),
        "there is no certificate in \"certificate\": it holds a request for one; what the CA made of it is \
         wanted"
    );
}

#[test]
fn an_encrypted_key_is_refused_in_both_of_its_forms() {
    let case = Case::new();
    for text in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIIB\n-----END \
         EC PRIVATE KEY-----\n",
    ] {
        assert_eq!(
            case.with_key(text),
            "the private key in \"key\" is encrypted, and the bridge cannot ask for its passphrase: write it \
             out with \"openssl pkey -in OLD -out NEW\" into a file that only the bridge can read"
        );
    }
}

#[test]
fn a_damaged_file_is_refused_and_nothing_of_it_is_repeated() {
    let case = Case::new();
    let secret = case.leaf.key.serialize_pem();
    let body: String = secret.lines().filter(|line| !line.starts_with('-')).collect();
    let end = "-----END PRIVATE KEY-----";
    let one_line = secret.replace('\n', "");
    for (text, why) in [
        (secret.replace(end, ""), "it has a BEGIN line without its END line"),
        (one_line, "it has a BEGIN line without its END line"),
        (secret.replacen("-----\n", "", 1), "it has a BEGIN line that is not whole"),
        (secret.replacen('M', "?", 1), "what stands between a BEGIN and an END line is not base64"),
    ] {
        let key = case.folder.write("key", &text);
        let error = server(&ServerFiles { key, ..case.good.clone() }).unwrap_err();
        for shown in [format!("{error:?}"), error.to_string()] {
            assert!(
                body.as_bytes().windows(8).all(|part| !shown.contains(std::str::from_utf8(part).unwrap()))
            );
        }
        assert_eq!(
            case.error_text(error),
            format!("\"key\" is damaged: {why}; copy it again, every line of it")
        );
    }
    let half = case.leaf.certificate.pem().replace("-----END CERTIFICATE-----", "");
    let why = "it has a BEGIN line without its END line; copy it again, every line of it";
    assert_eq!(case.with_certificate(&half), format!("\"certificate\" is damaged: {why}"));
    assert_eq!(case.with_authorities(&half), format!("\"ca\" is damaged: {why}"));
}

#[test]
fn what_is_pem_and_no_key_or_no_certificate_is_refused() {
    let case = Case::new();
    assert_eq!(
        case.with_key("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        "the private key in \"key\" cannot be used: it must be RSA with 2048 to 4096 bits, ECDSA with P-256 \
         or P-384, or Ed25519; make a new one, with its certificate"
    );
    let own = case.leaf.certificate.pem();
    for (text, position) in [(pem(b"0"), 1), (own.clone() + &pem(b"0"), 2)] {
        assert_eq!(
            case.with_certificate(&text),
            format!(
                "certificate {position} in \"certificate\" cannot be used: it is damaged or not X.509; \
                 replace it"
            )
        );
        assert_eq!(
            case.with_authorities(&text),
            format!(
                "certificate {position} in \"ca\" cannot be used: it is damaged or not X.509; replace it"
            )
        );
    }
    assert_eq!(
        case.with_certificate(pem(&version_1(case.leaf.der()))),
        "the certificate in \"certificate\" is of X.509 version 1, which has no host names: make it again \
         with \"openssl req -x509 -addext subjectAltName=DNS:HOST\""
    );
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let case = Case::new();
    let other = Leaf::issued_by(&authority("ca"));
    let mismatch = "the private key in \"key\" does not belong to the certificate in \"good.pem\": name the \
                    two files that were made together";
    assert_eq!(case.with_key(other.key.serialize_pem()), mismatch);
    assert_eq!(
        case.with_certificate(other.certificate.pem() + &case.leaf.certificate.pem()),
        "the private key in \"good.key\" belongs to certificate 2 in \"certificate\": put that one first, \
         and its issuers behind it"
    );
    let key = case.folder.write("key", other.key.serialize_pem());
    let client = client(&Trust::Insecure, Some((&case.good.certificate, &key)));
    assert_eq!(case.error_text(client.unwrap_err()), mismatch);
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
fn a_key_on_a_curve_that_is_not_supported_is_named() {
    let key = "\
-----BEGIN PRIVATE KEY-----
MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIBlFBCq9zGMu3NQPtG
WdCVr82aQ72Denl6SR1dowMwmW7kEATXtg15WCZVWru54E5i+H1/ge7mnYiskTwD
8dWckMChgYkDgYYABAFJ8HVmAAqbf0WeJHEHoj01X840c+0ykxtpnVQ+Z75EpkNY
7FusAMKnlW2hZqKZXAdGpcr2ShNJMV9kVb9m0esOFAEJa5j6RrZlpKbRCQYLeFsx
RYlT4c64N59mSL8FBXwaoOblfgIubymAxbJhbT7ztgO71Dq37+xQGZfxbwUtxh1C
qQ==
-----END PRIVATE KEY-----
";
    assert_eq!(
        Case::new().with_key(key),
        "the private key in \"key\" is ECDSA with P-521, which is not supported: make a new one with P-256 or P-384, \
         with its certificate"
    );
}

#[test]
fn what_windows_puts_before_a_text_does_not_hide_what_stands_there() {
    let case = Case::new();
    let mark = |text: String| format!("\u{feff}{text}");
    let issuer = authority("ca").pem();
    let chain = case.folder.write("chain", mark(case.leaf.certificate.pem()) + &mark(issuer.clone()));
    let key = case.folder.write("key", mark(case.leaf.key.serialize_pem()));
    let marked = ServerFiles { certificate: chain.clone(), key, client_ca: None };
    server(&marked).unwrap();
    assert_eq!(crate::tls::files::chain(&chain).unwrap().len(), 2, "the second is not left out");
    let wide: Vec<u8> =
        [0xfeff].into_iter().chain(issuer.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    assert_eq!(
        case.with_authorities(wide),
        "there is no CA certificate in \"ca\": it is text in UTF-16, as Windows writes it; save it as UTF-8 or ASCII"
    );
}
