//! Decides the outcome of a leg and of the whole run.

use super::objects::{failed_object, summarize_failures};
use super::{FAILED_HEADLINE, HEADLINE, LegState, Normalizer, NormalizerOptions, TerminalEvent, capitalized};
use crate::core::domain::counting::CountSource;
use crate::core::domain::counts::Count;
use crate::core::domain::event::{Failure, StreamEnd};
use crate::core::domain::kind::Kind;
use crate::core::domain::object::Object;
use crate::core::domain::outcome::Cause;
use crate::core::domain::refusal::Refusal;
use crate::core::run::policy::ObjectFailures;
use crate::core::run::tally::CountMismatch;
use crate::core::text::detail::{self, join_distinct};
use crate::core::text::redact::Redactor;
use crate::core::text::{plain, shortened};
use crate::core::wire::sse::encoder::truncate_escaped;
use crate::core::wire::sse::frame::Frame;

impl Normalizer {
    /// Why the leg failed, by the backend's report and the operator's policy. `ended` is the failure of a backend that
    /// ended without the terminal event it owed.
    pub fn leg_failure(&self, kind: Kind, ended: Option<Failure>) -> Option<Failure> {
        let step = kind.row().step;
        let merged = |failure: &Failure| Failure {
            step: if failure.step.is_empty() { step.to_owned() } else { failure.step.clone() },
            ..failure.clone()
        };
        let stage_error = self.leg.stage_error.as_ref().map(merged);
        if let Some(aborted) = &self.leg.aborted {
            let mut failure = merged(aborted);
            let (message, detail) = match &self.leg.terminal {
                Some(terminal) => (Some(terminal.message.clone()), terminal.detail.clone()),
                None => (None, None),
            };
            if failure.error.is_empty() {
                failure.error = message.unwrap_or_default();
            }
            let more = [Some(failure.detail), detail, stage_error.map(|stage_error| stage_error.detail)];
            failure.detail = join_distinct(more.into_iter().flatten().collect());
            return Some(with_reason(failure));
        }
        if let Some(ended) = ended {
            let more = stage_error.map(|stage_error| stage_error.detail);
            let detail = join_distinct([Some(ended.detail.clone()), more].into_iter().flatten().collect());
            return Some(Failure { detail, ..ended });
        }
        match &self.leg.terminal {
            Some(TerminalEvent { ok: Some(true), .. }) => self.objects_failed(kind),
            Some(TerminalEvent { ok, message, detail }) => {
                let error = match ok {
                    Some(_) => message.clone(),
                    None => "The backend's final event does not say in a boolean whether the run is ok."
                        .to_owned(),
                };
                let detail = [detail.clone(), stage_error.map(|stage_error| stage_error.detail)];
                let detail = join_distinct(detail.into_iter().flatten().collect());
                Some(with_reason(Failure { step: step.to_owned(), error, detail }))
            }
            None => stage_error.or_else(|| self.objects_failed(kind)),
        }
    }

    /// The cause of failure of a leg that ended by itself.
    pub fn cause_of_failure(&self) -> Cause {
        match &self.leg {
            LegState { aborted: Some(_), .. }
            | LegState { terminal: Some(TerminalEvent { ok: Some(false), .. }), .. } => Cause::BackendFailed,
            LegState { terminal: Some(TerminalEvent { ok: None, .. }), .. } => Cause::BackendNonsense,
            LegState { stage_error: Some(_), terminal: None, .. } => Cause::BackendFailed,
            _ => Cause::ObjectsFailed,
        }
    }

    /// Writes the failures of the stages `kinds` that were reported only as a number. The failed objects are named if
    /// as many objects have not ended as failed.
    pub fn report_unreported_failures(&mut self, kinds: &[Kind], out: &mut Vec<Frame>) {
        let is_whole = kinds.contains(&Kind::FullUpdate);
        let of_stage = |object| kinds.iter().any(|kind| kind.row().object == object);
        let counts = self.tally.counts();
        for (object, _) in counts.0.into_iter().filter(|(object, _)| is_whole || of_stage(*object)) {
            let untold = self.tally.unreported_failures(object);
            if untold == 0 {
                continue;
            }
            let names = self.tally.unfinished(object);
            let is_counted = self.tally.counts_failures(object);
            let (of_one, of_many) = match self.leg.unreported_reason {
                Some(why) => why,
                None if is_counted => UNREPORTED,
                None => MISSING,
            };
            if names.len() as u64 == untold {
                for name in names {
                    self.apply(failed_object(object, name, of_one.to_owned()), out);
                }
            } else {
                self.apply_unnamed(object, untold, of_many, out);
            }
        }
    }

    fn objects_failed(&self, kind: Kind) -> Option<Failure> {
        let Count { seen, completed, failed, .. } = self.tally.counts().total().since(self.leg.before);
        let object_type = self.failed_object();
        let has_trouble = self.leg.stage_error.is_some() && self.policy(None) == ObjectFailures::Any;
        let is_failure = object_type.is_some() || has_trouble;
        if let (true, 0, None, Some(stage_error)) = (is_failure, failed, object_type, &self.leg.stage_error) {
            return Some(with_reason(stage_error.clone()));
        }
        is_failure.then(|| {
            let error = match object_type {
                Some((Object::Backup, Count { seen, failed: 0, .. })) => format!(
                    "The backend confirmed none of the backups that it found ({seen}, each once for every node that \
                     sees it)."
                ),
                Some((object, Count { seen, failed: 0, .. })) => {
                    let row = Kind::all().map(Kind::row).find(|row| row.object == object);
                    let after = row.and_then(|row| row.after).filter(|_| self.tally.has_skipped(object));
                    let skipped =
                        after.map(|kind| format!(" and skipped them. Sync {} first", kind.row().title));
                    let (plural, skipped) = (object.plural(), skipped.unwrap_or_default());
                    format!("The backend confirmed none of {seen} {plural}{skipped}.")
                }
                Some((object, Count { seen, completed: 0, failed, .. })) => {
                    format!("{failed} of {seen} {object} objects failed, none completed.")
                }
                Some((object, Count { seen, completed, failed, .. })) => {
                    format!("{failed} of {seen} {object} objects failed, {completed} completed.")
                }
                None => format!("{failed} of {seen} objects failed, {completed} completed."),
            };
            let failures = summarize_failures(&self.failed_objects, detail::DETAIL, failed);
            let detail = if failures.is_empty() { error.clone() } else { format!("{error} {failures}") };
            Failure { step: kind.row().step.to_owned(), error, detail }
        })
    }

    /// Whether the objects of `kind` can fail the run even if the backend reports success. Some backends report
    /// success although every object of another kind failed, and the plugin's full update continues.
    fn is_strict(&self, kind: Kind) -> bool {
        kind.row().plugin_path.is_some() || self.options.object_failures.has_override(kind)
    }

    /// The policy for objects of `kind`, or for objects of no kind: that kind's own, else the run's, else the default.
    fn policy(&self, kind: Option<Kind>) -> ObjectFailures {
        let policies = &self.options.object_failures;
        kind.filter(|kind| policies.has_override(*kind))
            .map_or_else(|| policies.for_kind(self.kind), |kind| policies.for_kind(kind))
    }

    /// The object type that fails the run by the policy of its kind. Three completed devices do not compensate for
    /// twelve failed virtual machines.
    fn failed_object(&self) -> Option<(Object, Count)> {
        let counts = self.tally.counts();
        let total = counts.total();
        counts.0.into_iter().find(|(object, count)| {
            let mut kinds = Kind::all().filter(|kind| kind.row().counted);
            let kind = kinds.find(|kind| kind.row().object == *object);
            let is_for_nothing =
                count.completed == 0 && (count.failed > 0 || self.tally.is_for_nothing(*object));
            // Objects of unknown kind decide only if no other object completed.
            let decides =
                kind.map_or(self.is_strict(self.kind) && total.completed == 0, |kind| self.is_strict(kind));
            let is_judged = is_for_nothing && decides;
            match self.policy(kind) {
                ObjectFailures::All => is_judged,
                ObjectFailures::Any => count.failed > 0 || is_judged,
                ObjectFailures::Never => false,
            }
        })
    }

    /// Describes an unsupported sync, worded for one run.
    pub(super) fn unsupported_text(&self, what: &str) -> String {
        match self.kind {
            Kind::FullUpdate => format!("cannot do {what} in a full update"),
            _ => format!("has no usable channel for {what}"),
        }
    }

    /// Ends the stream. Nothing is written after it.
    pub fn finish(&mut self, failure: Option<Failure>, out: &mut Vec<Frame>) {
        let Some(stream) = self.stream.take() else { return };
        let counts = self.tally.counts();
        let message = self.last_message(failure.as_ref(), counts.total());
        out.extend(stream.finish(StreamEnd {
            message,
            counts,
            summary: std::mem::take(&mut self.summary),
            failure,
        }));
    }

    /// The summary for a person who reads only this message.
    fn last_message(&self, failure: Option<&Failure>, total: Count) -> String {
        let title = capitalized(self.kind.row().title);
        let mut message = match failure {
            None if self.skipped == [self.kind] && self.why_skipped.is_none() => {
                return format!("{title} sync skipped: this backend {}.", self.unsupported_text("it"));
            }
            None if self.skipped.contains(&self.kind) => format!("{title} sync skipped."),
            None if self.is_idle(total) => format!("{title} sync completed: nothing to do."),
            None => format!("{title} sync completed."),
            // `error` holds the full text. The counts after it must not be cut off.
            Some(Failure { error, .. }) => {
                let error = plain(error, FAILED_HEADLINE);
                format!("{title} sync failed: {}", sentence(&truncate_escaped(&error, FAILED_HEADLINE)))
            }
        };
        let counts_machines = CountSource::for_kind(self.kind, self.release).counts_machines();
        let mut numbers = self.summary.numbers.iter().filter(|_| counts_machines);
        let looked_at = numbers.find(|(name, count)| name == "count" && *count > 0);
        if let (0, Some((_, machines))) = (total.seen, looked_at) {
            message.push_str(&format!(" {machines} virtual machines were looked at."));
        }
        if total.seen > 0 {
            // For a failed run, they stand in the detail.
            let first = if failure.is_none() { self.failure_sample.first.as_slice() } else { &[] };
            let failures = summarize_failures(first, HEADLINE, total.failed);
            message.push_str(&format!(" {}", describe_count(total, &failures)));
        }
        for CountMismatch { object, reported, counted } in self.tally.mismatches() {
            let plural = object.plural();
            message.push_str(&format!(
                " The backend reported {reported} {plural} as completed and counted {counted}."
            ));
        }
        if failure.is_none() && !self.stage_errors.is_empty() {
            let mut stage_errors = plain(&self.stage_errors.join("; "), HEADLINE).into_owned();
            let more = self.stage_error_count.saturating_sub(self.stage_errors.len() as u64);
            if more > 0 {
                stage_errors = format!("{}; and {more} more", stage_errors.trim_end_matches('.'));
            }
            message.push_str(&format!(" With errors: {}", sentence(&stage_errors)));
        }
        if failure.is_none() && !self.summary.warnings.is_empty() {
            let warnings = shortened(&self.summary.warnings.join("; "), HEADLINE);
            message.push_str(&format!(" With warnings: {}", sentence(&warnings)));
        }
        if let Some(why) = &self.why_skipped {
            message.push_str(&format!(" {why}"));
        } else if !self.skipped.is_empty() {
            let names: Vec<&str> = self.skipped.iter().map(|kind| kind.row().title).collect();
            let cannot = self.unsupported_text("them");
            message.push_str(&format!(" Skipped, because this backend {cannot}: {}.", names.join(", ")));
        }
        let is_idle = looked_at.is_none() && self.is_idle(total);
        if let (None, true, Some(before)) = (failure, is_idle, self.kind.row().after) {
            let (title, before) = (self.kind.row().title, before.row().title);
            message.push_str(&format!(" If Proxmox has {title}, sync {before} first."));
        }
        message
    }

    fn is_idle(&self, total: Count) -> bool {
        total.seen == 0 && self.tally.has_nothing(self.kind.row().object)
    }
}

/// `88 objects: 73 completed, 1 failed (device pve2: no such cluster), 14 unconfirmed.`
fn describe_count(count: Count, failures: &str) -> String {
    let Count { seen, completed, failed, unconfirmed } = count;
    let mut parts = Vec::new();
    for (number, word) in [(completed, "completed"), (failed, "failed"), (unconfirmed, "unconfirmed")] {
        match (number, word) {
            (0, _) => {}
            (number, "failed") if !failures.is_empty() => parts.push(format!("{number} failed ({failures})")),
            (number, word) => parts.push(format!("{number} {word}")),
        }
    }
    format!("{seen} object{}: {}.", if seen == 1 { "" } else { "s" }, parts.join(", "))
}

/// The errors of failed objects that the backend reported only as a number: for one object, and for several.
const UNREPORTED: (&str, &str) = (
    "the backend counts it as failed, and does not say why",
    "the backend counts them as failed, and does not say which or why",
);
/// The errors of discovered objects that are missing from the backend's number of completed ones.
const MISSING: (&str, &str) = (
    "the backend discovered it, and does not count it as done",
    "the backend discovered more than it counts as done",
);

/// Streams that end before any work was done.
impl Normalizer {
    /// The complete stream of a run of `kind` that was refused before it began. It is kept for later readers.
    pub fn refusal_frames(kind: Kind, refusal: &Refusal, redactor: &Redactor) -> Vec<Frame> {
        let options = NormalizerOptions { redactor: redactor.clone(), ..NormalizerOptions::default() };
        let mut normalizer = Self::new(kind, options);
        let mut frames = Vec::new();
        normalizer.start(&mut frames);
        normalizer.finish(Some(refusal.failure(kind)), &mut frames);
        frames
    }

    /// The end of a run of `kind` whose end could not be written at the time.
    pub fn interrupted_frames(kind: Kind, failure: Option<Failure>) -> Vec<Frame> {
        let failure = failure.unwrap_or_else(|| Failure {
            step: kind.row().step.to_owned(),
            error: INTERRUPTED.to_owned(),
            detail: INTERRUPTED.to_owned(),
        });
        let mut normalizer = Self::new(kind, NormalizerOptions::default());
        let mut frames = Vec::new();
        normalizer.begin_waiting(&failure.error, &mut frames);
        normalizer.finish(Some(failure), &mut frames);
        frames
    }
}

/// The message of a run whose end was not recorded.
const INTERRUPTED: &str = "The bridge ended in the middle of this job.";

fn with_reason(mut failure: Failure) -> Failure {
    if failure.error.is_empty() {
        failure.error = "The backend reported a failure without a reason.".to_owned();
    }
    if failure.detail.is_empty() {
        failure.detail.clone_from(&failure.error);
    }
    failure
}

fn sentence(text: &str) -> String {
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}
