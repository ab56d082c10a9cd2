//! The subcommands of `proxbox-bridge`.

mod bridge;
pub mod check;
pub mod config;
pub mod counts;
pub mod health;
pub mod jobs;
pub mod manual;
pub mod operate;
pub mod record;
pub mod replay;
pub mod serve;
pub mod sync;
pub mod version;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::config::{Config, ConfigError, Flags, environment};
use crate::core::text::log_format::LogFormat;
use crate::ledger;
use crate::server::{InheritError, OpenError, StartError};

/// A compatibility proxy in front of ProxBox backends of any release.
#[derive(Debug, Parser)]
#[command(name = NAME, version = version::VERSION, about, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The name of the program.
const NAME: &str = env!("CARGO_PKG_NAME");

const EXIT_CODES: &str = "Exit codes: 0 success, 1 failure, 64 invalid command line, 78 invalid configuration.\n\
                          PROXBOX_BRIDGE_LOG sets the log filter (info, debug, warn, …), and \
                          PROXBOX_BRIDGE_LOG_FORMAT the format of the log (text, json or logfmt).";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the bridge.
    Serve(serve::Args),
    /// Check the configuration, the backends and NetBox without changing anything.
    Check(check::Args),
    /// Show the configuration.
    Config(config::Args),
    /// Print which events the counts of a job come from.
    Counts(counts::Args),
    /// Check whether a running bridge is ready.
    Health(health::Args),
    /// Show, follow and cancel jobs, and export one for a bug report.
    Jobs(jobs::Args),
    /// Print or set the log filter of a running bridge.
    Log(operate::LogArgs),
    /// Make a running bridge read its configuration again.
    Reload(operate::ReloadArgs),
    /// Run the bridge, and record every exchange with the backend.
    Record(record::Args),
    /// Run a fake backend from recordings.
    Replay(replay::Args),
    /// Run a sync and follow it to its end.
    Sync(Box<sync::Args>),
    /// Print a script that completes the command line in a shell.
    Completions(manual::CompletionsArgs),
    /// Print the manual page, or write one page for each subcommand.
    Man(manual::ManArgs),
    /// Print the version of the program and its build.
    Version(version::Args),
}

/// `EX_USAGE` of `sysexits.h`.
pub const USAGE: u8 = 64;
/// `EX_CONFIG` of `sysexits.h`.
pub const CONFIG: u8 = 78;

impl Cli {
    /// The default filter of the log. Subcommands that print a report log errors only.
    pub const fn log_filter(&self) -> &'static str {
        match self.command {
            Command::Serve(_) | Command::Record(_) | Command::Replay(_) => "info",
            _ => "error",
        }
    }

    /// The configured format of the log.
    pub fn log_format(&self) -> Option<LogFormat> {
        let default = Flags::default();
        let flags = match &self.command {
            Command::Serve(args) => &args.flags,
            Command::Record(args) => &args.flags,
            _ => &default,
        };
        Config::log_format(flags, environment())
    }

    /// Runs the subcommand.
    ///
    /// # Errors
    ///
    /// Any error of the subcommand.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Check(args) => check::run(args).await,
            Command::Config(args) => config::run(&args),
            Command::Counts(args) => counts::run(&args),
            Command::Health(args) => health::run(args).await,
            Command::Jobs(args) => jobs::run(args).await,
            Command::Log(args) => operate::log(&args).await,
            Command::Reload(args) => operate::reload(&args).await,
            Command::Record(args) => record::run(args).await,
            Command::Replay(args) => replay::run(args).await,
            Command::Sync(args) => sync::run(*args).await,
            Command::Completions(args) => manual::completions(&args),
            Command::Man(args) => manual::man(&args),
            Command::Version(args) => version::run(&args),
        }
    }
}

/// Writes `text` and a line end to standard output. A closed pipe, as `head` leaves it, is not an error.
///
/// # Errors
///
/// Any other error of standard output.
fn print(text: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    match writeln!(output, "{}", text.trim_end()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Writes a line to standard error, beside an output that programs may read.
fn note(text: &str) {
    // Nobody reads it if it is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The exit code for an error of [`Cli::run`].
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if let Some(health::NotOk(state)) = error.downcast_ref() {
        return ExitCode::from(*state as u8);
    }
    if let Some(error) = error.downcast_ref::<sync::SyncError>() {
        return ExitCode::from(error.code());
    }
    let is_configuration = error.is::<ConfigError>()
        || error.downcast_ref().is_some_and(check::CheckError::is_configuration)
        || error.is::<InheritError>()
        || error.downcast_ref().is_some_and(|error| {
            matches!(
                error,
                StartError::Tls(_)
                    | StartError::Open(OpenError::Tls(_))
                    | StartError::OpenAdmin(_)
                    | StartError::DataDir(_)
                    | StartError::Ledger(ledger::LedgerOpenError::Newer { .. })
                    | StartError::UnusedSocket(_)
            )
        });
    if is_configuration { ExitCode::from(CONFIG) } else { ExitCode::FAILURE }
}

/// The Tokio runtime of a subcommand.
///
/// # Errors
///
/// If the system cannot create its threads.
pub fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().thread_name(THREAD).thread_keep_alive(KEEP_ALIVE).build()
}

/// The name of its threads.
const THREAD: &str = "bridge-worker";
/// How long an idle thread for blocking work is kept. Idle threads take turns, so a steady load of short work keeps as
/// many threads as it has work items in this time.
const KEEP_ALIVE: Duration = Duration::from_millis(100);

/// Completes after `times` signals to terminate: SIGTERM or SIGINT (Ctrl-C).
///
/// # Errors
///
/// If the signal handlers cannot be installed.
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, Barrier};
    use std::time::{Duration, Instant};

    use super::*;

    /// The number of threads of the runtime in this process, by name.
    fn threads() -> usize {
        let names = fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
            // A thread may have ended since it was listed.
            fs::read_to_string(task.ok()?.path().join("comm")).ok()
        });
        names.filter(|name| name.trim_end() == THREAD).count()
    }

    #[test]
    fn threads_for_blocking_work_go_when_there_is_none() {
        const WORK: usize = 40;

        let runtime = runtime().unwrap();
        let workers = runtime.metrics().num_workers();
        let all_at_once = Arc::new(Barrier::new(WORK + 1));
        for _ in 0..WORK {
            let all_at_once = Arc::clone(&all_at_once);
            runtime.spawn_blocking(move || all_at_once.wait());
        }
        all_at_once.wait();
        // Tokio's default keeps them for 10 s.
        let began = Instant::now();
        while threads() > workers + WORK / 2 {
            assert!(began.elapsed() < Duration::from_secs(5), "{} of {workers}", threads());
            std::thread::yield_now();
        }
    }
}
