//! The sync streams.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream;
use http::header::{HeaderMap, HeaderName};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use tokio::time::timeout;
use uuid::Uuid;

use super::{Bridge, key_of};
use crate::backend::Identity;
use crate::config::Unsupported as WhenUnsupported;
use crate::core::capabilities::Capabilities;
use crate::core::credential::ApiKey;
use crate::core::kind::Endpoint;
use crate::core::normalizer::{self, Normalizer};
use crate::core::plan::{Plan, Unsupported, plan};
use crate::core::query::Query;
use crate::core::refusal::Refusal;
use crate::core::session::{Limits, Setup};
use crate::job::{Cursor, Job, Started, Work, start};
use crate::respond::{self, Body, BoxError};
use crate::telemetry;

/// Whose name is in the backend's records.
const ACTOR: HeaderName = HeaderName::from_static("x-proxbox-actor");
/// Whose failed attempts the backend counts.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// A client that sends it can take `id:` lines (R1).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Answers a request for the stream of `endpoint`.
pub async fn answer(bridge: &Bridge, endpoint: Endpoint, request: Request<Incoming>) -> Response<Body> {
    // HEAD must never start a sync; it is how capabilities are learned.
    if request.method() != Method::GET {
        return respond::only("GET");
    }
    // HTTP/1.0 has no chunks, and a body that ends with its connection is held back by readers (R5).
    if request.version() < Version::HTTP_11 {
        return respond::said(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "Streams need HTTP/1.1.",
            "A proxy in front of the bridge speaks HTTP/1.0 to it. In nginx: proxy_http_version 1.1.",
        );
    }
    let query = match Query::parse(request.uri().query().unwrap_or_default()) {
        Ok(query) => query,
        Err(bad) => return respond::said(StatusCode::BAD_REQUEST, "Unknown parameter.", &bad.to_string()),
    };
    let ids = query.bridge.ids || request.headers().contains_key(LAST_EVENT_ID);
    let mut stop = bridge.stop.clone();
    let begun = tokio::select! {
        begun = begin(bridge, endpoint, &query, request.headers()) => begun,
        _ = stop.wait_for(|stop| *stop) => Err(Refusal::stopping(bridge.config.limits.retry_after.as_secs())),
    };
    match begun {
        Ok(Begun::Running(job)) => {
            let cursor = job.log.watch();
            let watcher = Watcher { cursor, ids: ids.then(|| job.id.clone()), job };
            respond::stream(body(watcher, bridge.config.limits.heartbeat))
        }
        Ok(Begun::Skipped(frames)) => respond::stream(finished(frames)),
        Err(refusal) => {
            telemetry::Refused { path: request.uri().path(), refusal: &refusal }.emit();
            respond::refused(&refusal)
        }
    }
}

enum Begun {
    Running(Job),
    Skipped(Vec<Bytes>),
}

async fn begin(
    bridge: &Bridge,
    endpoint: Endpoint,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Begun, Refusal> {
    match attempt(bridge, endpoint, query, headers).await {
        // The backend is not the one that it was, and the job has forgotten what was known of it. A path that
        // is not there and a handshake that was refused have started nothing. (A single virtual machine may
        // really not be there.)
        Err(Refusal { status: 403..=405, .. }) if endpoint.vm.is_none() => {
            attempt(bridge, endpoint, query, headers).await
        }
        begun => begun,
    }
}

async fn attempt(
    bridge: &Bridge,
    endpoint: Endpoint,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Begun, Refusal> {
    let choice = bridge.config.backend.channel;
    let retry_after = bridge.config.limits.retry_after.as_secs();
    let key = bridge.config.backend.api_key.clone().or_else(|| key_of(headers));
    let identity = Identity { key, passed_on: passed_on(headers) };
    let known = bridge.backend.capabilities(endpoint, choice, &identity, retry_after).await?;
    if known.wants_key() == Some(true) && identity.key.is_none() {
        return Err(Refusal::key_missing());
    }
    let plan = match plan(endpoint, &known, choice) {
        Ok(plan) => plan,
        Err(unsupported) => return unsupported_kind(bridge, endpoint, unsupported, &identity).await,
    };
    let setup = setup(bridge, endpoint, plan, &known, query, identity.key.clone());
    let work = Work { setup, query: query.backend.clone(), identity, backend: bridge.backend.clone() };
    let (job, gate) = start(work, bridge.stop.clone());
    match gate.await {
        Ok(Started::Accepted) => Ok(Begun::Running(job)),
        Ok(Started::Refused(refusal)) => Err(refusal),
        // The job answers before it ends, in all of its ways.
        Err(_) => Err(Refusal::bad_backend("The job ended before it began.")),
    }
}

fn setup(
    bridge: &Bridge,
    endpoint: Endpoint,
    plan: Plan,
    known: &Capabilities,
    query: &Query,
    credential: Option<ApiKey>,
) -> Setup {
    let limits = &bridge.config.limits;
    Setup {
        endpoint,
        plan,
        options: normalizer::Options {
            object_failures: bridge.config.backend.object_failures,
            all_events: query.bridge.all_events,
            payloads: query.bridge.payloads,
        },
        limits: Limits {
            accept_wait: limits.accept_wait,
            response_head: limits.response_head,
            idle: limits.idle,
            total: limits.total,
            settle: limits.settle,
            retry_after: limits.retry_after.as_secs(),
            event_bytes: limits.event_bytes,
        },
        dialect: known.dialect(),
        credential,
        run_id: Uuid::now_v7().to_string(),
    }
}

/// The headers of the client that the backend keeps records and counts attempts by.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let names = [ACTOR, FORWARDED_FOR];
    names
        .into_iter()
        .filter_map(|name| headers.get(&name).map(|value| (name.clone(), value.clone())))
        .collect()
}

async fn unsupported_kind(
    bridge: &Bridge,
    endpoint: Endpoint,
    unsupported: Unsupported,
    identity: &Identity,
) -> Result<Begun, Refusal> {
    if bridge.config.backend.unsupported == WhenUnsupported::Skip {
        return Ok(Begun::Skipped(Normalizer::skipped(endpoint.kind)));
    }
    // The client is told what there is instead, and that takes more questions.
    let choice = bridge.config.backend.channel;
    let known = bridge.backend.all_capabilities(identity).await;
    let unsupported = known.and_then(|known| plan(endpoint, &known, choice).err()).unwrap_or(unsupported);
    Err(Refusal::unsupported(endpoint.kind, unsupported.to_string()))
}

/// A client that reads the log of a job. When it goes, the job goes.
struct Watcher {
    cursor: Cursor,
    /// The name of the job, for a client that wants ids.
    ids: Option<String>,
    #[allow(dead_code, reason = "held, so that the job lives as long as its watcher")]
    job: Job,
}

const KEEPALIVE: Bytes = Bytes::from_static(b": keepalive\n\n");

fn body(watcher: Watcher, heartbeat: Duration) -> Body {
    let frames = stream::unfold(watcher, move |mut watcher| async move {
        let bytes = match timeout(heartbeat, watcher.cursor.next()).await {
            Ok(Ok(Some((first, frames)))) => watcher.write(first, frames),
            Ok(Ok(None)) => return None,
            // No last chunk: a stream without its end must not look like one that has it (R10).
            Ok(Err(cut)) => return Some((Err(BoxError::from(cut)), watcher)),
            Err(_) => KEEPALIVE,
        };
        Some((Ok(Frame::data(bytes)), watcher))
    });
    StreamBody::new(frames).boxed_unsync()
}

impl Watcher {
    /// Whole frames in one piece; each with its id as its first line, if the client wants ids (R1).
    fn write(&self, first: usize, frames: Vec<Bytes>) -> Bytes {
        match (&self.ids, frames.as_slice()) {
            (None, [only]) => only.clone(),
            (ids, frames) => {
                let mut whole = BytesMut::new();
                for (index, frame) in frames.iter().enumerate() {
                    if let Some(job) = ids {
                        whole.extend_from_slice(format!("id: {job}.{}\n", first + index + 1).as_bytes());
                    }
                    whole.extend_from_slice(frame);
                }
                whole.freeze()
            }
        }
    }
}

/// A stream that was over before it began. It has no `Content-Length` (R5).
fn finished(frames: Vec<Bytes>) -> Body {
    let frames = stream::iter(frames.into_iter().map(|bytes| Ok::<_, BoxError>(Frame::data(bytes))));
    StreamBody::new(frames).boxed_unsync()
}
