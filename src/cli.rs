//! The subcommands of `proxbox-bridge`.

pub mod check;
pub mod counts;
pub mod health;
pub mod replay;
pub mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config;
use crate::ledger;
use crate::server::{InheritError, OpenError, StartError};

/// A compatibility proxy that stands in front of ProxBox backends of any age.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 64 not a command line that we understand, 78 bad \
                          configuration.\nPROXBOX_BRIDGE_LOG filters the log (info, debug, warn, …).";

#[derive(Debug, Subcommand)]
enum Command {
    /// Stand in front of a backend.
    Serve(serve::Args),
    /// Say what the bridge will do, and whether its backends let it.
    Check(check::Args),
    /// Say what the counts of a job come from.
    Counts(counts::Args),
    /// Ask a bridge that runs whether it can do its work.
    Health(health::Args),
    /// Be a backend that was recorded.
    Replay(replay::Args),
}

/// `EX_USAGE` of `sysexits.h`.
pub const USAGE: u8 = 64;
/// `EX_CONFIG` of `sysexits.h`.
pub const CONFIG: u8 = 78;

impl Cli {
    /// What the log is filtered by if nobody says otherwise: who asks a question wants its answer alone.
    pub const fn log_filter(&self) -> &'static str {
        match self.command {
            Command::Serve(_) | Command::Replay(_) => "info",
            Command::Check(_) | Command::Counts(_) | Command::Health(_) => "error",
        }
    }

    /// Runs the subcommand.
    ///
    /// # Errors
    ///
    /// Whatever ends it before it is done.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Check(args) => check::run(args).await,
            Command::Counts(args) => counts::run(&args),
            Command::Health(args) => health::run(args).await,
            Command::Replay(args) => replay::run(args).await,
        }
    }
}

/// The exit code for an error of [`Cli::run`].
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_configuration = error.is::<config::Error>()
        || error.downcast_ref().is_some_and(check::Failed::is_configuration)
        || error.is::<InheritError>()
        || error.downcast_ref().is_some_and(|error| {
            matches!(
                error,
                StartError::Tls(_)
                    | StartError::Open(OpenError::Tls(_))
                    | StartError::OpenAdmin(_)
                    | StartError::DataDir(_)
                    | StartError::Ledger(ledger::OpenError::Newer { .. })
                    | StartError::Unwanted(_)
            )
        });
    if is_configuration { ExitCode::from(CONFIG) } else { ExitCode::FAILURE }
}

/// Done when the process has been asked to end so many times: by SIGTERM, or by Ctrl-C.
///
/// # Errors
///
/// If the system does not let us listen for signals.
pub fn termination(times: usize) -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        for _ in 0..times {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
    })
}
