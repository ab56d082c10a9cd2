//! `proxbox-bridge version`: the version of the program and its build.

use serde::Serialize;

use crate::core::domain::kind::KNOWN_RELEASES;
use crate::core::upstream::dialect::Dialect;
use crate::ledger;

/// The version with the commit and the date of the build.
pub const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILD_COMMIT"), " ", env!("BUILD_DATE"), ")");

/// Print the version of the program and its build.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge version\n  \
    proxbox-bridge version --json | jq -r .commit")]
pub struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The version of the program and its build.
#[derive(Debug, Serialize)]
pub(super) struct VersionInfo {
    version: &'static str,
    /// The commit that it was built from, or `unknown`.
    commit: &'static str,
    /// The date of that commit, or `unknown`.
    date: &'static str,
    target: &'static str,
    rustc: &'static str,
    /// The version of the tables of the ledger. An older bridge cannot open a newer ledger.
    ledger: i64,
    /// The first and the last release of the backend that it knows. A newer one is driven as the last.
    backends: [&'static str; 2],
    /// The dialects of `/ws` that it speaks, named after the first release of each.
    dialects: [&'static str; Dialect::NAMES.len()],
}

impl VersionInfo {
    /// That of this program.
    pub(super) const fn current() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: env!("BUILD_COMMIT"),
            date: env!("BUILD_DATE"),
            target: env!("BUILD_TARGET"),
            rustc: env!("BUILD_RUSTC"),
            ledger: ledger::VERSION,
            backends: KNOWN_RELEASES,
            dialects: Dialect::NAMES,
        }
    }
}

/// Prints the version.
///
/// # Errors
///
/// An error of standard output.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let info = VersionInfo::current();
    if args.json {
        return super::print(&serde_json::to_string_pretty(&info)?);
    }
    let VersionInfo { target, rustc, ledger, backends: [first, last], dialects, .. } = info;
    super::print(&format!(
        "proxbox-bridge {VERSION}\ntarget: {target}\nrustc: {rustc}\nledger: {ledger}\n\
         backends: {first} to {last}, newer ones as {last}\ndialects of /ws: {}",
        dialects.join(", ")
    ))
}
