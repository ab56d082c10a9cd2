//! The interfaces of operators: metrics, health, the log, the event stream, and access control.

mod access;
mod audit;
mod feed;
mod freshness;
mod health;
mod jobs;
mod log;
mod metrics;
mod netbox;
mod secrets;
mod secrets_netbox;
mod stalls;

use std::net::SocketAddr;
use std::path::Path;

use crate::support::bridge::{Answer, Client, poll_until};
use crate::support::process::Process;

const OLD: &str = "0.0.2.post1";
const TOKEN: &str = "operators-0123456789abcdef";

/// A bridge with a token in its own process, so that it has its own metrics.
struct RunningBridge {
    process: Process,
    _data: tempfile::TempDir,
}

impl RunningBridge {
    fn start(backend: SocketAddr, settings: &[(&str, &str)]) -> Self {
        Self::with_data(tempfile::tempdir().unwrap(), backend, settings)
    }

    /// A bridge on the data directory of an earlier one.
    fn with_data(data: tempfile::TempDir, backend: SocketAddr, settings: &[(&str, &str)]) -> Self {
        let token = data.path().join("token");
        std::fs::write(&token, TOKEN).unwrap();
        let settings = [settings, &[("admin_token_file", token.to_str().unwrap())]].concat();
        let process = Process::start(&ledger(data.path()), backend, &settings);
        Self { process, _data: data }
    }

    async fn get(&self, target: &str) -> Answer {
        Client::send(self.process.address, "GET", target, &[]).await.answer().await
    }

    async fn admin(&self, method: &str, target: &str) -> Answer {
        let token = format!("Bearer {TOKEN}");
        Client::send(self.process.admin, method, target, &[("Authorization", &token)]).await.answer().await
    }

    /// Stops it, and gives its log.
    fn ended(self) -> String {
        self.process.terminate();
        let (code, log) = self.process.ended();
        assert_eq!(code, Some(0), "{log}");
        log
    }

    /// The value of a series, whose name is given without `proxbox_bridge_`.
    async fn value(&self, series: &str) -> f64 {
        let metrics = self.admin("GET", "/metrics").await;
        let line = format!("proxbox_bridge_{series} ");
        let value = metrics.text().lines().find_map(|known| known.strip_prefix(&line));
        value.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
    }

    /// Waits until the series has this value.
    async fn wait_for_value(&self, series: &str, wanted: f64) {
        poll_until(async || (self.value(series).await == wanted).then_some(())).await;
    }
}

fn ledger(data: &Path) -> std::path::PathBuf {
    data.join("data")
}
