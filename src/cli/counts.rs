//! `proxbox-bridge counts`: the events that the counts of a job come from.

use std::fmt::Write as _;

use crate::core::domain::counting::{COUNTS_OBJECTS, CountSource};
use crate::core::domain::kind::Kind;
use crate::core::domain::release::Release;
use crate::core::upstream::dialect::Dialect;

/// Print, for each kind and release, which objects count as completed and which stay unconfirmed, with the reason.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge counts\n  \
    proxbox-bridge counts --release 0.0.6.post4")]
pub struct Args {
    /// Only for this release of the backend, such as 0.0.6.post4
    #[arg(long)]
    release: Option<Release>,
}

/// Prints the tables.
///
/// # Errors
///
/// An error of standard output.
pub fn run(args: &Args) -> anyhow::Result<()> {
    super::print(&tables(args.release))
}

/// Two Markdown tables: one for streams and plain answers, one for `/ws`.
pub fn tables(release: Option<Release>) -> String {
    let mut text = "| kind | releases | completed | unconfirmed |\n|---|---|---|---|\n".to_owned();
    let older = ("before 0.0.7, and unknown", None);
    let newer = ("0.0.7 and later", Some(COUNTS_OBJECTS));
    for kind in Kind::all().filter(|kind| kind.row().is_counted()) {
        let [then, now] = [older, newer].map(|(_, release)| CountSource::for_kind(kind, release));
        if then == now {
            row(&mut text, kind.as_str(), "all", now.explain());
            continue;
        }
        for (releases, first) in [older, newer] {
            let is_wanted = release.is_none_or(|release| {
                CountSource::for_kind(kind, first) == CountSource::for_kind(kind, Some(release))
            });
            if is_wanted {
                row(&mut text, kind.as_str(), releases, CountSource::for_kind(kind, first).explain());
            }
        }
    }
    text.push_str("\n| channel | releases | completed | unconfirmed |\n|---|---|---|---|\n");
    let sockets = [
        ("0.0.1", Dialect::V0_0_1),
        ("0.0.2", Dialect::V0_0_2),
        ("0.0.3", Dialect::V0_0_3),
        ("0.0.4 and later", Dialect::V0_0_4),
    ];
    let release = release.map(Dialect::for_release).map(CountSource::explain_socket);
    for (releases, dialect) in sockets {
        let explained = CountSource::explain_socket(dialect);
        if release.is_none_or(|release| release == explained) {
            row(&mut text, "websocket", releases, explained);
        }
    }
    text
}

fn row(text: &mut String, what: &str, releases: &str, (completed, unconfirmed): (&str, &str)) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "| {what} | {releases} | {completed} | {unconfirmed} |");
}
