//! The checks of one backend.

use std::time::{Duration, SystemTime};

use super::certificate;
use super::report::{BackendReport, CheckLine};
use super::verdict::CheckName;
use super::{connect, probe};
use crate::backend::Backend;
use crate::config::{self, Config};
use crate::core::domain::credential::ApiKey;
use crate::tls::{self, ServerFiles};

/// How long capabilities are cached, at least: long enough that nothing is requested twice.
const CAPABILITIES_TTL: Duration = Duration::from_secs(60 * 60);

/// Checks a backend. Uses `key` if none is configured. A key that is refused is not sent again.
pub(super) async fn check_backend(
    config: &Config,
    backend_config: &config::BackendConfig,
    key: Option<&ApiKey>,
) -> BackendReport {
    let mut report = BackendReport::new(backend_config);
    let mut own = backend_config.clone();
    own.limits.capabilities = CAPABILITIES_TTL;
    let backend = match Backend::new(own) {
        Ok(backend) => backend,
        Err(error) => {
            report.checks.push(CheckLine::misconfigured(CheckName::Tls, &error));
            return report;
        }
    };
    report.checks.extend(client_certificate_line(backend_config));
    if connect::check_connection(&backend, &mut report.checks).await {
        probe::probe_backend(config, &backend, key, &mut report).await;
    }
    report
}

/// The line on the client certificate for the backend.
fn client_certificate_line(backend_config: &config::BackendConfig) -> Option<CheckLine> {
    let (certificate, key) = backend_config.client_certificate.clone()?;
    let files = ServerFiles { certificate, key, client_ca: None };
    Some(match tls::read_certificate(&files) {
        Ok(certificate) => certificate::line(CheckName::ClientCertificate, &certificate, SystemTime::now()),
        Err(error) => CheckLine::misconfigured(CheckName::ClientCertificate, &error),
    })
}
