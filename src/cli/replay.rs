//! `proxbox-bridge replay`: a fake backend made of recordings.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use tracing::info;

use crate::replay::{Library, ReplayOptions, ReplayServer, Speed};

/// Serve recorded streams as the backend that they were recorded from did.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The folder with the recordings of one backend version, such as fixtures/recordings/0.0.11.post2
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,

    /// How fast: `recorded`, `max`, or a number such as 10 for ten times as fast
    #[arg(long, default_value_t = Speed::Recorded)]
    pub speed: Speed,

    /// Serve this recording in place of the usual one, such as fail/ws-proxmox-down (repeatable)
    #[arg(long = "use", value_name = "NAME")]
    pub uses: Vec<String>,

    /// The one right API key; without it any key is right
    #[arg(long, value_name = "KEY")]
    pub api_key: Option<String>,

    /// Drop the connection after so many frames of each exchange
    #[arg(long, value_name = "N")]
    pub cut_after: Option<u64>,

    /// Fall silent after so many frames of each exchange
    #[arg(long, value_name = "N")]
    pub stall_after: Option<u64>,

    /// Send garbage after so many frames of each exchange, and go on
    #[arg(long, value_name = "N")]
    pub garbage_after: Option<u64>,
}

/// Serves until ctrl-c or SIGTERM.
///
/// # Errors
/// The recordings cannot be read, or the address cannot be bound.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let library = Library::load(&args.dir, &args.uses)?;
    let version = library.version().to_owned();
    for line in library.served() {
        info!("{line}");
    }
    let options = ReplayOptions {
        speed: args.speed,
        api_key: args.api_key,
        cut_after: args.cut_after,
        stall_after: args.stall_after,
        garbage_after: args.garbage_after,
    };
    let termination = super::termination(1).context("cannot listen for signals")?;
    let server = ReplayServer::bind(args.listen, library, options)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    info!(address = %server.local_addr(), backend = version, speed = %args.speed, "Listening.");
    server.run(termination).await;
    Ok(())
}
