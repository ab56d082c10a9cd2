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
    let refused = TlsError::Unreadable(Key, "/etc/key".into(), io::ErrorKind::PermissionDenied.into());
    assert_eq!(
        refused.to_string(),
        "cannot read the private key \"/etc/key\": permission denied; let the user read it that the bridge \
         runs as"
    );
}

#[test]
fn a_file_with_other_contents_is_refused_with_the_remedy_and_nothing_of_it_is_repeated() {
    let case = Case::new();
    let (pem_text, secret) = (case.leaf.certificate.pem(), case.leaf.key.serialize_pem());
    let body: String = secret.lines().filter(|line| !line.starts_with('-')).collect();
    let half = |pem: &str| pem.split("-----END").next().unwrap().as_bytes().to_vec();
    let block =
        |name: &str, body: &str| format!("-----BEGIN {name}-----\n{body}\n-----END {name}-----\n").into();
    let request = rcgen::CertificateParams::default().serialize_request(&case.leaf.key).unwrap();
    let wide = [0xfeff].into_iter().chain(pem_text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let encrypted = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIIB";
    let other = [
        ("nothing", Vec::new()),
        ("white space", b" \r\n\n".to_vec()),
        ("another text", b"something".to_vec()),
        ("another block", block("PUBLIC KEY", "AAAA")),
    ];
    let other =
        other.into_iter().flat_map(|(name, text)| FileRole::ALL.map(|role| (role, name, text.clone())));
    let mut texts = String::new();
    for (role, name, text) in other.chain([
        (Certificate, "a key", secret.clone().into()),
        (Certificate, "DER", case.leaf.der().to_vec()),
        (Certificate, "a request", request.pem().unwrap().into()),
        (Certificate, "a part", half(&pem_text)),
        (Certificate, "a damaged certificate", pem(b"0").into()),
        (Certificate, "a certificate and a damaged one", (pem_text.clone() + &pem(b"0")).into()),
        (Certificate, "version 1", pem(&version_1(case.leaf.der())).into()),
        (Key, "a certificate", pem_text.clone().into()),
        (Key, "DER", case.leaf.key.serialize_der()),
        (Key, "a key of SSH", block("OPENSSH PRIVATE KEY", "AAAA")),
        (Key, "an encrypted key", block("ENCRYPTED PRIVATE KEY", "MIIB")),
        (Key, "an encrypted key in the older form", block("EC PRIVATE KEY", encrypted)),
        (Key, "no key in its block", block("PRIVATE KEY", "AAAA")),
        (Key, "a key on P-521", include_bytes!("p521.pem").to_vec()),
        (Key, "a part", half(&secret)),
        (Key, "one line", secret.replace('\n', "").into()),
        (Key, "a first line that is not whole", secret.replacen("-----\n", "", 1).into()),
        (Key, "a wrong character", secret.replacen('M', "?", 1).into()),
        (Authorities, "a part", half(&pem_text)),
        (Authorities, "a damaged certificate", pem(b"0").into()),
        (Authorities, "a certificate and a damaged one", (pem_text.clone() + &pem(b"0")).into()),
        (Authorities, "UTF-16", wide),
    ]) {
        let error = case.error(role, case.folder.write("file", text));
        for shown in [format!("{error:?}"), error.to_string()] {
            let mut parts = body.as_bytes().windows(8).map(|part| std::str::from_utf8(part).unwrap());
            assert!(parts.all(|part| !shown.contains(part)), "{role}, {name}");
        }
        texts += &format!("{role}, {name}:\n    {}\n", case.text(&error));
    }
    insta::assert_snapshot!(texts);
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
