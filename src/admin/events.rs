//! Everything that changes, as one stream: what the live page stands on.

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
use crate::config::Config;
use crate::core::domain::credential::ApiKey;
use crate::job::Job;
use crate::ledger::JobId;
use crate::proxy::request::Peer;
use crate::proxy::streams;
use crate::respond::{self, Body, BoxError};

/// How often what has changed is sent, at most.
const MIN_INTERVAL: Duration = Duration::from_millis(500);
/// After how long a reader has to come again, and to say again who it is.
const MAX_DURATION: Duration = Duration::from_secs(60 * 60);
const KEEPALIVE: &[u8] = b": keepalive\n\n";
/// How long a browser waits before it comes again, in milliseconds.
const RETRY: &[u8] = b"retry: 1000\n\n";

/// The bridge as a whole.
#[derive(Serialize)]
struct BridgeObject<'a> {
    version: &'static str,
    /// Another one after a restart.
    instance: &'a str,
    started: &'a str,
    ready: bool,
    draining: bool,
    reasons: Vec<String>,
    /// Whether this reader may start and cancel.
    can_act: bool,
    /// Whether there is a token that anybody could have.
    has_token: bool,
}

/// One reader, and what it has been told.
struct AdminEvents {
    app: Arc<App>,
    caller: Caller,
    /// The token that was right when it came, and whether reading was free.
    access: (Option<ApiKey>, bool),
    ticks: Interval,
    began: Instant,
    /// When it was sent something last.
    last: Instant,
    /// The bridge closes: it ends what runs.
    closing: watch::Receiver<bool>,
    /// The connection is to end.
    leaving: watch::Receiver<bool>,
    sent: SentState,
}

#[derive(Default)]
struct SentState {
    bridge: Vec<u8>,
    /// The jobs that it has been told of, and not yet of their end.
    open: BTreeMap<JobId, (Arc<Job>, Vec<u8>)>,
    /// Those of which it needs to hear no more, as long as they are in memory.
    ended: HashSet<JobId>,
}

/// The stream of everything that changes, for `visitor`.
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

/// What decides who may read.
fn auth_settings(config: &Config) -> (Option<ApiKey>, bool) {
    (config.admin_token.clone(), config.admin_open_reads)
}

impl AdminEvents {
    /// What has changed, or a comment if nothing has for long. Nothing when the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.ticks.tick().await;
            let config = Arc::clone(&self.app.state().config);
            let mut out = self.changes();
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

    /// Whether the reader has to go: it may have to come again. It is told of the end of every job first, when
    /// the bridge ends it.
    fn is_over(&self, access: &(Option<ApiKey>, bool)) -> bool {
        let is_closed = *self.closing.borrow() && self.sent.open.is_empty();
        // The other side of it is there as long as the connection is.
        let leaves = *self.leaving.borrow() && !*self.closing.borrow() && !self.app.registry.is_draining();
        is_closed || leaves || self.access != *access || self.began.elapsed() >= MAX_DURATION
    }

    fn changes(&mut self) -> BytesMut {
        let mut out = BytesMut::new();
        self.push_bridge(&mut out);
        let jobs = self.app.registry.all();
        let sent = &mut self.sent;
        // Those that are not in memory any more need not be remembered either.
        let before = std::mem::take(&mut sent.ended);
        for job in jobs {
            if before.contains(&job.id) {
                sent.ended.insert(job.id);
            } else {
                sent.open.entry(job.id).or_insert_with(|| (job, Vec::new()));
            }
        }
        // In the order in which they began.
        sent.open.retain(|id, (job, before)| {
            // Asked before the record is looked at, so that an end that is told is the whole of it.
            let has_ended = job.log.has_ended();
            let object = jobs::object(&job.public_record());
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
            can_act: self.caller.is_operator,
            has_token: self.access.0.is_some(),
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
