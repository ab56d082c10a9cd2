//! `proxbox-bridge jobs list`.

use clap::builder::PossibleValuesParser;

use super::super::bridge::BridgeArgs;
use super::super::{note, print};
use super::record::JobRecord;
use super::source::{JobSource, parameter};
use super::{DATA_DIR, FormatArgs, parse, table, text};
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::Outcome;
use crate::core::text::csv_field;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge jobs list --outcome errored --outcome timed_out --since 7days\n  \
    proxbox-bridge jobs list --failed --backend lab --csv > jobs.csv")]
#[command(mut_arg("backend", |backend| {
    backend.hide(false).value_name("NAME|URL").help("Only jobs on this backend: its name, or its URL")
}))]
#[command(mut_arg("data_dir", |data_dir| data_dir.hide(false).help(DATA_DIR)))]
pub(super) struct Args {
    #[command(flatten)]
    bridge: BridgeArgs,
    /// Only jobs of this kind, such as full-update
    #[arg(long, value_parser = PossibleValuesParser::new(Kind::all().map(Kind::as_str)), hide_possible_values = true)]
    kind: Option<String>,
    /// Only jobs with this outcome. May be repeated
    #[arg(long, value_parser = PossibleValuesParser::new(Outcome::ALL.map(Outcome::as_str)))]
    outcome: Vec<String>,
    /// Only jobs with failed objects, whatever their outcome, or with --failed=false only those without
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    failed: Option<bool>,
    /// Only jobs queued since then: a time such as 2026-11-24T15:16:46Z, or an age such as 1h
    #[arg(long, value_name = "TIME|AGE")]
    since: Option<String>,
    /// The maximum number of jobs, up to 200 [default: 50]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Only jobs older than this one, the last job of the previous page
    #[arg(long, value_name = "JOB")]
    before: Option<String>,
    #[command(flatten)]
    format: FormatArgs,
}

/// The answer to `GET /jobs`.
#[derive(serde::Deserialize)]
pub(super) struct JobList {
    next: Option<String>,
    pub(super) results: Vec<JobRecord>,
    #[serde(default)]
    warning: Option<String>,
}

/// Prints the jobs that match the filters.
pub(super) async fn run(mut args: Args) -> anyhow::Result<()> {
    let backend = args.bridge.take_backend();
    let source = JobSource::open(&args.bridge).await?;
    let before = match &args.before {
        Some(before) => Some(source.find_id(before).await?),
        None => None,
    };
    let one = |name: &str, value: Option<String>| value.map(|value| format!("{name}={}", parameter(&value)));
    let parts = [
        one("kind", args.kind),
        one("failed", args.failed.map(|failed| failed.to_string())),
        one("backend", backend),
        one("since", args.since),
        one("limit", args.limit.map(|limit| limit.to_string())),
        one("before", before),
    ];
    let outcomes = args.outcome.into_iter().filter_map(|outcome| one("outcome", Some(outcome)));
    let query: Vec<String> = parts.into_iter().flatten().chain(outcomes).collect();
    let body = source.get(&format!("/jobs?{}", query.join("&"))).await?;
    if args.format.json {
        return print(&text(&body));
    }
    let JobList { next, results, warning } = parse(&body)?;
    if let Some(warning) = warning {
        note(&warning);
    }
    let jobs: Vec<JobRecord> = results.into_iter().map(|job| source.shown(job)).collect();
    if args.format.csv {
        return print(&csv(&jobs));
    }
    if jobs.is_empty() {
        note("No job matches.");
        return Ok(());
    }
    print(&table::text(table::jobs(&jobs)))?;
    if let (Some(_), Some(last)) = (next, jobs.last()) {
        note(&format!("There are more: --before {} shows the next ones.", last.id));
    }
    Ok(())
}

/// `jobs` as comma-separated values.
pub(super) fn csv(jobs: &[JobRecord]) -> String {
    let mut out = "id,kind,vm,backend,backend_name,status,outcome,cause,created,started,completed,duration_seconds,user,seen,completed_objects,\
                   failed,unconfirmed,error\r\n"
        .to_owned();
    for job in jobs {
        let total = job.total();
        let option = |text: &Option<String>| text.clone().unwrap_or_default();
        let fields = [
            job.id.clone(),
            job.kind.clone(),
            job.vm.map(|vm| vm.to_string()).unwrap_or_default(),
            job.backend.clone(),
            option(&job.backend_name),
            job.status.clone(),
            option(&job.outcome),
            option(&job.cause),
            job.created.clone(),
            option(&job.started),
            option(&job.completed),
            job.duration_seconds.map(|seconds| seconds.to_string()).unwrap_or_default(),
            option(&job.user),
            total.seen.to_string(),
            total.completed.to_string(),
            job.failed_total.to_string(),
            job.unconfirmed_total.to_string(),
            job.error.clone(),
        ];
        out.push_str(&fields.map(|field| csv_field(&field)).join(","));
        out.push_str("\r\n");
    }
    out
}
