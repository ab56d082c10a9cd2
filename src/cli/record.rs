//! `proxbox-bridge record`: runs the bridge, and records every exchange with the backend.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::config::{Config, Flags, environment};
use crate::record::{Summary, TrafficRecorder, anonymise};
use crate::server::Server;

/// Run the bridge in front of one backend, and record every exchange with it for `replay`, such as for a bug report.
/// Credentials are hidden.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge record --backend http://127.0.0.1:8800 --listen 127.0.0.1:8900 --out recorded\n  \
    proxbox-bridge record --config /etc/proxbox-bridge/proxbox-bridge.toml --out recorded --anonymise")]
pub struct Args {
    #[command(flatten)]
    pub(super) flags: Flags,

    /// New or empty folder for the recordings: one file for each exchange
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Replace the names of objects, hosts and users, IP addresses and MAC addresses
    #[arg(long)]
    anonymise: bool,
}

/// Serves until SIGTERM or SIGINT, then drains and completes the recordings. A second signal ends the drain.
///
/// # Errors
///
/// An invalid configuration, an address that cannot be bound, or recordings that could not be written.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { flags, out, anonymise: is_anonymous } = args;
    let config = Config::load(&flags, environment())?;
    if config.backends.len() != 1 {
        bail!(
            "a recording is of one backend, and {} are configured: name one with --backend",
            config.backends.len()
        );
    }
    let unusable = || format!("cannot record to {}", out.display());
    let mut recorder = TrafficRecorder::new(&out, config.secrets()).with_context(unusable)?;
    // Names are known when all exchanges have ended. Until then, recordings with the original names are elsewhere.
    let original =
        is_anonymous.then(tempfile::tempdir).transpose().context("cannot create a temporary folder")?;
    if let Some(original) = &original {
        recorder = TrafficRecorder::new(original.path(), config.secrets()).with_context(unusable)?;
    }
    let [shutdown, hurry] = [super::termination(1), super::termination(2)];
    let shutdown = shutdown.context("cannot listen for signals")?;
    let hurry = hurry.context("cannot listen for signals")?;
    let server = Server::bind(config).await?.observed_by(Arc::new(recorder.clone()));
    server.run(shutdown, hurry).await;
    let recorded = recorder.finish();
    if let Some(original) = original
        && let Err(error) = anonymise(original.path(), &out)
    {
        let original = original.keep();
        return Err(error).with_context(|| {
            format!("{}; the recordings with the original names are in {}", unusable(), original.display())
        });
    }
    // After a failure, the other recordings are complete.
    let Summary { http, websockets, release } = recorded.with_context(unusable)?;
    let release = release.map_or_else(|| "an unknown release".to_owned(), |release| release.to_string());
    let out = out.display();
    let [http, websockets] = [(http, "HTTP exchange"), (websockets, "WebSocket")]
        .map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }));
    super::print(&format!(
        "{http} and {websockets} with {release} recorded in {out}. Serve them with: proxbox-bridge replay {out}"
    ))
}
