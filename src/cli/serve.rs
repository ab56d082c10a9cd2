//! `proxbox-bridge serve`: stand in front of a backend.

use anyhow::Context;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, Config, Flags, environment};
use crate::server::Server;
use crate::tls::Trust;

/// Stands in front of a ProxBox backend of any age, and answers its sync streams as readers want them.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: Flags,
}

/// Serves until the process is asked to end.
///
/// # Errors
///
/// A bad configuration, an address that cannot be bound, a data directory that cannot be used.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { flags } = args;
    let config = Config::load(&flags, environment())?;
    let [shutdown, hurry] = [super::termination(1), super::termination(2)];
    let shutdown = shutdown.context("cannot listen for signals")?;
    let hurry = hurry.context("cannot listen for signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    for backend in &config.backends {
        let config::Backend { name, url, channel, trust, .. } = backend;
        tracing::info!(backend = name, %url, %channel, "Standing in front of a backend.");
        if *trust == Trust::Insecure {
            tracing::warn!(
                backend = name,
                "The certificate of this backend is not checked (backend.insecure): whoever is between it and \
                 the bridge can read and change everything."
            );
        }
    }
    let server = Server::bind(config).await?.reloading(move || Config::load(&flags, environment()));
    let reloader = server.reloader();
    let reloading = async {
        while hangup.recv().await.is_some() {
            // Whatever comes of it is in the log.
            let _ = reloader.reload().await;
        }
    };
    tokio::select! {
        () = server.run(shutdown, hurry) => {}
        () = reloading => {}
    }
    tracing::info!("Stopped.");
    Ok(())
}
