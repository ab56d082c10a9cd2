//! The jobs API: list, show, cancel.
//!
//! A job is in memory while it runs and for `limits.replay` after that, and in the ledger from its start. The state in
//! memory is newer.

mod events;
mod failed;
mod json;
mod log;
pub(super) mod query;
mod recording;

use std::collections::HashSet;
use std::sync::Arc;

use http::header::LOCATION;
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::Requester;
use crate::app::App;
use crate::config::{Config, written};
use crate::core::domain::error_code::ErrorCode;
use crate::core::domain::refusal::Refusal;
use crate::job::Job;
use crate::ledger::{JobId, LedgerUnavailable, LoggedFrame, Record, Timestamp};
use crate::proxy::streams::{bad_parameter, unknown_parameter, with_job_header};
use crate::respond::{self, Body};
use crate::telemetry::AuditAction;
use json::JobObject;
use query::{JobQuery, QueryError};

pub(super) use events::{answer as events, answer_stored as stored_events};
pub(super) use failed::answer as failed;
pub(super) use recording::answer as recording;

/// Why a job was not found.
enum JobLookupError {
    /// The path has no valid id.
    NotAnId,
    /// There is no such job, or its record was removed.
    Unknown(JobId),
    /// The job is not in memory and the ledger is unavailable.
    Unavailable(LedgerUnavailable),
}

/// The answer to `GET /jobs`.
#[derive(Serialize)]
struct JobList<'a> {
    next: Option<String>,
    results: Vec<JobObject<'a>>,
    /// Why the list may be incomplete.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// Answers `GET /jobs`: the jobs that match `query`, newest first.
pub(super) async fn list(app: &App, query: &str) -> Response<Body> {
    let state = app.state();
    let backends = &state.config.backends;
    let url = |name: &str| Some(backends.iter().find(|backend| backend.name == name)?.url.clone());
    let page = match JobQuery::parse(query, Timestamp::now(), url) {
        Ok(page) => page,
        Err(invalid) => return invalid_query(&invalid),
    };
    // The ledger is read before the memory, so that jobs that start or end in between are found in memory.
    let (mut records, warning) = match app.registry.ledger().jobs(page.filter()).await {
        Ok(records) => (records, None),
        Err(unavailable) => (Vec::new(), Some(format!("Only the jobs in memory are listed: {unavailable}."))),
    };
    let in_memory: Vec<Record> = app.registry.all().iter().map(|job| job.public_record()).collect();
    let newer: HashSet<JobId> = in_memory.iter().map(|record| record.id).collect();
    records.retain(|record| !newer.contains(&record.id));
    records.extend(in_memory.into_iter().filter(|record| page.matches(record)));
    records.sort_unstable_by_key(|record| std::cmp::Reverse(record.id));
    let next = page.next(&records);
    records.truncate(page.size);
    let results = records.iter().map(|record| JobObject::new(record, &state.config)).collect();
    respond::object(StatusCode::OK, &JobList { next, results, warning })
}

/// The response to an invalid query of this listener.
pub(super) fn invalid_query(invalid: &QueryError) -> Response<Body> {
    let detail = invalid.to_string();
    match invalid {
        QueryError::Unknown { .. } => unknown_parameter(&detail),
        QueryError::Twice(_) | QueryError::Value { .. } => bad_parameter(&detail),
    }
}

/// Answers `GET /jobs/{id}`: one job with its log.
pub(super) async fn get(app: &App, id: &str) -> Response<Body> {
    match record_with_log(app, id).await {
        Ok((record, entries)) => {
            respond::object(StatusCode::OK, &JobObject::new(&record, &app.state().config).with_log(entries))
        }
        Err(missing) => missing.answer(app),
    }
}

async fn record_with_log(app: &App, id: &str) -> Result<(Record, Vec<log::LogEntry>), JobLookupError> {
    let id = parse_id(id)?;
    if let Some(job) = app.registry.find(id) {
        // No more than the ledger keeps, so that the answer does not shrink later.
        let frames = job.log.tail(0, app.state().config.jobs.log_frames);
        return Ok((job.public_record(), log::entries(&frames)));
    }
    let record = find_record(app, id).await?;
    let frames = frames(app, &record).await?;
    Ok((record, log::entries(&frames)))
}

/// The log of a job from the ledger, with the final event that a crash prevented.
async fn frames(app: &App, record: &Record) -> Result<Vec<LoggedFrame>, JobLookupError> {
    if record.end.is_some()
        && let Some((_, frames)) = app.registry.stored(record, 0).await
    {
        return Ok(frames);
    }
    app.registry.ledger().frames(record.id).await.map_err(JobLookupError::Unavailable)
}

/// Answers `DELETE /jobs/{id}`: cancels a job.
pub(super) async fn cancel(app: &App, id: &str, requester: &Requester) -> Response<Body> {
    let id = match parse_id(id) {
        Ok(id) => id,
        Err(missing) => return missing.answer(app),
    };
    if let Some(job) = app.registry.find(id)
        && job.public_record().end.is_none()
        && !job.log.has_ended()
    {
        job.cancel(requester.user.as_deref());
        requester.audit(AuditAction::Cancel { job: id.to_string() });
        return accepted(app, &job);
    }
    let record = match find_record(app, id).await {
        Ok(record) => record,
        Err(missing) => return missing.answer(app),
    };
    let how = record.end.map_or_else(
        || "This process does not run it.".to_owned(),
        |end| format!("It ended at {}: {}.", end.finished, end.outcome.as_str()),
    );
    with_job_header(
        respond::error(StatusCode::CONFLICT, ErrorCode::JobEnded, "This job has ended.", &how),
        id,
    )
}

/// Answers `DELETE /jobs/{id}/cooldown`: ends the cool-down of a job and releases its concurrency permit.
pub(super) async fn end_cooldown(app: &App, id: &str, requester: &Requester) -> Response<Body> {
    let id = match parse_id(id) {
        Ok(id) => id,
        Err(missing) => return missing.answer(app),
    };
    if app.registry.end_cooldown(id) {
        requester.audit(AuditAction::EndCooldown { job: id.to_string() });
        let detail = "The next sync may start, even if the backend is still working on this job.";
        return with_job_header(
            respond::message(StatusCode::OK, "The concurrency permit is released.", detail),
            id,
        );
    }
    if let Err(missing) = find_record(app, id).await {
        return missing.answer(app);
    }
    let detail = "The job is running or waiting, had no cool-down, or its cool-down has ended.";
    with_job_header(
        respond::error(
            StatusCode::CONFLICT,
            ErrorCode::NotCoolingDown,
            "This job is not cooling down.",
            detail,
        ),
        id,
    )
}

/// The answer 202 with the job.
pub(super) fn accepted(app: &App, job: &Arc<Job>) -> Response<Body> {
    let record = job.public_record();
    let state = app.state();
    let object = JobObject::new(&record, &state.config);
    let mut response = respond::object(StatusCode::ACCEPTED, &object);
    if let Ok(url) = HeaderValue::from_str(&state.config.admin_base_path.join(&object.url)) {
        response.headers_mut().insert(LOCATION, url);
    }
    with_job_header(response, job.id)
}

fn parse_id(id: &str) -> Result<JobId, JobLookupError> {
    id.parse().map_err(|_| JobLookupError::NotAnId)
}

/// The record of a job, in memory or in the ledger.
async fn find_record(app: &App, id: JobId) -> Result<Record, JobLookupError> {
    if let Some(job) = app.registry.find(id) {
        return Ok(job.public_record());
    }
    let record = app.registry.ledger().job(id).await.map_err(JobLookupError::Unavailable)?;
    record.ok_or(JobLookupError::Unknown(id))
}

impl JobLookupError {
    fn answer(self, app: &App) -> Response<Body> {
        match self {
            Self::NotAnId => respond::error(
                StatusCode::BAD_REQUEST,
                ErrorCode::InvalidJobId,
                "Invalid job id.",
                "The id of a job is a UUID; /jobs lists them.",
            ),
            Self::Unknown(id) => {
                let kept = written(app.state().config.limits.retention);
                let detail = format!("There is no job {id}. Records are kept for {kept} (limits.retention).");
                respond::error(StatusCode::NOT_FOUND, ErrorCode::UnknownJob, "Unknown job.", &detail)
            }
            Self::Unavailable(why) => {
                let retry_after = app.state().config.limits.retry_after.as_secs();
                respond::coded_refusal(&Refusal::no_record(&why.to_string(), retry_after))
            }
        }
    }
}

/// A job as JSON, without its log.
pub(super) fn object(record: &Record, config: &Config) -> Vec<u8> {
    // Serializing this type does not fail.
    serde_json::to_vec(&JobObject::new(record, config)).unwrap_or_default()
}
