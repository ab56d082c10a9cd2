//! `proxbox-bridge serve`: runs the bridge.

use anyhow::Context;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, Flags, environment};
use crate::server::{InheritedListeners, Server};
use crate::telemetry;

/// Run the bridge in front of one or more ProxBox backends.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge serve --config /etc/proxbox-bridge/proxbox-bridge.toml\n  \
    proxbox-bridge serve --backend http://127.0.0.1:8800 --listen 127.0.0.1:8810\n  \
    PROXBOX_BRIDGE_LOG=debug proxbox-bridge serve --backend http://127.0.0.1:8802")]
pub struct Args {
    #[command(flatten)]
    pub(super) flags: Flags,
}

/// Serves until SIGTERM or SIGINT, then drains. A second signal ends the drain.
///
/// # Errors
///
/// An invalid configuration, an address that cannot be bound, or a data directory that is not usable.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { flags } = args;
    let config = Config::load(&flags, environment())?;
    let [shutdown, hurry] = [super::termination(1), super::termination(2)];
    let shutdown = shutdown.context("cannot listen for signals")?;
    let hurry = hurry.context("cannot listen for signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    // Every stream needs two file descriptors, and the default limit of systems is low.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        telemetry::OpenFilesLimited { error: &error }.emit();
    }
    let names = std::env::var("LISTEN_FDNAMES").ok();
    let inherited = InheritedListeners::take(names.as_deref())?;
    let server =
        Server::bind_with(config, inherited).await?.reloading(move || Config::load(&flags, environment()));
    let reloader = server.reloader();
    let reloading = async {
        while hangup.recv().await.is_some() {
            let reloaded = reloader.reload().await.map_err(|error| error.to_string());
            let action =
                telemetry::AuditAction::Reload { error: reloaded.as_ref().err().map(String::as_str) };
            telemetry::Audited { user: Some("SIGHUP"), client: None, action }.emit();
        }
    };
    tokio::select! {
        () = server.run(shutdown, hurry) => {}
        () = reloading => {}
    }
    telemetry::BridgeStopped::Whole.emit();
    Ok(())
}
