//! The stream of one job, whoever started it: from its first event on, and live.

use http::request::Parts;
use http::{Response, StatusCode};

use super::{Missing, parsed, recorded};
use crate::app::App;
use crate::core::domain::kind::{Endpoint, VmId};
use crate::core::http::query::Query;
use crate::core::text::plain;
use crate::job::Kept;
use crate::ledger::{Health, JobId, Record, Unavailable};
use crate::proxy::request::Peer;
use crate::proxy::streams::{last_event, of_job, unknown_parameter, without_chunks};
use crate::proxy::subscriber::{self, Attendance, View};
use crate::respond::{self, Body};
use crate::telemetry::{self, Surface};

/// Answers a request for the events of the job `id`.
pub(crate) async fn answer(app: &App, id: &str, request: &Parts, peer: &Peer) -> Response<Body> {
    if let Some(refused) = without_chunks(request.version) {
        return refused;
    }
    let query = match Query::parse(request.uri.query().unwrap_or_default()) {
        Ok(query) => query,
        Err(bad) => return unknown_parameter(&bad.to_string()),
    };
    if !query.backend.is_empty() || query.bridge.fresh || query.bridge.backend.is_some() {
        return unknown_parameter(
            "The events of a job are what they are. bridge.events=all, bridge.payload=1 and \
             bridge.last_event_id=ID say which of them are given.",
        );
    }
    let view = View { ids: true, all_events: query.bridge.all_events, payloads: query.bridge.payloads };
    let id = match parsed(id) {
        Ok(id) => id,
        Err(missing) => return missing.answer(app),
    };
    let last = last_event(&request.headers, &query.bridge).filter(|last| !last.is_empty());
    if let Some(response) = live(app, id, last.as_deref(), view, peer) {
        return response;
    }
    match recorded(app, id).await {
        Ok(record) => stored(app, &record, last.as_deref(), view).await,
        Err(missing) => missing.answer(app),
    }
}

/// The stream of a job that is in memory.
fn live(app: &App, id: JobId, last: Option<&str>, view: View, peer: &Peer) -> Option<Response<Body>> {
    let log = &app.registry.find(id)?.log;
    let seen = last.and_then(|last| number(id, last)).filter(|seen| Some(*seen) <= log.last());
    if seen.is_some() && log.has_ended() && seen == log.last() {
        return Some(respond::nothing());
    }
    let mut watching = app.registry.watch(id, seen.unwrap_or_default())?;
    let unknown = last.filter(|_| seen.is_none()).map(|last| notice(id, last));
    watching.notice = both(unknown, watching.job.kept.notice(view.payloads()));
    // Not when it has begun: what comes before that is a part of its log.
    let attendance = Attendance::new(&watching.job, Surface::Admin, peer.stuck.clone());
    let body = subscriber::live(watching, attendance, view, app.state().config.limits.heartbeat);
    Some(of_job(respond::stream(body), id))
}

/// The stream of a job that only the ledger knows.
async fn stored(app: &App, record: &Record, last: Option<&str>, view: View) -> Response<Body> {
    let (registry, id) = (&app.registry, record.id);
    let after = last.and_then(|last| number(id, last));
    let mut rest = registry.stored(record, after.unwrap_or_default()).await;
    let mut notice = last.filter(|_| after.is_none()).map(|last| self::notice(id, last));
    if rest.is_none() && after.is_some() {
        rest = registry.stored(record, 0).await;
        notice = last.map(|last| self::notice(id, last));
    }
    match rest {
        Some((_, frames)) if frames.is_empty() => respond::nothing(),
        Some((missed, frames)) => {
            let notice = both(notice, Kept::ledger_notice(view.payloads(), &frames));
            let endpoint = Endpoint { kind: record.kind, vm: record.vm.map(VmId) };
            let state = app.state();
            let name = state.backends.iter().find(|backend| backend.url().to_string() == record.backend);
            let name = name.map_or(record.backend.as_str(), |backend| &backend.config().name);
            let span = telemetry::job_span(id, name, endpoint);
            let body = subscriber::stored(record.kind, id, notice.as_deref(), missed, frames, view, &span);
            of_job(respond::stream(body), id)
        }
        None => no_log(app, id),
    }
}

/// Two notices as one.
fn both(first: Option<String>, second: Option<String>) -> Option<String> {
    let notices: Vec<String> = [first, second].into_iter().flatten().collect();
    (!notices.is_empty()).then(|| notices.join(" "))
}

fn no_log(app: &App, id: JobId) -> Response<Body> {
    if let Health::Unavailable(why) = &*app.registry.ledger().health().borrow() {
        return Missing::Unavailable(Unavailable(why.clone())).answer(app);
    }
    let kept = humantime::format_duration(app.state().config.limits.log_retention);
    let detail = format!(
        "The log of a job is kept for {kept} after its end (limits.log_retention). What became of it stands \
         in /jobs/{id}."
    );
    of_job(respond::said(StatusCode::GONE, "The log of this job is gone.", &detail), id)
}

/// The number of the event `last`, if it is one of the job `id`.
fn number(id: JobId, last: &str) -> Option<u64> {
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
