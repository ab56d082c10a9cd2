//! The subcommands of `proxbox-bridge`.

pub mod check;
pub mod counts;
pub mod health;
pub mod replay;
pub mod serve;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

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

/// Writes `text` and the end of its line to standard output. A reader that has seen enough, such as `head`, closes the
/// pipe, which is no failure.
///
/// # Errors
///
/// If it cannot be written for another reason.
fn print(text: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    match writeln!(output, "{}", text.trim_end()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// The exit code for an error of [`Cli::run`].
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_configuration = error.is::<config::ConfigError>()
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

/// The runtime that a subcommand runs in.
///
/// # Errors
///
/// If the system does not let it have its threads.
pub fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().thread_name(THREAD).thread_keep_alive(KEEP_ALIVE).build()
}

/// What its threads are called.
const THREAD: &str = "bridge-worker";
/// How long a thread for blocking work is kept without any. Idle threads take turns, so that a steady load of short
/// work keeps as many as it has work in this time.
const KEEP_ALIVE: Duration = Duration::from_millis(100);

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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, Barrier};
    use std::time::{Duration, Instant};

    use super::*;

    /// How many threads of the runtime there are in this process, by their name.
    fn threads() -> usize {
        let names = fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
            // One may have ended since it was listed.
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
        // tokio would keep them for 10 s.
        let began = Instant::now();
        while threads() > workers + WORK / 2 {
            assert!(began.elapsed() < Duration::from_secs(5), "{} of {workers}", threads());
            std::thread::yield_now();
        }
    }
}
