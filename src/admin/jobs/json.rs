//! A job as JSON: NetBox's field names where the meaning is the same, and the bridge's own fields beside them.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::failed::left_out;
use super::log::LogEntry;
use crate::config::Config;
use crate::core::domain::channel::Channel;
use crate::core::domain::counts::Count;
use crate::core::domain::object::Object;
use crate::core::domain::outcome::{Cause, FailedObject, Outcome};
use crate::core::http::url::BackendUrl;
use crate::core::upstream::dialect::Dialect;
use crate::ledger::{JobEnd, Record, Stored, Timestamp};

/// A job. Times are RFC 3339 in UTC. Unknown values are `null`.
#[derive(Debug, Serialize)]
pub(super) struct JobObject<'a> {
    id: String,
    pub(super) url: String,
    name: String,
    status: &'static str,
    created: String,
    started: Option<String>,
    completed: Option<String>,
    user: Option<&'a str>,
    /// Empty if there is none, as in NetBox.
    error: &'a str,
    data: JobData<'a>,
    failed_total: u64,
    /// How many of these `/jobs/{id}/failed` does not have.
    failed_left_out: u64,
    unconfirmed_total: u64,
    kind: &'static str,
    vm: Option<u64>,
    backend: &'a Stored<BackendUrl>,
    /// `None` if no configured backend has this URL.
    backend_name: Option<&'a str>,
    channels: &'a [Stored<Channel>],
    dialect: Option<&'a Stored<Dialect>>,
    query: &'a str,
    who: RequesterObject<'a>,
    /// The user who cancelled it.
    cancelled_by: Option<&'a str>,
    outcome: Option<&'static str>,
    cause: Option<&'static str>,
    source: Option<&'static str>,
    step: Option<&'a str>,
    message: Option<&'a str>,
    duration_seconds: Option<f64>,
    first_frame_seconds: Option<f64>,
    frames_in: u64,
    bytes_in: u64,
    frames_out: u64,
    bytes_out: u64,
    watchers: u64,
    attaches: u64,
    updated: Option<String>,
    /// Only in the answer for a single job.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_entries: Option<Vec<LogEntry>>,
}

#[derive(Debug, Serialize)]
struct RequesterObject<'a> {
    fingerprint: Option<&'a str>,
    address: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct JobData<'a> {
    #[serde(serialize_with = "counts")]
    counts: &'a [(Object, Count)],
    failed_objects: &'a [FailedObject],
}

impl<'a> JobObject<'a> {
    /// The job with this record, without its log. Its backend has the name that it has in `config`.
    pub(super) fn new(record: &'a Record, config: &'a Config) -> Self {
        let Record { kind, vm, requester: who, progress, .. } = record;
        let end = record.end.as_ref();
        let failure = end.and_then(|end| end.failure.as_ref());
        let cause = end.and_then(|end| end.cause);
        let finished = end.map(|end| end.finished);
        let total = progress.counts.total();
        let duration = record.started.zip(finished).map(|(started, finished)| finished.since(started));
        let failed = end.map_or(&[] as &[_], |end| &end.failed_objects);
        Self {
            id: record.id.to_string(),
            url: format!("/jobs/{}", record.id),
            name: match vm {
                None => format!("Proxbox {} sync", kind.row().title),
                Some(vm) => format!("Proxbox {} sync (virtual machine {vm})", kind.row().title),
            },
            status: status(record),
            created: record.queued.to_string(),
            started: time(record.started),
            completed: time(finished),
            user: who.actor.as_deref(),
            error: failure.map_or("", |failure| &failure.detail),
            data: JobData { counts: &progress.counts.0, failed_objects: failed },
            failed_total: total.failed,
            failed_left_out: left_out(record),
            unconfirmed_total: total.unconfirmed,
            kind: kind.as_str(),
            vm: *vm,
            backend: &record.backend,
            backend_name: record.backend.known().and_then(|url| config.backend_name(url)),
            channels: &record.channels,
            dialect: record.dialect.as_ref(),
            query: &record.query,
            who: RequesterObject { fingerprint: who.fingerprint.as_deref(), address: who.address.as_deref() },
            cancelled_by: record.cancelled_by.as_deref(),
            outcome: end.map(|end| end.outcome.as_str()),
            cause: cause.map(Cause::as_str),
            source: cause.map(|cause| cause.source().as_str()),
            step: failure.map(|failure| failure.step.as_str()),
            message: failure.map(|failure| failure.error.as_str()),
            duration_seconds: duration.map(seconds),
            first_frame_seconds: progress.first_frame.map(seconds),
            frames_in: progress.frames_in,
            bytes_in: progress.bytes_in,
            frames_out: progress.frames_out,
            bytes_out: progress.bytes_out,
            watchers: progress.watchers,
            attaches: progress.attaches,
            updated: time(progress.updated),
            log_entries: None,
        }
    }

    /// Adds the log.
    pub(super) fn with_log(self, entries: Vec<LogEntry>) -> Self {
        Self { log_entries: Some(entries), ..self }
    }
}

/// NetBox's status of a job: `failed` if the sync ran and its result is a failure, `errored` if it did not run to its
/// end.
fn status(record: &Record) -> &'static str {
    match &record.end {
        None if record.started.is_none() => "pending",
        None => "running",
        Some(JobEnd { outcome: Outcome::Completed, .. }) => "completed",
        Some(JobEnd { cause: Some(Cause::BackendFailed | Cause::ObjectsFailed), .. }) => "failed",
        Some(_) => "errored",
    }
}

fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}

/// Rounded to the millisecond, the precision of the ledger.
fn seconds(time: Duration) -> f64 {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

/// In the order in which the backend reported them.
fn counts<S: Serializer>(counts: &[(Object, Count)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counts.iter().map(|(object, count)| (object.as_str(), count)))
}
