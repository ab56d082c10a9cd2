//! Decides the outcome of a leg and of the whole run.

use super::objects::{failed_object, summarize_failures};
use super::{FAILED_HEADLINE, HEADLINE, LegState, Normalizer, NormalizerOptions, TerminalEvent, capitalized};
use crate::core::domain::counting::CountSource;
use crate::core::domain::counts::Count;
use crate::core::domain::event::{Failure, StreamEnd};
use crate::core::domain::kind::Kind;
use crate::core::domain::object::Object;
use crate::core::domain::outcome::{Cause, Outcome, RunReport};
use crate::core::domain::refusal::Refusal;
use crate::core::run::policy::ObjectFailures;
use crate::core::text::detail::{self, join_distinct};
use crate::core::text::redact::Redactor;
use crate::core::text::{plain, shortened};
use crate::core::wire::sse::encoder::truncate_escaped;
use crate::core::wire::sse::frame::Frame;

impl Normalizer {
    /// Why the leg failed, by the backend's report and the operator's policy. `ended` is the failure of a backend that
    /// ended without the terminal event it owed.
    pub fn leg_failure(&self, kind: Kind, ended: Option<(Failure, Cause)>) -> Option<(Failure, Cause)> {
        let step = kind.row().step;
        let LegState { aborted, terminal, stage_error, .. } = &self.leg;
        let with_step = |failure: &Failure| Failure {
            step: if failure.step.is_empty() { step.to_owned() } else { failure.step.clone() },
            ..failure.clone()
        };
        let with_details = |failure: Failure, reported: Option<&String>| {
            let stage_error = stage_error.as_ref().map(|stage_error| &stage_error.detail);
            let details = [Some(&failure.detail), reported, stage_error].into_iter().flatten().cloned();
            Failure { detail: join_distinct(details.collect()), ..failure }
        };
        if let Some(aborted) = aborted {
            let mut failure = with_step(aborted);
            if failure.error.is_empty() {
                failure.error = terminal.as_ref().map(|last| last.message.clone()).unwrap_or_default();
            }
            let failure = with_details(failure, terminal.as_ref().and_then(|last| last.detail.as_ref()));
            return Some((with_reason(failure), ended.map_or(Cause::BackendFailed, |(_, cause)| cause)));
        }
        if let Some((failure, cause)) = ended {
            return Some((with_details(failure, None), cause));
        }
        match (terminal, stage_error) {
            (Some(TerminalEvent { ok: Some(true), .. }), _) | (None, None) => {
                self.objects_failed(kind).map(|failure| (failure, Cause::ObjectsFailed))
            }
            (Some(TerminalEvent { ok, message, detail }), _) => {
                let (error, cause) = match ok {
                    Some(_) => (message.as_str(), Cause::BackendFailed),
                    None => (NO_VERDICT, Cause::BackendNonsense),
                };
                let failure =
                    Failure { step: step.to_owned(), error: error.to_owned(), detail: String::new() };
                Some((with_reason(with_details(failure, detail.as_ref())), cause))
            }
            (None, Some(stage_error)) => Some((with_step(stage_error), Cause::BackendFailed)),
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
        let trouble = self.leg.stage_error.as_ref().filter(|_| self.policy(None) == ObjectFailures::Any);
        let error = match (self.failed_object(), trouble) {
            (None, None) => return None,
            (None, Some(stage_error)) if failed == 0 => return Some(with_reason(stage_error.clone())),
            (None, Some(_)) => format!("{failed} of {seen} objects failed, {completed} completed."),
            (Some((Object::Backup, Count { seen, failed: 0, .. })), _) => format!(
                "The backend confirmed none of the backups that it found ({seen}, each once for every node that sees it)."
            ),
            (Some((object, Count { seen, failed: 0, .. })), _) => {
                let row = Kind::all().map(Kind::row).find(|row| row.object == object);
                let after = row.and_then(|row| row.after).filter(|_| self.tally.has_skipped(object));
                let skipped = after.map(|kind| format!(" and skipped them. Sync {} first", kind.row().title));
                let (plural, skipped) = (object.plural(), skipped.unwrap_or_default());
                format!("The backend confirmed none of {seen} {plural}{skipped}.")
            }
            (Some((object, Count { seen, completed: 0, failed, .. })), _) => {
                format!("{failed} of {seen} {object} objects failed, none completed.")
            }
            (Some((object, Count { seen, completed, failed, .. })), _) => {
                format!("{failed} of {seen} {object} objects failed, {completed} completed.")
            }
        };
        let failures = summarize_failures(&self.leg.failed_objects, detail::DETAIL, failed);
        let detail = if failures.is_empty() { error.clone() } else { format!("{error} {failures}") };
        Some(Failure { step: kind.row().step.to_owned(), error, detail })
    }

    /// Whether the objects of `kind` can fail the run even if the backend reports success. Some backends report
    /// success although every object of another kind failed, and the plugin's full update continues.
    fn is_strict(&self, kind: Kind) -> bool {
        kind.row().plugin_path.is_some() || self.options.object_failures.override_for(kind).is_some()
    }

    /// The policy for objects of `kind`, or for objects of no kind: that kind's own, else the run's, else the default.
    fn policy(&self, kind: Option<Kind>) -> ObjectFailures {
        let policies = &self.options.object_failures;
        let own = kind.and_then(|kind| policies.override_for(kind));
        own.unwrap_or_else(|| policies.for_kind(self.kind))
    }

    /// The object type that fails the run by the policy of its kind. Three completed devices do not compensate for
    /// twelve failed virtual machines.
    fn failed_object(&self) -> Option<(Object, Count)> {
        let counts = self.tally.counts();
        let total = counts.total();
        counts.0.into_iter().find(|(object, count)| {
            let mut kinds = Kind::all().filter(|kind| kind.row().is_counted());
            let kind = kinds.find(|kind| kind.row().object == *object);
            let is_for_nothing =
                count.completed == 0 && (count.failed > 0 || self.tally.reports_none(*object));
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

    /// Ends the stream, and the run as failed if there is a `failure`. Nothing is written after it.
    pub fn finish(&mut self, failure: Option<(Failure, Cause)>, out: &mut Vec<Frame>) -> RunReport {
        let (failure, cause) = failure.unzip();
        let counts = self.tally.counts();
        if let Some(stream) = self.stream.take() {
            out.extend(stream.finish(StreamEnd {
                message: self.last_message(failure.as_ref(), counts.total()),
                counts: counts.clone(),
                summary: std::mem::take(&mut self.summary),
                failure: failure.clone(),
            }));
        }
        let failed = self.failure_sample.first.iter().chain(&self.failure_sample.last);
        RunReport {
            outcome: cause.map_or(Outcome::Completed, Cause::outcome),
            cause,
            failure,
            counts,
            failed_objects: failed.map(|failed| failed.object.clone()).collect(),
            dropped: self.dropped,
            unreadable: self.unreadable,
        }
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
            message += &format!(" {machines} virtual machines were looked at.");
        }
        if total.seen > 0 {
            // For a failed run, they stand in the detail.
            let first = if failure.is_none() { self.failure_sample.first.as_slice() } else { &[] };
            let failures = summarize_failures(first, HEADLINE, total.failed);
            message += &format!(" {}", describe_count(total, &failures));
        }
        for (object, reported, counted) in self.tally.mismatches() {
            let plural = object.plural();
            message +=
                &format!(" The backend reported {reported} {plural} as completed and counted {counted}.");
        }
        if failure.is_none() && !self.stage_errors.is_empty() {
            let mut stage_errors = plain(&self.stage_errors.join("; "), HEADLINE).into_owned();
            let more = self.stage_error_count.saturating_sub(self.stage_errors.len() as u64);
            if more > 0 {
                stage_errors = format!("{}; and {more} more", stage_errors.trim_end_matches('.'));
            }
            message += &format!(" With errors: {}", sentence(&stage_errors));
        }
        if failure.is_none() && !self.summary.warnings.is_empty() {
            let warnings = shortened(&self.summary.warnings.join("; "), HEADLINE);
            message += &format!(" With warnings: {}", sentence(&warnings));
        }
        if let Some(why) = &self.why_skipped {
            message += &format!(" {why}");
        } else if !self.skipped.is_empty() {
            let names: Vec<&str> = self.skipped.iter().map(|kind| kind.row().title).collect();
            let cannot = self.unsupported_text("them");
            message += &format!(" Skipped, because this backend {cannot}: {}.", names.join(", "));
        }
        let is_idle = looked_at.is_none() && self.is_idle(total);
        if let (None, true, Some(before)) = (failure, is_idle, self.kind.row().after) {
            let (title, before) = (self.kind.row().title, before.row().title);
            message += &format!(" If Proxmox has {title}, sync {before} first.");
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

/// The error of a run whose terminal event has no verdict.
const NO_VERDICT: &str = "The backend's final event does not say in a boolean whether the run is ok.";

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
        normalizer.finish(Some((refusal.failure(kind), refusal.cause)), &mut frames);
        frames
    }

    /// The end of a run of `kind` whose end could not be written at the time.
    pub fn interrupted_frames(kind: Kind, failure: Option<Failure>) -> Vec<Frame> {
        let failure = failure.unwrap_or_else(|| Failure::new(kind.row().step, INTERRUPTED.to_owned()));
        let mut normalizer = Self::new(kind, NormalizerOptions::default());
        let mut frames = Vec::new();
        normalizer.begin_waiting(&failure.error, &mut frames);
        normalizer.finish(Some((failure, Cause::Crashed)), &mut frames);
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
