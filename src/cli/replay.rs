//! `proxbox-bridge replay`: a fake backend that serves recordings.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use tracing::info;

use crate::replay::{Library, ReplayOptions, ReplayServer, Speed};

/// Serve recorded streams as the backend did when they were recorded.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The folder with the recordings of one backend version, such as fixtures/recordings/0.0.11.post2
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// Address to listen on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,

    /// Speed: `recorded`, `max`, or a factor such as 10 for ten times as fast
    #[arg(long, default_value_t = Speed::Recorded)]
    pub speed: Speed,

    /// Serve this recording instead of the default one, such as fail/ws-proxmox-down (repeatable)
    #[arg(long = "use", value_name = "NAME")]
    pub uses: Vec<String>,

    /// The valid API key; if not given, every key is valid
    #[arg(long, value_name = "KEY")]
    pub api_key: Option<String>,

    /// Drop the connection after N frames of each exchange
    #[arg(long, value_name = "N")]
    pub cut_after: Option<u64>,

    /// Send nothing more after N frames of each exchange
    #[arg(long, value_name = "N")]
    pub stall_after: Option<u64>,

    /// Send garbage after N frames of each exchange, then continue
    #[arg(long, value_name = "N")]
    pub garbage_after: Option<u64>,
}

/// Serves until SIGTERM or SIGINT (Ctrl-C).
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
