//! `GET /events`: changes of the bridge and of jobs as one stream, for the live page.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::{Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::auth::Caller;
use super::health::Readiness;
use crate::admin::jobs;
use crate::app::App;
use crate::config::{AdminToken, Config};
use crate::job::Job;
use crate::ledger::JobId;
use crate::proxy::request::Peer;
use crate::proxy::streams;
use crate::respond::{self, Body, BoxError};

/// The minimum time between two batches of changes.
const MIN_INTERVAL: Duration = Duration::from_millis(500);
/// The longest stream. The client has to reconnect then, which authenticates it again.
const MAX_DURATION: Duration = Duration::from_secs(60 * 60);
const KEEPALIVE: &[u8] = b": keepalive\n\n";
/// The delay before a browser reconnects, in milliseconds.
const RETRY: &[u8] = b"retry: 1000\n\n";

/// The `bridge` event.
#[derive(Serialize)]
struct BridgeObject<'a> {
    version: &'static str,
    /// The id of the process: it changes with a restart.
    instance: &'a str,
    started: &'a str,
    ready: bool,
    draining: bool,
    reasons: Vec<String>,
    /// Whether this client may start and cancel jobs.
    can_act: bool,
    /// The name of the token of this client, if it presented one.
    user: Option<&'a str>,
    /// Whether a token is configured.
    has_token: bool,
}

/// The stream of one client, with the state that was sent.
struct AdminEvents {
    app: Arc<App>,
    caller: Caller,
    /// The tokens and `admin_open_reads` when the stream began.
    access: (Vec<AdminToken>, bool),
    ticks: Interval,
    began: Instant,
    /// When the last bytes were sent.
    last: Instant,
    /// Whether the bridge is closing: it ends running jobs.
    closing: watch::Receiver<bool>,
    /// Whether the connection is to be closed.
    leaving: watch::Receiver<bool>,
    sent: SentState,
}

#[derive(Default)]
struct SentState {
    bridge: Vec<u8>,
    /// The jobs whose end was not sent yet, with the object that was sent last.
    open: BTreeMap<JobId, (Arc<Job>, Vec<u8>)>,
    /// The jobs in memory whose end was sent.
    ended: HashSet<JobId>,
}

/// Answers `GET /events` for `caller`.
pub(super) fn answer(app: &Arc<App>, caller: Caller, version: Version, peer: &Peer) -> Response<Body> {
    if let Some(refused) = streams::without_chunks(version) {
        return refused;
    }
    let mut ticks = interval(MIN_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = app.registry.all().iter().filter(|job| job.log.has_ended()).map(|job| job.id).collect();
    let now = Instant::now();
    let feed = AdminEvents {
        caller,
        access: auth_settings(&app.state().config),
        ticks,
        began: now,
        last: now,
        closing: app.registry.closing(),
        leaving: peer.closing.clone(),
        sent: SentState { ended, ..SentState::default() },
        app: Arc::clone(app),
    };
    let first = stream::once(async { Bytes::from_static(RETRY) });
    let rest = stream::unfold(feed, |mut feed| async move { Some((feed.next().await?, feed)) });
    let frames = first.chain(rest).map(|bytes| Ok::<_, BoxError>(Frame::data(bytes)));
    respond::stream(StreamBody::new(frames).boxed_unsync())
}

/// The settings that decide on read access.
fn auth_settings(config: &Config) -> (Vec<AdminToken>, bool) {
    (config.admin_tokens.clone(), config.admin_open_reads)
}

impl AdminEvents {
    /// The next changes, or a heartbeat comment on an idle stream. `None` at the end of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.ticks.tick().await;
            let config = Arc::clone(&self.app.state().config);
            let mut out = self.changes(&config);
            if out.is_empty() && self.is_over(&auth_settings(&config)) {
                return None;
            }
            if out.is_empty() && self.last.elapsed() >= config.limits.heartbeat {
                out.put_slice(KEEPALIVE);
            }
            if !out.is_empty() {
                self.last = Instant::now();
                return Some(out.freeze());
            }
        }
    }

    /// Whether the stream ends. When the bridge closes, it ends after the end of every job was sent.
    fn is_over(&self, access: &(Vec<AdminToken>, bool)) -> bool {
        let is_closed = *self.closing.borrow() && self.sent.open.is_empty();
        // The sender lives as long as the connection.
        let leaves = *self.leaving.borrow() && !*self.closing.borrow() && !self.app.registry.is_draining();
        is_closed || leaves || self.access != *access || self.began.elapsed() >= MAX_DURATION
    }

    fn changes(&mut self, config: &Config) -> BytesMut {
        let mut out = BytesMut::new();
        self.push_bridge(&mut out);
        let jobs = self.app.registry.all();
        let sent = &mut self.sent;
        // Jobs that have left the memory are dropped from `ended`, too.
        let before = std::mem::take(&mut sent.ended);
        for job in jobs {
            if before.contains(&job.id) {
                sent.ended.insert(job.id);
            } else {
                sent.open.entry(job.id).or_insert_with(|| (job, Vec::new()));
            }
        }
        // In the order of their ids, which is that of their creation.
        sent.open.retain(|id, (job, before)| {
            // Read before the record, so that the record of an ended job is final.
            let has_ended = job.log.has_ended();
            let object = jobs::object(&job.public_record(), config);
            if *before != object {
                event("job", &object, &mut out);
                *before = object;
            }
            if has_ended {
                sent.ended.insert(*id);
            }
            !has_ended
        });
        out
    }

    fn push_bridge(&mut self, out: &mut BytesMut) {
        let Readiness { ready, draining, reasons, .. } = Readiness::new(&self.app);
        let object = BridgeObject {
            version: env!("CARGO_PKG_VERSION"),
            instance: &self.app.instance.id,
            started: &self.app.instance.started,
            ready,
            draining,
            reasons,
            can_act: self.caller.is_operator(),
            user: self.caller.name(),
            has_token: !self.access.0.is_empty(),
        };
        let object = serde_json::to_vec(&object).unwrap_or_default();
        if object != self.sent.bridge {
            event("bridge", &object, out);
            self.sent.bridge = object;
        }
    }
}

fn event(name: &str, data: &[u8], out: &mut BytesMut) {
    out.put_slice(b"event: ");
    out.put_slice(name.as_bytes());
    out.put_slice(b"\ndata: ");
    out.put_slice(data);
    out.put_slice(b"\n\n");
}
