//! `GET /jobs/{id}/events`: the stream of one job, from its first event, then live.

use http::request::Parts;
use http::{Response, StatusCode};

use super::{JobLookupError, find_record, parse_id};
use crate::app::App;
use crate::config::written;
use crate::core::domain::error_code::ErrorCode;
use crate::core::domain::kind::{SyncEndpoint, VmId};
use crate::core::http::query::{BridgeParameters, Query};
use crate::core::text::plain;
use crate::job::{EventSelection, Replay};
use crate::ledger::{Health, JobId, LedgerUnavailable, Record};
use crate::proxy::request::Peer;
use crate::proxy::streams::{invalid_query, last_event, unknown_parameter, with_job_header, without_chunks};
use crate::proxy::subscriber::{self, SubscriberOptions, WatcherGuard};
use crate::respond::{self, Body};
use crate::telemetry::{self, Surface};

/// Answers a request for the events of the job `id`.
pub(crate) async fn answer(app: &App, id: &str, request: &Parts, peer: &Peer) -> Response<Body> {
    if let Some(refused) = without_chunks(request.version) {
        return refused;
    }
    let query = match Query::parse_stream(request.uri.query().unwrap_or_default()) {
        Ok(query) => query,
        Err(invalid) => return invalid_query(&invalid),
    };
    if !query.backend_query.is_empty() || query.parameters.fresh || query.parameters.backend.is_some() {
        return unknown_parameter(
            "The stream of an existing job has only the parameters bridge.events=all, bridge.payload=1, and \
             bridge.last_event_id=ID or lastEventId=ID.",
        );
    }
    let BridgeParameters { all_events, payloads, .. } = query.parameters;
    let view = SubscriberOptions { ids: true, selection: EventSelection { all_events, payloads } };
    let id = match parse_id(id) {
        Ok(id) => id,
        Err(missing) => return missing.answer(app),
    };
    let last = last_event(&request.headers, &query.parameters).filter(|last| !last.is_empty());
    if let Some(response) = live(app, id, last.as_deref(), view, peer) {
        return response;
    }
    find_stored(app, id, last.as_deref(), view).await
}

/// Answers a request for all events of the job `id` from the ledger.
pub(crate) async fn answer_stored(app: &App, id: &str) -> Response<Body> {
    let selection = EventSelection { all_events: true, ..EventSelection::default() };
    match parse_id(id) {
        Ok(id) => find_stored(app, id, None, SubscriberOptions { ids: true, selection }).await,
        Err(missing) => missing.answer(app),
    }
}

async fn find_stored(app: &App, id: JobId, last: Option<&str>, view: SubscriberOptions) -> Response<Body> {
    match find_record(app, id).await {
        Ok(record) => stored(app, &record, last, view).await,
        Err(missing) => missing.answer(app),
    }
}

/// The stream of a job that is in memory.
fn live(
    app: &App,
    id: JobId,
    last: Option<&str>,
    view: SubscriberOptions,
    peer: &Peer,
) -> Option<Response<Body>> {
    let log = &app.registry.find(id)?.log;
    let seen = last.and_then(|last| sequence_of(id, last)).filter(|seen| Some(*seen) <= log.last());
    if seen.is_some() && log.has_ended() && seen == log.last() {
        return Some(respond::no_content());
    }
    let mut watching = app.registry.watch(id, seen.unwrap_or_default())?;
    let unknown = last.filter(|_| seen.is_none()).map(|last| notice(id, last));
    watching.notice = join_notices(unknown, watching.job.selection.notice(view.payloads()));
    // Not only once the job has started: the events before that are part of its log.
    let watcher = WatcherGuard::new(&watching.job, Surface::Admin, peer.stall.clone());
    let body = subscriber::live(watching, watcher, view, app.state().config.limits.heartbeat);
    Some(with_job_header(respond::stream(body), id))
}

/// The stream of a job that is only in the ledger.
async fn stored(app: &App, record: &Record, last: Option<&str>, view: SubscriberOptions) -> Response<Body> {
    let (registry, id) = (&app.registry, record.id);
    let after = last.and_then(|last| sequence_of(id, last));
    let mut rest = registry.stored(record, after.unwrap_or_default()).await;
    let mut notice = last.filter(|_| after.is_none()).map(|last| self::notice(id, last));
    if rest.is_none() && after.is_some() {
        rest = registry.stored(record, 0).await;
        notice = last.map(|last| self::notice(id, last));
    }
    match rest {
        Some((_, frames)) if frames.is_empty() => respond::no_content(),
        Some((missed, frames)) => {
            let notice = join_notices(notice, EventSelection::ledger_notice(view.payloads(), &frames));
            let endpoint = SyncEndpoint { kind: record.kind, vm: record.vm.map(VmId) };
            let state = app.state();
            let url = record.backend.to_string();
            let name = record.backend.known().and_then(|url| state.config.backend_name(url));
            let span = telemetry::job_span(id, name.unwrap_or(&url), endpoint);
            let body = subscriber::stored(record.kind, Replay { id, missed, frames, notice }, view, &span);
            with_job_header(respond::stream(body), id)
        }
        None => log_unavailable(app, id),
    }
}

/// Joins two notices.
fn join_notices(first: Option<String>, second: Option<String>) -> Option<String> {
    let notices: Vec<String> = [first, second].into_iter().flatten().collect();
    (!notices.is_empty()).then(|| notices.join(" "))
}

fn log_unavailable(app: &App, id: JobId) -> Response<Body> {
    if let Health::Unavailable(why) = &*app.registry.ledger().health().borrow() {
        return JobLookupError::Unavailable(LedgerUnavailable(why.clone())).answer(app);
    }
    let kept = written(app.state().config.limits.log_retention);
    let detail = format!(
        "The log of a job is kept for {kept} after its end (limits.log_retention). The record of the job is at \
         /jobs/{id}."
    );
    with_job_header(
        respond::error(StatusCode::GONE, ErrorCode::LogRemoved, "The log of this job was removed.", &detail),
        id,
    )
}

/// The sequence number of the event `last`, if it is an event of the job `id`.
fn sequence_of(id: JobId, last: &str) -> Option<u64> {
    let (job, number) = last.rsplit_once('.')?;
    let job: JobId = job.parse().ok()?;
    number.parse().ok().filter(|number| job == id && *number > 0)
}

fn notice(id: JobId, last: &str) -> String {
    let last = plain(last, 64);
    format!(
        "This stream starts at the first event of job {id}: event {last:?} is unknown here or is of another job."
    )
}
