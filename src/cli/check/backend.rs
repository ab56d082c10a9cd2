//! The checks of one backend.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use super::certificate;
use super::report::{BackendReport, CheckLine};
use super::verdict::{CheckName, CheckVerdict};
use super::{connect, probe};
use crate::backend::Backend;
use crate::config::{self, Config};
use crate::core::domain::credential::ApiKey;
use crate::tls::{self, ServerFiles, Trust};

/// How long capabilities are cached, at least: long enough that nothing is requested twice.
const CAPABILITIES_TTL: Duration = Duration::from_secs(60 * 60);

/// Checks a backend. Uses `key` if none is configured. A key that is refused is not sent again.
pub(super) async fn check_backend(
    config: &Config,
    backend_config: &config::BackendConfig,
    key: Option<&ApiKey>,
) -> BackendReport {
    let (mut report, backend) = new_report(backend_config);
    let Some(backend) = backend else { return report };
    let unusable = netbox_file_lines(backend_config);
    report.checks.extend(unusable.filter(|line| line.verdict == CheckVerdict::Misconfigured));
    if connect::check_connection(config, &backend, &mut report.checks).await {
        probe::probe_backend(config, &backend, key, &mut report).await;
    }
    report
}

/// Checks the files for a backend, and that its URL is not that of the bridge itself, without a connection.
pub(super) fn check_files(config: &Config, backend_config: &config::BackendConfig) -> BackendReport {
    let (mut report, _) = new_report(backend_config);
    report.checks.extend(netbox_file_lines(backend_config));
    // Other names would have to be resolved.
    let host = match backend_config.url.host() {
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        host => host.parse::<IpAddr>().ok(),
    };
    let address = host.map(|host| SocketAddr::new(host, backend_config.url.port()));
    report.checks.extend(address.and_then(|address| connect::loop_line(config, address)));
    report.checks.push(CheckLine::skipped(CheckName::Root, "not connected (--offline)"));
    report
}

/// A report with the checks of the files for connections to a backend, and the backend, if they can be used.
fn new_report(backend_config: &config::BackendConfig) -> (BackendReport, Option<Backend>) {
    let mut report = BackendReport::new(backend_config);
    let mut own = backend_config.clone();
    own.limits.capabilities = CAPABILITIES_TTL;
    match Backend::new(own) {
        Ok(backend) => {
            report.checks.extend(client_certificate_line(backend_config));
            (report, Some(backend))
        }
        Err(error) => {
            report.checks.push(CheckLine::misconfigured(CheckName::Tls, &error));
            (report, None)
        }
    }
}

/// The lines on the files of the NetBox listener, and on those for connections to NetBox.
fn netbox_file_lines(backend_config: &config::BackendConfig) -> impl Iterator<Item = CheckLine> {
    let netbox = backend_config.netbox.as_ref();
    let certificate = netbox
        .and_then(|netbox| netbox.tls.as_ref())
        .map(|files| certificate::file_line(CheckName::NetboxListener, files));
    let unusable = netbox.and_then(|netbox| {
        // Without `backend.netbox_ca_file` or `backend.netbox_pin`, the plugin decides what is accepted.
        let trust = netbox.trust.as_ref().unwrap_or(&Trust::Insecure);
        let error = tls::client(trust, netbox.client_certificate.as_ref()).err()?;
        Some(CheckLine::misconfigured(CheckName::NetboxUrl, &error))
    });
    certificate.into_iter().chain(unusable)
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
