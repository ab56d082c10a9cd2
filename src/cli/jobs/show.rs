//! `proxbox-bridge jobs show`.

use std::time::SystemTime;

use comfy_table::{Color, Table};

use super::super::bridge::BridgeArgs;
use super::super::print;
use super::record::{JobRecord, LogEntry, readable_time};
use super::source::JobSource;
use super::table::{add_row, cell, keep_width, number, problem, state_color, with_header};
use super::{DATA_DIR, FormatArgs, list, parse, table, text};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge jobs show 01a22f78-e567\n  \
    proxbox-bridge jobs show 01a22f78-e567 --json | jq .data.counts")]
#[command(mut_arg("data_dir", |data_dir| data_dir.hide(false).help(DATA_DIR)))]
pub(super) struct Args {
    /// Its id
    job: String,
    #[command(flatten)]
    bridge: BridgeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// Prints a job and its log.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let source = JobSource::open(&args.bridge).await?;
    let id = source.find_id(&args.job).await?;
    let body = source.get(&format!("/jobs/{id}")).await?;
    if args.format.json {
        return print(&text(&body));
    }
    let job = source.shown(parse(&body)?);
    if args.format.csv {
        return print(&list::csv(&[job]));
    }
    let parts = [Some(fields(&job)), counts(&job), log(&job.log_entries)];
    print(&parts.into_iter().flatten().map(table::text).collect::<Vec<_>>().join("\n\n"))
}

/// The fields of a job, without those that are not set.
fn fields(job: &JobRecord) -> Table {
    let end = [&job.cause, &job.source].into_iter().flatten().cloned().collect::<Vec<_>>().join(", ");
    let backend = [job.backend_name.as_ref(), Some(&job.backend), job.dialect.as_ref()];
    let backend = backend.into_iter().flatten().chain(&job.channels);
    let user =
        [&job.user, &job.who.address].into_iter().flatten().cloned().collect::<Vec<_>>().join(", from ");
    let time = |time: &Option<String>| time.as_deref().map(readable_time).unwrap_or_default();
    let rows = [
        ("Job", job.id.clone()),
        ("Name", job.name.clone()),
        ("State", job.state().to_owned()),
        ("Cause", end),
        ("Backend", backend.cloned().collect::<Vec<_>>().join(", ")),
        ("Query", job.query.clone()),
        ("Created", format!("{} UTC", readable_time(&job.created))),
        ("Started", time(&job.started)),
        ("Completed", time(&job.completed)),
        ("Time", job.duration(SystemTime::now())),
        ("User", user),
        ("Cancelled by", job.cancelled_by.clone().unwrap_or_default()),
        ("Step", job.step.clone().unwrap_or_default()),
        ("Error", job.message.clone().unwrap_or_default()),
        ("Detail", job.error.clone()),
    ];
    let mut table = table::table();
    for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
        let shown = if name == "State" { cell(&value).fg(state_color(&value)) } else { cell(&value) };
        table.add_row(vec![cell(name), shown]);
    }
    keep_width(&mut table, &[0]);
    table
}

/// The counts of a job by object type.
fn counts(job: &JobRecord) -> Option<Table> {
    let counts = &job.data.counts.0;
    let mut table = with_header(["Objects", "Seen", "Completed", "Failed", "Unconfirmed"]);
    for (object, count) in counts {
        add_row(
            &mut table,
            vec![
                cell(object),
                number(count.seen),
                number(count.completed),
                problem(count.failed, Color::Red),
                problem(count.unconfirmed, Color::Yellow),
            ],
        );
    }
    (!counts.is_empty()).then_some(table)
}

/// The log of a job.
fn log(entries: &[LogEntry]) -> Option<Table> {
    let mut table = with_header(["Time (UTC)", "Level", "Message"]);
    for LogEntry { timestamp, level, message } in entries {
        let level = match level.as_str() {
            "failure" => cell(level).fg(Color::Red),
            "warning" => cell(level).fg(Color::Yellow),
            "success" => cell(level).fg(Color::Green),
            _ => cell(level),
        };
        let time = readable_time(timestamp);
        table.add_row(vec![cell(time.get(11..).unwrap_or(&time)), level, cell(message)]);
    }
    keep_width(&mut table, &[0, 1]);
    (!entries.is_empty()).then_some(table)
}
