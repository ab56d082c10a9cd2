//! Clients that resume with a `Last-Event-ID`.

use super::{Attached, Registry, Replay};
use crate::backend::BackendId;
use crate::core::domain::outcome::Cause;
use crate::core::run::normalizer::Normalizer;
use crate::core::wire::sse::frame::FrameName;
use crate::job::request::{EventSelection, JobKey, SyncRequest, fingerprint, scope};
use crate::ledger::{JobEnd, JobId, LoggedFrame, Record};

impl Registry {
    /// Resumes after the event `last`, if it belongs to a job that `request` is for. A request with another
    /// credential gets the same answer as for an unknown event.
    pub(in crate::job) async fn resume(
        &self,
        key: &JobKey,
        request: &SyncRequest,
        last: &str,
    ) -> Option<Attached> {
        let (id, sequence) = last.rsplit_once('.')?;
        let (id, sequence): (JobId, u64) = (id.parse().ok()?, sequence.parse().ok()?);
        let Some(job) = self.find(id) else { return self.replay(request, id, sequence).await };
        if !job.is_for(key, request.backend.id()) || job.log.last().is_none_or(|newest| sequence > newest) {
            return None;
        }
        if job.log.has_ended() && job.log.last() == Some(sequence) {
            return Some(Attached::Seen);
        }
        let mut watching = job.attach(sequence + 1);
        watching.notice = job.selection.notice(request.selection);
        Some(Attached::Watching(watching))
    }

    /// Replays the rest of a job that is only in the ledger.
    async fn replay(&self, request: &SyncRequest, id: JobId, sequence: u64) -> Option<Attached> {
        let record = self.ledger.job(id).await.ok()??;
        if !self.is_visible_to(&record, request) || record.end.is_none() || !was_on(&record, request).await {
            return None;
        }
        let (missed, frames) = self.stored(&record, sequence).await?;
        if frames.is_empty() {
            return Some(Attached::Seen);
        }
        let notice = EventSelection::ledger_notice(request.selection, &frames);
        Some(Attached::Replay(Replay { id, missed, frames, notice }))
    }

    fn is_visible_to(&self, record: &Record, request: &SyncRequest) -> bool {
        // The recorded query holds no secrets.
        let redactor = self.secrets.redactor_for(request);
        let scope = |query: &str| scope(&redactor.query(query));
        self.is_requested_by(record.requester.fingerprint.as_deref(), request)
            && record.kind == request.endpoint.kind
            && record.vm == request.endpoint.vm.map(|vm| vm.0)
            && scope(&record.query) == scope(&request.query)
    }

    /// Returns whether `recorded` is the fingerprint of the credential of `request`.
    fn is_requested_by(&self, recorded: Option<&str>, request: &SyncRequest) -> bool {
        match (recorded, &request.identity.key) {
            (None, None) => true,
            (Some(recorded), Some(key)) => {
                self.ledger.secrets().iter().any(|secret| fingerprint(secret, key) == recorded)
            }
            _ => false,
        }
    }

    /// The stored frames of an ended job after the number `after`, and how many of them are gone. `None` if no frame
    /// is left.
    pub async fn stored(&self, record: &Record, after: u64) -> Option<(u64, Vec<LoggedFrame>)> {
        let mut frames = self.ledger.frames(record.id).await.ok()?;
        for LoggedFrame { frame, .. } in &mut frames {
            frame.bytes = self.memory.hold(std::mem::take(&mut frame.bytes));
        }
        let end = record.end.as_ref()?;
        let newest = frames.last().map_or(0, |last| last.sequence);
        // A job that panicked has its final frame.
        let is_whole = frames.last().is_some_and(|last| last.frame.name == FrameName::Complete);
        let ending = match end.cause {
            _ if is_whole => Vec::new(),
            Some(Cause::Crashed) => final_frames(record, end),
            // The final frame is no longer stored, and a client must not get a stream without one (R10).
            _ => return None,
        };
        if ending.last().map_or(newest, |last| last.sequence) < after {
            return None;
        }
        frames.retain(|frame| frame.sequence > after);
        let missed = newest.saturating_sub(after) - frames.len() as u64;
        frames.extend(ending.into_iter().filter(|frame| frame.sequence > after));
        Some((missed, frames))
    }
}

/// Returns whether the job of `record` ran on the backend of `request`.
async fn was_on(record: &Record, request: &SyncRequest) -> bool {
    let Some(url) = record.backend.known() else { return false };
    let backend = BackendId::from_url(url.clone());
    // A backend that does not resolve is matched by its URL.
    let _ = backend.resolve().await;
    backend.is_at(request.backend.id())
}

/// The final frames written after a crash are numbered after this. Clients may have received frames that were never
/// stored, whose numbers follow the last stored one.
const UNSEEN: u64 = 1 << 62;

/// The final frames of a job that was interrupted by the end of the bridge.
fn final_frames(record: &Record, end: &JobEnd) -> Vec<LoggedFrame> {
    let frames = Normalizer::interrupted_frames(record.kind, end.failure.clone());
    let numbered = (UNSEEN + 1..).zip(frames);
    let logged = |(sequence, frame)| LoggedFrame { sequence, at: end.finished, frame }.without_payload();
    numbered.map(logged).collect()
}
