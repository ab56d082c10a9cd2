//! The backend's own events, of every release that has them: what each says happened.

mod step;
mod structured;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::fact::Fact;
use super::legacy::{WORD, sentence, tidy};
use super::lenient::{Flag, Map, Text};
use crate::core::domain::event::Failure;
use crate::core::text::detail::{self, SENTENCE};
use crate::core::text::plain;
use crate::core::upstream::result;
use step::StepEvent;
use structured::{Bootstrap, Discovery, DuplicateName, ErrorDetail, ItemProgress, PhaseSummary, Substep};

/// An event whose data could not be read: it is not JSON, or not an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// What the event `name` with `data` says.
///
/// # Errors
///
/// [`Unreadable`] where the data is no JSON object.
pub fn read<'a>(name: &str, data: &'a str) -> Result<Fact<'a>, Unreadable> {
    match name {
        "step" => parse::<StepEvent<'_>>(data).map(StepEvent::fact),
        "complete" => parse::<CompleteEvent<'_>>(data).map(CompleteEvent::fact),
        "error" => parse::<ErrorEvent<'_>>(data).map(|event| Fact::Aborted(event.failure())),
        "item_progress" => parse::<ItemProgress<'_>>(data).map(ItemProgress::fact),
        "discovery" => parse::<Discovery<'_>>(data).map(Discovery::fact),
        "phase_summary" => parse::<PhaseSummary<'_>>(data).map(PhaseSummary::fact),
        "error_detail" => parse::<ErrorDetail<'_>>(data).map(ErrorDetail::fact),
        "substep" => parse::<Substep<'_>>(data).map(Substep::fact),
        "bootstrap_done" => parse::<Bootstrap<'_>>(data).map(|event| event.fact()),
        "duplicate_name_resolved" => parse::<DuplicateName<'_>>(data).map(DuplicateName::fact),
        // `hardware_discovery`, and whatever comes after this was written.
        _ => Ok(Fact::Nothing),
    }
}

/// What an event says whose data cannot be read: an `error` or a `complete` is still one. The run has failed, or nobody
/// can say that it has not.
///
/// # Errors
///
/// [`Unreadable`] for every other event.
pub fn unreadable<'a>(name: &str, data: &'a str) -> Result<Fact<'a>, Unreadable> {
    match name {
        "complete" => Ok(unreadable_end(data)),
        "error" => Ok(Fact::Aborted(unreadable_error(data))),
        _ => Err(Unreadable),
    }
}

fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, Unreadable> {
    // A list would be read as the fields of `T` in their order.
    serde_json::from_str::<Map<T>>(data).ok().and_then(|map| map.0).ok_or(Unreadable)
}

/// What the beginning of a `complete` that is too large to be read says of its `ok`. Backends write it
/// first, and megabytes of records behind it.
pub fn verdict_in(head: &[u8]) -> Option<bool> {
    let compact: Vec<u8> = head.iter().take(64).filter(|byte| !byte.is_ascii_whitespace()).copied().collect();
    let value = compact.strip_prefix(b"{\"ok\":")?;
    if value.starts_with(b"true,") { Some(true) } else { value.starts_with(b"false,").then_some(false) }
}

fn unreadable_end(data: &str) -> Fact<'_> {
    Fact::Complete {
        ok: None,
        message: String::new(),
        detail: Some(format!("the final event is not a JSON object: {}", plain(data, SENTENCE))),
        told: result::told(None),
    }
}

fn unreadable_error(data: &str) -> Failure {
    let text = plain(data, SENTENCE).into_owned();
    Failure { step: String::new(), error: text.clone(), detail: text }
}

fn note<'a>(step: Cow<'a, str>, message: Cow<'a, str>) -> Fact<'a> {
    match tidy(message, SENTENCE) {
        message if message.is_empty() => Fact::Nothing,
        message => Fact::Note { step: tidy(step, WORD), message },
    }
}

/// Why an object failed, in a sentence.
fn reason_of(error: &Text<'_>, message: &Text<'_>) -> Cow<'static, str> {
    sentence(error.said().or(message.said()).unwrap_or("no reason given"))
}

fn trouble(step: Cow<'_, str>, message: Cow<'_, str>) -> Failure {
    let error = tidy(message, SENTENCE).into_owned();
    Failure { step: step.into_owned(), detail: error.clone(), error }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CompleteEvent<'a> {
    ok: Flag,
    #[serde(borrow)]
    message: Text<'a>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    errors: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    detail: Option<&'a RawValue>,
}

impl<'a> CompleteEvent<'a> {
    fn fact(self) -> Fact<'a> {
        let detail =
            [self.errors, self.error, self.detail].into_iter().filter_map(|raw| detail::readable(raw));
        Fact::Complete {
            ok: self.ok.0,
            message: plain(self.message.or_empty(), SENTENCE).into_owned(),
            detail: Some(detail::joined(detail.collect())).filter(|text| !text.is_empty()),
            told: result::told(self.result),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorEvent<'a> {
    #[serde(borrow)]
    step: Text<'a>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    detail: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

impl ErrorEvent<'_> {
    fn failure(self) -> Failure {
        let error = detail::readable(self.error).or_else(|| detail::readable(self.message));
        let detail = detail::readable(self.detail);
        let known = error.clone().or_else(|| detail.clone()).unwrap_or_default();
        Failure {
            step: self.step.or_empty().to_owned(),
            error: plain(&known, SENTENCE).into_owned(),
            detail: detail::joined([error, detail].into_iter().flatten().collect()),
        }
    }
}
