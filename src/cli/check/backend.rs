//! One backend, from its name to what it can do.

use std::time::{Duration, SystemTime};

use super::certificate;
use super::report::{BackendReport, Line};
use super::verdict::{Check, Verdict};
use super::{connect, probe};
use crate::backend::Backend;
use crate::config::{self, Config};
use crate::core::domain::credential::ApiKey;
use crate::tls::{self, ServerFiles};

/// What is learned is kept at least this long, so that nothing is asked twice.
const KEPT: Duration = Duration::from_secs(60 * 60);

/// Asks the backend that `wanted` describes what it is and what it can do. `key` is tried where no other is
/// configured, and whichever it is, until it is refused.
pub(super) async fn examine(
    config: &Config,
    wanted: &config::Backend,
    key: Option<&ApiKey>,
) -> BackendReport {
    let mut report = BackendReport::new(wanted);
    let mut own = wanted.clone();
    own.limits.capabilities = KEPT;
    let backend = match Backend::new(own) {
        Ok(backend) => backend,
        Err(error) => {
            report.checks.push(Line::new(Check::Tls, Verdict::Misconfigured, error.to_string()));
            return report;
        }
    };
    report.checks.extend(client_certificate(wanted));
    if connect::reach(&backend, &mut report.checks).await {
        probe::ask(config, &backend, key, &mut report).await;
    }
    report
}

/// The certificate that the backend is shown.
fn client_certificate(wanted: &config::Backend) -> Option<Line> {
    let (certificate, key) = wanted.client_certificate.clone()?;
    let files = ServerFiles { certificate, key, client_ca: None };
    Some(match tls::certificate_of(&files) {
        Ok(certificate) => certificate::line(Check::ClientCertificate, &certificate, SystemTime::now()),
        Err(error) => Line::new(Check::ClientCertificate, Verdict::Misconfigured, error.to_string()),
    })
}
