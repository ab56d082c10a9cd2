//! The certificates of listeners, reloaded when their files change.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use futures::future::select_all;
use rustls::ServerConfig;

use super::files::{self, FileReader};
use super::role::ListenerRole;
use crate::app::ClientListener;
use crate::config::Config;
use crate::telemetry::{self, Validity};
use crate::tls::{self, Certificate, FileHashes, ServerFiles, TlsError};

/// The TLS configuration of a listener, or `None` for a listener without TLS.
pub(super) type CurrentConfig = Arc<ArcSwapOption<ServerConfig>>;

/// The certificates of all listeners that can have one.
#[derive(Debug)]
pub(super) struct Certificates(Vec<ServerCertificate>);

/// The certificate of a listener, and its files.
#[derive(Debug)]
struct ServerCertificate {
    /// Its listener. All client listeners share one certificate, that of [`CLIENTS`].
    owner: ListenerRole,
    files: Option<ServerFiles>,
    /// The hashes of the files when they were last read.
    contents: FileHashes,
    /// The configuration for new connections.
    current: CurrentConfig,
    certificate: Option<Certificate>,
    /// The validity that was logged last.
    logged: Option<Validity>,
    /// The thread that checks whether the files have changed.
    reader: FileReader<Option<CertificateReload>>,
}

/// The client listeners.
const CLIENTS: ListenerRole = ListenerRole::Clients(ClientListener::Shared);

/// Files that have changed, as they were read.
#[derive(Debug)]
struct CertificateReload {
    before: FileHashes,
    now: FileHashes,
    read: Result<(Arc<ServerConfig>, Option<Certificate>), TlsError>,
}

impl Certificates {
    /// Reads the files that `config` names. It blocks.
    pub(super) fn load(config: &Config) -> Result<Self, TlsError> {
        let netbox = config.backends.iter().filter_map(|backend| backend.netbox.as_ref());
        let netbox = netbox.map(|netbox| (ListenerRole::Netbox(netbox.listen), netbox.tls.as_ref()));
        let owners = [(CLIENTS, config.tls.as_ref())].into_iter().chain(netbox);
        owners.map(|(owner, files)| ServerCertificate::load(owner, files)).collect::<Result<_, _>>().map(Self)
    }

    /// The TLS configuration for `role`.
    pub(super) fn config_for(&self, role: ListenerRole) -> CurrentConfig {
        let owner = if let ListenerRole::Clients(_) = role { CLIENTS } else { role };
        let found = self.0.iter().find(|certificate| certificate.owner == owner);
        found.map(|certificate| Arc::clone(&certificate.current)).unwrap_or_default()
    }

    /// Replaces the certificates with those of `newer`. Open connections keep theirs.
    pub(super) fn replace(&mut self, newer: Self) {
        let mut before = std::mem::replace(&mut self.0, newer.0);
        for newer in &mut self.0 {
            if let Some(before) = before.iter_mut().find(|before| before.owner == newer.owner) {
                before.current.store(newer.current.load_full());
                newer.current = Arc::clone(&before.current);
                // The result of a running thread is outdated, and is dropped.
                newer.reader = std::mem::take(&mut before.reader);
            }
        }
        self.log_validity();
    }

    /// Logs the expiry of each certificate that has been replaced or has expired since the last call.
    pub(super) fn log_validity(&mut self) {
        for certificate in &mut self.0 {
            certificate.log_validity();
        }
    }

    /// Starts to check whether files have changed, on one thread per certificate: if the files of one hang, the
    /// others are still read.
    pub(super) fn look(&mut self) {
        self.log_validity();
        for certificate in self.0.iter_mut().filter(|certificate| certificate.reader.is_idle()) {
            let rereading = certificate.reload_task();
            certificate.reader.begin(rereading);
        }
    }

    /// Applies the result of the next thread to finish; pends forever if there is none. Cancel safe.
    pub(super) async fn looked(&mut self) {
        let reads = self.0.iter_mut().map(|certificate| Box::pin(certificate.reader.read()));
        let (read, at, _) = select_all(reads).await;
        let Some(certificate) = self.0.get_mut(at) else { return };
        match read {
            Ok(None) => {}
            Ok(Some(reread)) => {
                certificate.apply_reload(reread);
                certificate.log_validity();
            }
            Err(_) => {
                let owner = telemetry::FilesOf::Listener(certificate.owner.certificate_key());
                telemetry::CertificatesOverdue { owner, limit: files::READ_TIMEOUT }.emit();
            }
        }
    }
}

impl ServerCertificate {
    fn load(owner: ListenerRole, files: Option<&ServerFiles>) -> Result<Self, TlsError> {
        // Hashed before the files are loaded: a change in between is detected by the next check.
        let contents = files.map(FileHashes::for_server).unwrap_or_default();
        let (config, certificate) = files.map(read).transpose()?.unzip();
        let (current, certificate) = (Arc::new(ArcSwapOption::new(config)), certificate.flatten());
        let (files, reader) = (files.cloned(), FileReader::Idle);
        Ok(Self { owner, files, contents, current, certificate, logged: None, reader })
    }

    /// Logs the expiry of the certificate if it was replaced or has expired since the last call.
    fn log_validity(&mut self) {
        let now = SystemTime::now();
        let shown = self.certificate.as_ref();
        let validity = match shown {
            Some(shown) if now < shown.not_before => Validity::NotYet,
            Some(shown) if now > shown.not_after => Validity::Expired,
            _ => Validity::Valid,
        };
        if self.logged.replace(validity) != Some(validity) {
            let ends = shown.and_then(|shown| shown.not_after.duration_since(UNIX_EPOCH).ok());
            let (key, ends) = (self.owner.certificate_key(), ends.map(|ends| ends.as_secs()));
            telemetry::CertificateShown { key, ends, validity }.emit();
        }
    }

    /// A task that reads the files again if they have changed. It blocks, so it runs on another thread.
    fn reload_task(&self) -> impl FnOnce() -> Option<CertificateReload> + Send + use<> {
        let (files, before) = (self.files.clone(), self.contents.clone());
        move || {
            let files = files?;
            let now = FileHashes::for_server(&files);
            if now == before {
                return None;
            }
            let read = read(&files);
            Some(CertificateReload { before, now, read })
        }
    }

    /// Uses the files that were read. If they are not usable, that is logged once, and nothing changes.
    fn apply_reload(&mut self, CertificateReload { before, now, read }: CertificateReload) {
        if self.contents != before {
            // The configuration was reloaded meanwhile, including these files.
            return;
        }
        self.contents = now;
        let error = match read {
            Ok((config, certificate)) => {
                self.current.store(Some(config));
                self.certificate = certificate;
                self.logged = None;
                None
            }
            Err(error) => Some(error.to_string()),
        };
        telemetry::CertificateRead { key: self.owner.certificate_key(), error }.emit();
    }
}

fn read(files: &ServerFiles) -> Result<(Arc<ServerConfig>, Option<Certificate>), TlsError> {
    Ok((tls::server(files)?, tls::read_certificate(files).ok()))
}
