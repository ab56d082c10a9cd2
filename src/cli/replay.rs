//! `proxbox-bridge replay`: a fake backend that serves recordings.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use tracing::info;

use crate::replay::{Library, ReplayOptions, ReplayServer};

/// Serve recorded streams as the backend did when they were recorded.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge replay fixtures/recordings/0.0.11.post2\n  \
    proxbox-bridge replay fixtures/recordings/0.0.2.post1 --listen 127.0.0.1:8802 --speed max")]
pub struct Args {
    /// The folder with the recordings of one backend version, such as fixtures/recordings/0.0.11.post2
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Address to listen on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,

    /// Serve this recording instead of the default one, such as fail/ws-proxmox-down (repeatable)
    #[arg(long = "use", value_name = "NAME")]
    uses: Vec<String>,

    #[command(flatten)]
    options: ReplayOptions,
}

/// Serves until SIGTERM or SIGINT (Ctrl-C).
///
/// # Errors
/// The recordings cannot be read, or the address cannot be bound.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { dir, listen, uses, options } = args;
    let library = Library::load(&dir, &uses)?;
    let version = library.version().to_owned();
    for line in library.served() {
        info!("{line}");
    }
    let speed = options.speed;
    let termination = super::termination(1).context("cannot listen for signals")?;
    let server = ReplayServer::bind(listen, library, options)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    info!(address = %server.local_addr(), backend = version, %speed, "Listening.");
    server.run(termination).await;
    Ok(())
}
