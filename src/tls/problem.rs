//! Errors in TLS files.

use std::io;
use std::path::PathBuf;

use crate::core::remote::Remote;
use crate::core::text::string_enum::string_enum;

string_enum! {
    /// The role of a file.
    pub enum FileRole {
        /// The certificate presented to the peer, and those of its issuers.
        Certificate = "certificate",
        /// Its private key.
        Key = "private key",
        /// The authorities whose certificates are accepted.
        Authorities = "CA certificate",
    }
}

impl FileRole {
    /// The expected contents of the file.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Certificate => "it must hold the certificate in PEM, and behind it those of its issuers",
            Self::Key => "it must hold the private key of the certificate in PEM",
            Self::Authorities => "it must hold one or more CA certificates in PEM",
        }
    }
}

/// Why a TLS configuration cannot be built. The text is one line that names the file and the remedy.
///
/// Neither `Display` nor `Debug` contains any contents of a file, which may be a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read the {role} {path:?}: {}{}", .2, advice(.2), role = .0, path = .1)]
    Unreadable(FileRole, PathBuf, #[source] io::Error),
    /// A file is empty, or contains only white space.
    #[error("{path:?} is empty: {}", .0.expected(), path = .1)]
    Empty(FileRole, PathBuf),
    /// A file contains something else, with the remedy.
    #[error("there is no {0} in {1:?}: {2}")]
    Missing(FileRole, PathBuf, &'static str),
    /// A file contains invalid PEM, for this reason.
    #[error("{0:?} is damaged: {1}; copy it again, every line of it")]
    Broken(PathBuf, &'static str),
    /// The key needs a passphrase.
    #[error(
        "the private key in {0:?} is encrypted, and the bridge cannot ask for its passphrase: write it out \
         with \"openssl pkey -in OLD -out NEW\" into a file that only the bridge can read"
    )]
    EncryptedKey(PathBuf),
    /// The key has an unsupported type, or is damaged.
    #[error(
        "the private key in {0:?} cannot be used: it must be RSA with 2048 to 4096 bits, ECDSA with \
         P-256 or P-384, or Ed25519; make a new one, with its certificate"
    )]
    BadKey(PathBuf),
    /// The key is on an unsupported curve.
    #[error(
        "the private key in {0:?} is ECDSA with P-521, which is not supported: make a new one with P-256 or P-384, \
         with its certificate"
    )]
    P521Key(PathBuf),
    /// The certificate at this position in the file, from 1, is not X.509, or has unsupported contents.
    #[error("certificate {1} in {0:?} cannot be used: it is damaged or not X.509; replace it")]
    BadCertificate(PathBuf, usize),
    /// The certificate has a version that no client accepts.
    #[error(
        "the certificate in {0:?} is of X.509 version 1, which has no host names: make it again with \
         \"openssl req -x509 -addext subjectAltName=DNS:HOST\""
    )]
    OldCertificate(PathBuf),
    /// The key belongs to another certificate.
    #[error(
        "the private key in {key:?} does not belong to the certificate in {certificate:?}: name the two \
         files that were made together"
    )]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The key belongs to another certificate in the same file.
    #[error(
        "the private key in {key:?} belongs to certificate {position} in {certificate:?}: put that one \
         first, and its issuers behind it"
    )]
    Misordered {
        /// The file of the certificates.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The position of its certificate in the file, from 1.
        position: usize,
    },
    /// The system has no CA certificates, with the first error when they were loaded.
    #[error(
        "this system has no CA certificates{}: install the package ca-certificates, set SSL_CERT_FILE to a \
         file with them, or name the CA of the backend in {}, that of NetBox in {}",
        .0.as_deref().map(|why| format!(" ({why})")).unwrap_or_default(),
        Remote::Backend.ca_file_key(),
        Remote::Netbox.ca_file_key()
    )]
    NoSystemRoots(Option<String>),
    /// rustls refuses the configuration for another reason.
    #[error("cannot set up TLS: {0}; this is a fault of the bridge")]
    Setup(#[source] rustls::Error),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; check the path",
        io::ErrorKind::PermissionDenied => "; let the user read it that the bridge runs as",
        _ => "",
    }
}
