//! TLS for clients and for backends: from files to rustls configurations.
//!
//! A configuration is read when it is built, and never changes. Changed files are loaded by building another one; if
//! that fails, the current one stays in use. Sessions are resumed only under the configuration that created them, so
//! that a change of trust applies to all connections.
//!
//! No socket is opened here. Functions that take paths read files, and block.

mod certificate;
mod contents;
mod explain;
mod files;
mod fingerprint;
mod front;
mod plain;
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

/// The crypto provider, always passed explicitly: a process-wide default might not be installed.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
