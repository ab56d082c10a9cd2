//! The `proxbox-bridge` command.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use proxbox_bridge::cli::{self, Cli};
use proxbox_bridge::config::LOG_VARIABLE;
use proxbox_bridge::core::text::printable;
use proxbox_bridge::telemetry::log;

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            if let Some(code) = cli::health::report_usage(&error, std::env::args_os()) {
                return code;
            }
            // This prints help and version, too. A closed pipe is not an error.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(cli::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let filter = std::env::var(LOG_VARIABLE);
    if let Err(error) = log::start(filter.as_deref().unwrap_or(cli.log_filter()), cli.log_format()) {
        let _ = writeln!(std::io::stderr(), "proxbox-bridge: {LOG_VARIABLE}: {error}");
        return ExitCode::from(cli::CONFIG);
    }
    let runtime = match cli::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let ran = runtime.block_on(cli.run());
    // Does not wait for tasks that a hung disk blocks.
    runtime.shutdown_background();
    log::finish();
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // The problems of a configuration are one a line.
    let text = format!("{error:#}").lines().map(printable).collect::<Vec<_>>().join("\n");
    let _ = writeln!(std::io::stderr(), "proxbox-bridge: {text}");
    cli::exit_code(error)
}
