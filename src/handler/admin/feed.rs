//! Everything that changes, as one stream: what the live page stands on.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::Response;
use http::Version;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::access::Visitor;
use super::health::Readiness;
use crate::handler::{Bridge, jobs, streams};
use crate::ledger::JobId;
use crate::respond::{self, Body, BoxError};

/// How often what has changed is sent, at most.
const PACE: Duration = Duration::from_millis(500);
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
    signed_in: bool,
    can_act: bool,
    /// Whether there is a token that anybody could have.
    has_token: bool,
}

/// What one reader has been told.
struct Feed {
    bridge: std::sync::Arc<Bridge>,
    visitor: Visitor,
    ticks: Interval,
    closing: watch::Receiver<bool>,
    told: Told,
    last: Instant,
}

#[derive(Default)]
struct Told {
    bridge: Vec<u8>,
    jobs: HashMap<JobId, Vec<u8>>,
    /// The jobs whose end was told, or was there before this reader.
    ended: HashSet<JobId>,
}

/// The stream of everything that changes, for `visitor`.
pub(super) fn answer(bridge: &std::sync::Arc<Bridge>, visitor: Visitor, version: Version) -> Response<Body> {
    if let Some(refused) = streams::without_chunks(version) {
        return refused;
    }
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = bridge.registry.known().iter().filter(|job| job.log.has_ended()).map(|job| job.id).collect();
    let feed = Feed {
        bridge: std::sync::Arc::clone(bridge),
        visitor,
        ticks,
        closing: bridge.registry.closing(),
        told: Told { ended, ..Told::default() },
        last: Instant::now(),
    };
    let first = stream::once(async { Ok(Frame::data(Bytes::from_static(RETRY))) });
    let frames = stream::unfold(feed, |mut feed| async move {
        let bytes = feed.next().await?;
        Some((Ok::<_, BoxError>(Frame::data(bytes)), feed))
    });
    respond::stream(StreamBody::new(futures::StreamExt::chain(first, frames)).boxed_unsync())
}

impl Feed {
    /// What has changed, or a comment if nothing has for long. Nothing when the bridge closes.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                biased;
                // Also when whoever could say it is gone.
                _ = self.closing.wait_for(|closing| *closing) => return None,
                _ = self.ticks.tick() => {}
            }
            let mut out = self.changes();
            if out.is_empty() && self.last.elapsed() >= self.bridge.state().config.limits.heartbeat {
                out.put_slice(KEEPALIVE);
            }
            if !out.is_empty() {
                self.last = Instant::now();
                return Some(out.freeze());
            }
        }
    }

    fn changes(&mut self) -> BytesMut {
        let mut out = BytesMut::new();
        let Self { bridge, visitor, told, .. } = self;
        let Readiness { ready, draining, reasons, .. } = Readiness::of(bridge);
        let (is_operator, now) = (visitor.is_operator, &bridge.instance);
        let object = BridgeObject {
            version: env!("CARGO_PKG_VERSION"),
            instance: &now.id,
            started: &now.started,
            ready,
            draining,
            reasons,
            signed_in: is_operator,
            can_act: is_operator,
            has_token: bridge.state().config.admin_token.is_some(),
        };
        let object = serde_json::to_vec(&object).unwrap_or_default();
        if object != told.bridge {
            event("bridge", &object, &mut out);
            told.bridge = object;
        }
        let known = bridge.registry.known();
        // In the order in which they began.
        for job in known.iter().rev().filter(|job| !told.ended.contains(&job.id)) {
            let record = job.record();
            let object = jobs::object(&record);
            if told.jobs.get(&job.id) != Some(&object) {
                event("job", &object, &mut out);
                told.jobs.insert(job.id, object);
            }
        }
        let ended = known.iter().filter(|job| job.log.has_ended() && told.jobs.contains_key(&job.id));
        let ended: Vec<JobId> = ended.map(|job| job.id).collect();
        for id in ended {
            // What is there now is what was told: nothing comes after the end.
            if known
                .iter()
                .any(|job| job.id == id && told.jobs.get(&id) == Some(&jobs::object(&job.record())))
            {
                told.jobs.remove(&id);
                told.ended.insert(id);
            }
        }
        let ids: HashSet<JobId> = known.iter().map(|job| job.id).collect();
        told.ended.retain(|id| ids.contains(id));
        told.jobs.retain(|id, _| ids.contains(id));
        out
    }
}

fn event(name: &str, data: &[u8], out: &mut BytesMut) {
    out.put_slice(b"event: ");
    out.put_slice(name.as_bytes());
    out.put_slice(b"\ndata: ");
    out.put_slice(data);
    out.put_slice(b"\n\n");
}
