//! `proxbox-bridge serve`: stand in front of a backend.

use anyhow::Context;

use crate::config::{Config, Flags, environment};
use crate::server::Server;

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
    let config = Config::load(&args.flags, environment())?;
    let [shutdown, hurry] = [super::termination(1), super::termination(2)];
    let shutdown = shutdown.context("cannot listen for signals")?;
    let hurry = hurry.context("cannot listen for signals")?;
    let url = config.backend.url.clone();
    let channel = config.backend.channel;
    let server = Server::bind(config).await?;
    tracing::info!(
        address = %server.address()?,
        admin_address = %server.admin_address()?,
        backend = %url,
        %channel,
        "Listening."
    );
    server.run(shutdown, hurry).await;
    tracing::info!("Stopped.");
    Ok(())
}
