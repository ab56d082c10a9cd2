//! The certificate that clients are shown, read again when its files change.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;

use crate::telemetry::{self, Validity};
use crate::tls::{self, Contents, ServerFiles, TlsError};

/// What TLS connections of clients begin with, or nothing where clients are served without TLS.
pub(super) type Current = Arc<ArcSwapOption<ServerConfig>>;

/// The certificate, and the files that it is from.
#[derive(Debug)]
pub(super) struct Certificate {
    files: Option<ServerFiles>,
    /// What they held when they were read last.
    contents: Contents,
    /// What connections begin with.
    current: Current,
    /// When the certificate is valid.
    period: Option<Period>,
    /// What was logged of its validity last.
    logged: Option<Validity>,
}

/// The first and the last moment at which a certificate is valid.
#[derive(Clone, Copy, Debug)]
struct Period {
    not_before: SystemTime,
    not_after: SystemTime,
}

/// What files held that had changed.
#[derive(Debug)]
pub(super) struct Reread {
    before: Contents,
    now: Contents,
    read: Result<(Arc<ServerConfig>, Option<Period>), TlsError>,
}

impl Certificate {
    /// Reads `files`, and blocks.
    pub(super) fn load(files: Option<&ServerFiles>) -> Result<Self, TlsError> {
        // Before the files are used: a change in between is seen the next time.
        let contents = files.map(Contents::of_server).unwrap_or_default();
        let (config, period) = match files.map(read).transpose()? {
            Some((config, period)) => (Some(config), period),
            None => (None, None),
        };
        let current = Arc::new(ArcSwapOption::new(config));
        Ok(Self { files: files.cloned(), contents, current, period, logged: None })
    }

    pub(super) fn current(&self) -> Current {
        Arc::clone(&self.current)
    }

    /// Takes over what `newer` has. Connections that are there keep what they have.
    pub(super) fn replace(&mut self, newer: Self) {
        self.current.store(newer.current.load_full());
        let current = self.current();
        *self = Self { current, ..newer };
        self.log_validity(SystemTime::now());
    }

    /// Logs until when the certificate may be shown, if it is another one than before, or has expired since.
    pub(super) fn log_validity(&mut self, now: SystemTime) {
        let validity = match self.period {
            Some(period) if now < period.not_before => Validity::NotYet,
            Some(period) if now > period.not_after => Validity::Expired,
            _ => Validity::Valid,
        };
        if self.logged.replace(validity) != Some(validity) {
            let ends = self.period.and_then(|period| period.not_after.duration_since(UNIX_EPOCH).ok());
            telemetry::CertificateShown { ends: ends.map(|ends| ends.as_secs()), validity }.emit();
        }
    }

    /// What reads its files again if they have changed. That blocks, and is for another thread.
    pub(super) fn rereading(&self) -> impl FnOnce() -> Option<Reread> + Send + use<> {
        let (files, before) = (self.files.clone(), self.contents.clone());
        move || {
            let files = files?;
            let now = Contents::of_server(&files);
            if now == before {
                return None;
            }
            let read = read(&files);
            Some(Reread { before, now, read })
        }
    }

    /// Uses what was read from now on. What cannot be used is logged once, and changes nothing.
    pub(super) fn take(&mut self, Reread { before, now, read }: Reread) {
        if self.contents != before {
            // The configuration was read again meanwhile, and these files with it.
            return;
        }
        self.contents = now;
        let error = match read {
            Ok((config, period)) => {
                self.current.store(Some(config));
                self.period = period;
                self.logged = None;
                None
            }
            Err(error) => Some(error.to_string()),
        };
        telemetry::CertificateRead { error }.emit();
    }
}

fn read(files: &ServerFiles) -> Result<(Arc<ServerConfig>, Option<Period>), TlsError> {
    let config = tls::server(files)?;
    let shown = tls::certificate_of(files).ok();
    let period = shown.map(|shown| Period { not_before: shown.not_before, not_after: shown.not_after });
    Ok((config, period))
}
