//! `proxbox-bridge replay`: a fake backend that serves recordings.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tracing::info;

use crate::recording::Recording;
use crate::replay::{Library, ReplayOptions, ReplayServer};

/// Serve recorded streams as the backend did when they were recorded.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge replay fixtures/recordings/0.0.11.post2\n  \
    proxbox-bridge replay fixtures/recordings/0.0.2.post1 --listen 127.0.0.1:8802 --speed max\n  \
    proxbox-bridge replay --check recorded")]
pub struct Args {
    /// The folder with the recordings of one backend version, such as fixtures/recordings/0.0.11.post2; with --check a
    /// recording, too
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Only check the recordings: print every violation of the format with its file and line. Exits with 1 if there is
    /// one
    #[arg(long)]
    check: bool,

    /// Address to listen on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,

    /// Serve this recording instead of the default one, such as fail/ws-proxmox-down (repeatable)
    #[arg(long = "use", value_name = "NAME")]
    uses: Vec<String>,

    #[command(flatten)]
    options: ReplayOptions,
}

/// Serves until SIGTERM or SIGINT (Ctrl-C), or checks the recordings.
///
/// # Errors
/// The recordings cannot be read, or violate the format, or the address cannot be bound.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { dir, check: is_check, listen, uses, options } = args;
    if is_check {
        return check(&dir);
    }
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

/// Prints every violation of the format in the recording at `path`, or in those under it.
fn check(path: &Path) -> anyhow::Result<()> {
    let mut files = Vec::new();
    find_recordings(path, &mut files)?;
    files.sort();
    if files.is_empty() {
        bail!("no recordings in {}: files NAME.ndjson are expected", path.display());
    }
    let mut lines = Vec::new();
    for file in &files {
        if file.extension().is_some_and(|end| end == "part") {
            lines.push(format!(
                "{}: not complete: record was killed, or is running. Rename it to NAME.ndjson to check and serve what \
                 it has, or delete it",
                file.display()
            ));
            continue;
        }
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let problems = Recording::problems(&bytes);
        lines.extend(problems.iter().map(|problem| format!("{}:{problem}", file.display())));
    }
    if lines.is_empty() {
        return super::print(&format!("{} recordings are sound.", files.len()));
    }
    super::print(&lines.join("\n"))?;
    bail!("{} violations of the format in {} recordings", lines.len(), files.len());
}

/// Adds `path`, if it is a file, or the recordings in it and in its folders, unfinished ones included.
fn find_recordings(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in path.read_dir().with_context(|| format!("cannot read {}", path.display()))? {
        let path = entry?.path();
        if path.is_dir() || path.extension().is_some_and(|end| end == "ndjson" || end == "part") {
            find_recordings(&path, files)?;
        }
    }
    Ok(())
}
