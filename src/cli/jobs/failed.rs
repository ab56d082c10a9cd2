//! `proxbox-bridge jobs failed`.

use serde::Deserialize;

use super::super::bridge::BridgeArgs;
use super::super::{note, print};
use super::source::{JobSource, parameter};
use super::table::{add_row, cell, number, with_header};
use super::{DATA_DIR, FormatArgs, parse, table, text};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge jobs failed 01a22f78-e567 --group error\n  \
    proxbox-bridge jobs failed 01a22f78-e567 --csv > failed.csv")]
#[command(mut_arg("data_dir", |data_dir| data_dir.hide(false).help(DATA_DIR)))]
pub(super) struct Args {
    /// Its id
    job: String,
    #[command(flatten)]
    bridge: BridgeArgs,
    /// Count the objects by their error, the most frequent one first
    #[arg(long, value_name = "error", value_parser = ["error"])]
    group: Option<String>,
    /// The maximum number of rows, up to 200 [default: 50, with --csv all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Only what follows this number: the last one of the previous page, or with --group the number of errors on it
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    #[command(flatten)]
    format: FormatArgs,
}

/// The answer to `GET /jobs/{id}/failed`.
#[derive(Deserialize)]
struct FailedList {
    next: Option<String>,
    results: Vec<FailedRow>,
    #[serde(default)]
    failed_total: u64,
    #[serde(default)]
    warning: Option<String>,
}

/// A failed object, or a group of them.
#[derive(Default, Deserialize)]
#[serde(default)]
struct FailedRow {
    number: Option<u64>,
    object: Option<String>,
    name: Option<String>,
    cluster: Option<String>,
    owner: Option<String>,
    count: u64,
    error: String,
}

/// Prints the failed objects of a job.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let source = JobSource::open(&args.bridge).await?;
    let id = source.find_id(&args.job).await?;
    let one = |name: &str, value: Option<String>| value.map(|value| format!("{name}={}", parameter(&value)));
    let by_error = args.group.is_some();
    let query = [
        one("group", args.group),
        one("limit", args.limit.map(|limit| limit.to_string())),
        one("after", args.after.map(|after| after.to_string())),
        one("format", args.format.csv.then(|| "csv".to_owned())),
    ];
    let query: Vec<String> = query.into_iter().flatten().collect();
    let body = source.get(&format!("/jobs/{id}/failed?{}", query.join("&"))).await?;
    if args.format.json || args.format.csv {
        return print(&text(&body));
    }
    let FailedList { next, results, failed_total, warning } = parse(&body)?;
    let shown = results.len() as u64;
    if results.is_empty() {
        note("No failed object.");
    } else if by_error {
        let mut table = with_header(["Count", "Error"]);
        for row in &results {
            add_row(&mut table, vec![number(row.count), cell(&row.error)]);
        }
        print(&table::text(table))?;
    } else {
        let mut table = with_header(["No.", "Object", "Name", "Cluster", "Error"]);
        for row in &results {
            let name = [&row.owner, &row.name].into_iter().flatten().cloned().collect::<Vec<_>>().join(" / ");
            let text = |text: &Option<String>| cell(text.as_deref().unwrap_or_default());
            let name = if row.count > 1 { format!("{name} ({} objects)", row.count) } else { name };
            add_row(
                &mut table,
                vec![
                    row.number.map_or_else(|| cell(""), number),
                    text(&row.object),
                    cell(name.trim()),
                    text(&row.cluster),
                    cell(&row.error),
                ],
            );
        }
        print(&table::text(table))?;
    }
    if next.is_some() {
        let last = results.last().and_then(|row| row.number);
        let after = last.unwrap_or_else(|| args.after.unwrap_or_default() + shown);
        note(&format!(
            "There are more ({failed_total} failed objects): --after {after} shows the next rows, --csv all."
        ));
    }
    if let Some(warning) = warning {
        note(&warning);
    }
    Ok(())
}
