//! What a leg, and in the end the whole run, is worth.

use super::{HEADLINE, LastWord, Leg, Normalizer, Options, capitalized};
use crate::core::detail::joined;
use crate::core::event::{Failure, Verdict};
use crate::core::kind::Kind;
use crate::core::object::Object;
use crate::core::outcome::{Cause, FailedObject};
use crate::core::policy::ObjectFailures;
use crate::core::refusal::Refusal;
use crate::core::sse::Frame;
use crate::core::tally::Count;
use crate::core::text::plain;

impl Normalizer {
    /// Why the leg has failed, by what the backend said and by the operator's policy. `ended` says
    /// what happened to a backend that said no last word, if it should have.
    pub fn leg_failure(&self, kind: Kind, ended: Option<Failure>) -> Option<Failure> {
        let step = kind.row().step;
        let known = |failure: &Failure| Failure {
            step: if failure.step.is_empty() { step.to_owned() } else { failure.step.clone() },
            ..failure.clone()
        };
        let trouble = self.leg.trouble.as_ref().map(known);
        if let Some(aborted) = &self.leg.aborted {
            let mut failure = known(aborted);
            let (message, detail) = match &self.leg.last_word {
                Some(word) => (Some(word.message.clone()), word.detail.clone()),
                None => (None, None),
            };
            if failure.error.is_empty() {
                failure.error = message.unwrap_or_default();
            }
            let more = [Some(failure.detail), detail, trouble.map(|trouble| trouble.detail)];
            failure.detail = joined(more.into_iter().flatten().collect());
            return Some(with_reason(failure));
        }
        if let Some(ended) = ended {
            let more = trouble.map(|trouble| trouble.detail);
            let detail = joined([Some(ended.detail.clone()), more].into_iter().flatten().collect());
            return Some(Failure { detail, ..ended });
        }
        match &self.leg.last_word {
            Some(LastWord { ok: Some(true), .. }) => self.objects_failed(kind),
            Some(LastWord { ok, message, detail }) => {
                let error = match ok {
                    Some(_) => message.clone(),
                    None => "The backend's final event does not say in a boolean whether the run is ok."
                        .to_owned(),
                };
                let detail = [detail.clone(), trouble.map(|trouble| trouble.detail)];
                let detail = joined(detail.into_iter().flatten().collect());
                Some(with_reason(Failure { step: step.to_owned(), error, detail }))
            }
            None => trouble.or_else(|| self.objects_failed(kind)),
        }
    }

    /// Why a leg that came to its own end has failed.
    pub fn cause_of_failure(&self) -> Cause {
        match &self.leg {
            Leg { aborted: Some(_), .. } | Leg { last_word: Some(LastWord { ok: Some(false), .. }), .. } => {
                Cause::BackendFailed
            }
            Leg { last_word: Some(LastWord { ok: None, .. }), .. } => Cause::BackendNonsense,
            Leg { trouble: Some(_), last_word: None, .. } => Cause::BackendFailed,
            _ => Cause::ObjectsFailed,
        }
    }

    fn objects_failed(&self, kind: Kind) -> Option<Failure> {
        let Count { seen, completed, failed, .. } = self.tally.counts().total().since(self.leg.before);
        let all_of = self.sort_that_failed();
        // Of the others, backends that fail all objects say ok, and a full update of the plugin goes on.
        let is_documented = kind.row().plugin_path.is_some();
        let is_failure = match self.options.object_failures {
            ObjectFailures::All => (is_documented && failed > 0 && completed == 0) || all_of.is_some(),
            ObjectFailures::Any => failed > 0 || self.leg.trouble.is_some(),
            ObjectFailures::Never => false,
        };
        if let (true, 0, Some(trouble)) = (is_failure, failed, &self.leg.trouble) {
            return Some(with_reason(trouble.clone()));
        }
        is_failure.then(|| {
            let error = match all_of {
                Some((object, count)) => {
                    format!("{} of {} {object} objects failed, none completed.", count.failed, count.seen)
                }
                None if completed == 0 => format!("{failed} of {seen} objects failed, none completed."),
                None => format!("{failed} of {seen} objects failed, {completed} completed."),
            };
            let named: Vec<String> = self
                .failed_objects
                .iter()
                .map(|FailedObject { object, error }| format!("{object}: {error}"))
                .collect();
            let named = named.join("; ");
            let detail = if named.is_empty() { error.clone() } else { format!("{error} {named}") };
            Failure { step: kind.row().step.to_owned(), error, detail }
        })
    }

    /// A sort of objects of a documented kind that failed as far as it is known, in a run with more sorts.
    /// Three devices that completed do not make good twelve virtual machines that failed.
    fn sort_that_failed(&self) -> Option<(Object, Count)> {
        let documented = Kind::all().map(Kind::row).filter(|row| row.plugin_path.is_some());
        documented
            .filter(|row| row.counted)
            .map(|row| (row.object, self.tally.count(row.object)))
            .find(|(_, count)| count.failed > 0 && count.completed == 0)
    }

    /// What a backend cannot do, in the words for one run.
    pub(super) fn cannot(&self, what: &str) -> String {
        match self.kind {
            Kind::FullUpdate => format!("cannot do {what} in a full update"),
            _ => format!("has no usable channel for {what}"),
        }
    }

    /// Ends the stream. Whatever came before, this is its last word.
    pub fn finish(&mut self, failure: Option<Failure>, out: &mut Vec<Frame>) {
        let Some(stream) = self.stream.take() else { return };
        let title = capitalized(self.kind.row().title);
        let counts = self.tally.counts();
        let mut message = match &failure {
            None if self.skipped.contains(&self.kind) => format!("{title} sync skipped."),
            None => format!("{title} sync completed."),
            // The whole of it stands in `error`; the counts behind it must not be cut off.
            Some(Failure { error, .. }) => {
                format!("{title} sync failed: {}", sentence(&plain(error, HEADLINE)))
            }
        };
        let Count { seen, completed, failed, unconfirmed } = counts.total();
        if seen > 0 {
            message.push_str(&format!(
                " {seen} object{}: {completed} completed, {failed} failed, {unconfirmed} unconfirmed.",
                if seen == 1 { "" } else { "s" }
            ));
        }
        if failure.is_none() && !self.troubles.is_empty() {
            message.push_str(&format!(
                " With trouble: {}",
                sentence(&plain(&self.troubles.join("; "), HEADLINE))
            ));
        }
        if let Some(why) = &self.why_skipped {
            message.push_str(&format!(" {why}"));
        } else if !self.skipped.is_empty() {
            let names: Vec<&str> = self.skipped.iter().map(|kind| kind.row().title).collect();
            let cannot = self.cannot("them");
            message.push_str(&format!(" Skipped, because this backend {cannot}: {}.", names.join(", ")));
        }
        out.extend(stream.finish(&Verdict {
            message,
            counts,
            told: std::mem::take(&mut self.told),
            failure,
        }));
    }
}

/// Streams that are over before anything was done.
impl Normalizer {
    /// The whole stream of a run of `kind` that was refused before it began, for those who read of it later.
    pub fn refused(kind: Kind, refusal: &Refusal) -> Vec<Frame> {
        let mut normalizer = Self::new(kind, Options::default());
        let mut frames = Vec::new();
        normalizer.start(&mut frames);
        normalizer.finish(Some(refusal.failure(kind)), &mut frames);
        frames
    }

    /// The end of a run of `kind` that nobody could write when it ended.
    pub fn interrupted(kind: Kind, failure: Option<Failure>) -> Vec<Frame> {
        let failure = failure.unwrap_or_else(|| Failure {
            step: kind.row().step.to_owned(),
            error: INTERRUPTED.to_owned(),
            detail: INTERRUPTED.to_owned(),
        });
        let mut normalizer = Self::new(kind, Options::default());
        let mut frames = Vec::new();
        normalizer.wait(&failure.error, &mut frames);
        normalizer.finish(Some(failure), &mut frames);
        frames
    }
}

/// What is said of a run whose end nobody wrote.
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
