//! The certificate that clients are shown, read again when its files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;

use crate::telemetry;
use crate::tls::{self, ServerFiles, TlsError};

/// What TLS connections of clients begin with, or nothing where clients are served without TLS.
pub(super) type Current = Arc<ArcSwapOption<ServerConfig>>;

/// The certificate, and the files that it is from.
#[derive(Debug)]
pub(super) struct Certificate {
    files: Option<ServerFiles>,
    /// When each of them was changed last.
    changed: Vec<Option<SystemTime>>,
    current: Current,
}

impl Certificate {
    /// Reads `files`.
    pub(super) fn load(files: Option<&ServerFiles>) -> Result<Self, TlsError> {
        let changed = changed(files);
        let config = files.map(tls::server).transpose()?;
        Ok(Self { files: files.cloned(), changed, current: Arc::new(ArcSwapOption::new(config)) })
    }

    pub(super) fn current(&self) -> Current {
        Arc::clone(&self.current)
    }

    /// Takes over what `newer` has. Connections that are there keep what they have.
    pub(super) fn replace(&mut self, newer: Self) {
        self.current.store(newer.current.load_full());
        self.files = newer.files;
        self.changed = newer.changed;
        self.tell();
    }

    /// Says until when the certificate may be shown.
    pub(super) fn tell(&self) {
        let shown = self.files.as_ref().and_then(|files| tls::certificate_of(files).ok());
        let ends = shown.and_then(|shown| shown.not_after.duration_since(UNIX_EPOCH).ok());
        telemetry::CertificateShown { ends: ends.map(|ends| ends.as_secs()) }.emit();
    }

    /// Reads the files again if they have changed. What cannot be used is told of once, and changes nothing.
    pub(super) fn look(&mut self) {
        let now = changed(self.files.as_ref());
        if now == self.changed {
            return;
        }
        self.changed = now;
        let read = self.files.as_ref().map(tls::server).transpose();
        let error = match read {
            Ok(config) => {
                self.current.store(config);
                self.tell();
                None
            }
            Err(error) => Some(error.to_string()),
        };
        telemetry::CertificateRead { error }.emit();
    }
}

fn changed(files: Option<&ServerFiles>) -> Vec<Option<SystemTime>> {
    let Some(ServerFiles { certificate, key, client_ca }) = files else { return Vec::new() };
    let paths = [Some(certificate), Some(key), client_ca.as_ref()];
    let changed = |path: &PathBuf| modified(path);
    paths.into_iter().map(|path| path.and_then(changed)).collect()
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
