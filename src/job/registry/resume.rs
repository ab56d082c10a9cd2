//! Clients that come back, and say what they have seen.

use super::{Attached, Registry};
use crate::backend::BackendId;
use crate::core::domain::outcome::Cause;
use crate::core::run::normalizer::Normalizer;
use crate::job::handle::EventSelection;
use crate::job::request::{JobKey, SyncRequest, fingerprint, scope};
use crate::ledger::{JobEnd, JobId, Record, StoredFrame};

impl Registry {
    /// What comes behind the event `last`, if it is one of a job that `request` is for. Whoever has another
    /// credential gets the same answer as for an event that never was.
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
        let mut watching = job.watch(sequence + 1, false);
        watching.notice = job.selection.notice(EventSelection::for_request(request));
        Some(Attached::Watching(watching))
    }

    /// The rest of a job that only the ledger knows.
    async fn replay(&self, request: &SyncRequest, id: JobId, sequence: u64) -> Option<Attached> {
        let record = self.ledger.job(id).await.ok()??;
        if !self.is_visible_to(&record, request) || record.end.is_none() || !was_on(&record, request).await {
            return None;
        }
        let (missed, frames) = self.stored(&record, sequence).await?;
        if frames.is_empty() {
            return Some(Attached::Seen);
        }
        let notice = EventSelection::ledger_notice(EventSelection::for_request(request), &frames);
        Some(Attached::Replay { id, missed, frames, notice })
    }

    fn is_visible_to(&self, record: &Record, request: &SyncRequest) -> bool {
        // A record has no secrets in its query.
        let redactor = self.secrets.redactor_for(request);
        let scope = |query: &str| scope(&redactor.query(query));
        self.is_requested_by(record.requester.fingerprint.as_deref(), request)
            && record.kind == request.endpoint.kind
            && record.vm == request.endpoint.vm.map(|vm| vm.0)
            && scope(&record.query) == scope(&request.query)
    }

    /// Whether `known` is the fingerprint of the credential of `request`.
    fn is_requested_by(&self, recorded: Option<&str>, request: &SyncRequest) -> bool {
        match (recorded, &request.identity.key) {
            (None, None) => true,
            (Some(recorded), Some(key)) => {
                self.ledger.secrets().iter().any(|secret| fingerprint(secret, key) == recorded)
            }
            _ => false,
        }
    }

    /// What the ledger has of the frames of a job that has ended, behind the one with the number `after`, to
    /// its end; and how many are gone. Nothing if it has none of them any more.
    pub async fn stored(&self, record: &Record, after: u64) -> Option<(u64, Vec<StoredFrame>)> {
        let mut frames = self.ledger.frames(record.id, 0).await.ok()?;
        for frame in &mut frames {
            frame.bytes = self.memory.hold(std::mem::take(&mut frame.bytes));
        }
        let end = record.end.as_ref()?;
        let newest = frames.last().map_or(0, |last| last.sequence);
        // A job whose own code failed has its end.
        let is_whole = frames.last().is_some_and(|last| last.bytes.starts_with(b"event: complete\n"));
        let ending = match end.cause {
            _ if is_whole => Vec::new(),
            Some(Cause::Crashed) => final_frames(record, end),
            // It had an end that is not kept any more, and nobody must be given a stream without one (R10).
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

/// Whether the job of `record` ran where the backend of `request` is.
async fn was_on(record: &Record, request: &SyncRequest) -> bool {
    let Ok(url) = record.backend.parse() else { return false };
    let backend = BackendId::from_url(url);
    if !backend.has_address() {
        // One that is not found is known by its URL.
        let _ = backend.resolve().await;
    }
    backend.is_at(request.backend.id())
}

/// The numbers of an end that was written after a crash begin behind this one. Readers may have seen frames
/// that the ledger never got, and those had the numbers behind the last one that it did get.
const UNSEEN: u64 = 1 << 62;

/// The end that a job would have had if the bridge had not ended under it.
fn final_frames(record: &Record, end: &JobEnd) -> Vec<StoredFrame> {
    let frames = Normalizer::interrupted_frames(record.kind, end.failure.clone());
    let numbered = (UNSEEN + 1..).zip(frames);
    numbered.map(|(sequence, frame)| StoredFrame { sequence, at: end.finished, bytes: frame.bytes }).collect()
}
