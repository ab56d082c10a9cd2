//! TLS in front of clients and towards a backend: from files to what rustls takes.
//!
//! A configuration is read when it is built, and stays as it is. Files that changed are picked up by
//! building again; what fails to build leaves the one in use alone. Sessions are resumed only under the
//! configuration that made them, so that nothing outlives a change of what is trusted.
//!
//! No socket is opened here, but files are read: what takes paths blocks.

mod certificate;
mod contents;
mod explain;
mod files;
mod fingerprint;
mod front;
mod plain;
mod printable;
mod problem;
mod trust;
mod verifier;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use certificate::{Certificate, describe};
pub use contents::FileHashes;
pub use explain::{ConnectionUse, explain, explain_client, explain_tls, explain_unanswered};
pub use fingerprint::{Fingerprint, InvalidFingerprint};
pub use front::{ServerFiles, read_certificate, server};
pub use plain::{looks_like_http, plain_on_tls};
pub use problem::{FileRole, TlsError};
pub use trust::{Trust, client};

const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// The cryptography, always passed by hand: a default of the process is one more thing that can be unset.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
