//! Parses the server-sent events of every backend release that sends them.

mod step;
mod structured;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::event_json::{self, ReadFields};
use super::fact::Fact;
use super::legacy::{MAX_NAME, sentence, tidy};
use super::lenient::{LenientBool, LenientText};
use crate::core::domain::event::Failure;
use crate::core::text::detail::{self, SENTENCE};
use crate::core::text::plain;
use crate::core::upstream::result;
use step::{ParsedPayload, StepEvent};
use structured::{Bootstrap, Discovery, DuplicateName, ErrorDetail, ItemProgress, PhaseSummary, Substep};

/// The data of an event is not JSON, or not an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadableEvent;

/// Parses the event `name` with `data`, without the backend's own payload of an object.
///
/// # Errors
///
/// [`UnreadableEvent`] if the data is not a JSON object.
pub fn parse_event<'a>(name: &str, data: &'a str) -> Result<Fact<'a>, UnreadableEvent> {
    if name == "step"
        && let Ok(step) = read::<StepEvent<'_, ParsedPayload<'_>>>(data)
    {
        return Ok(step.fact());
    }
    // A payload that is malformed costs only itself.
    parse_event_with_payload(name, data)
}

/// Parses the event `name` with `data`, and keeps the backend's own payload of an object.
///
/// # Errors
///
/// [`UnreadableEvent`] if the data is not a JSON object.
pub fn parse_event_with_payload<'a>(name: &str, data: &'a str) -> Result<Fact<'a>, UnreadableEvent> {
    match name {
        "step" => read::<StepEvent<'_, Option<&RawValue>>>(data).map(StepEvent::fact),
        "complete" => parse::<CompleteEvent<'_>>(data).map(CompleteEvent::fact),
        "error" => parse::<ErrorEvent<'_>>(data).map(|event| Fact::Aborted(event.failure())),
        "item_progress" => read::<ItemProgress<'_>>(data).map(ItemProgress::fact),
        "discovery" => parse::<Discovery<'_>>(data).map(Discovery::fact),
        "phase_summary" => parse::<PhaseSummary<'_>>(data).map(PhaseSummary::fact),
        "error_detail" => parse::<ErrorDetail<'_>>(data).map(ErrorDetail::fact),
        "substep" => read::<Substep<'_>>(data).map(Substep::fact),
        "bootstrap_done" => parse::<Bootstrap<'_>>(data).map(|event| event.fact()),
        "duplicate_name_resolved" => parse::<DuplicateName<'_>>(data).map(DuplicateName::fact),
        // `hardware_discovery`, and event types of later releases.
        _ => Ok(Fact::Nothing),
    }
}

/// The fact of an event whose data cannot be parsed. An `error` or a `complete` remains a terminal event: the run has
/// failed, or its success is unknown.
///
/// # Errors
///
/// [`UnreadableEvent`] for every other event type.
pub fn unreadable<'a>(name: &str, data: &'a str) -> Result<Fact<'a>, UnreadableEvent> {
    let text = plain(data, SENTENCE).into_owned();
    match name {
        "complete" => Ok(Fact::Complete {
            ok: None,
            message: String::new(),
            detail: Some(format!("the final event is not a JSON object: {text}")),
            summary: result::summarize(None),
        }),
        "error" => Ok(Fact::Aborted(Failure { step: String::new(), error: text.clone(), detail: text })),
        _ => Err(UnreadableEvent),
    }
}

fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, UnreadableEvent> {
    is_object(data).then(|| serde_json::from_str(data).ok()).flatten().ok_or(UnreadableEvent)
}

/// [`parse`] for the events of which there are many.
fn read<'a, T: ReadFields<'a> + Deserialize<'a>>(data: &'a str) -> Result<T, UnreadableEvent> {
    is_object(data).then(|| event_json::from_str(data).ok()).flatten().ok_or(UnreadableEvent)
}

/// Serde would accept a list as the fields of a structure in order.
fn is_object(data: &str) -> bool {
    data.trim_ascii_start().starts_with('{')
}

/// The value of `ok` at the beginning of a `complete` that is too large to parse. Backends write it first, before
/// megabytes of records.
pub fn ok_flag_in(head: &[u8]) -> Option<bool> {
    let compact: Vec<u8> = head.iter().take(64).filter(|byte| !byte.is_ascii_whitespace()).copied().collect();
    let value = compact.strip_prefix(b"{\"ok\":")?;
    if value.starts_with(b"true,") { Some(true) } else { value.starts_with(b"false,").then_some(false) }
}

fn note<'a>(step: Cow<'a, str>, message: Cow<'a, str>) -> Fact<'a> {
    Fact::Note { step: tidy(step, MAX_NAME), message: tidy(message, SENTENCE) }
}

/// The error of a failed object as a sentence.
fn error_text(error: &LenientText<'_>, message: &LenientText<'_>) -> Cow<'static, str> {
    sentence(error.as_str().or(message.as_str()).unwrap_or("no reason given"))
}

fn stage_error(step: Cow<'_, str>, message: Cow<'_, str>) -> Failure {
    let error = tidy(message, SENTENCE).into_owned();
    Failure { step: step.into_owned(), detail: error.clone(), error }
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct CompleteEvent<'a> {
    ok: LenientBool,
    message: LenientText<'a>,
    result: Option<&'a RawValue>,
    errors: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    detail: Option<&'a RawValue>,
}

impl<'a> CompleteEvent<'a> {
    fn fact(self) -> Fact<'a> {
        let detail =
            [self.errors, self.error, self.detail].into_iter().filter_map(|raw| detail::text_of_field(raw));
        Fact::Complete {
            ok: self.ok.0,
            message: plain(self.message.or_empty(), SENTENCE).into_owned(),
            detail: Some(detail::join_distinct(detail.collect())).filter(|text| !text.is_empty()),
            summary: result::summarize(self.result),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct ErrorEvent<'a> {
    step: LenientText<'a>,
    error: Option<&'a RawValue>,
    detail: Option<&'a RawValue>,
    message: Option<&'a RawValue>,
}

impl ErrorEvent<'_> {
    fn failure(self) -> Failure {
        let error = detail::text_of_field(self.error).or_else(|| detail::text_of_field(self.message));
        let detail = detail::text_of_field(self.detail);
        let text = error.clone().or_else(|| detail.clone()).unwrap_or_default();
        Failure {
            step: self.step.or_empty().to_owned(),
            error: plain(&text, SENTENCE).into_owned(),
            detail: detail::join_distinct([error, detail].into_iter().flatten().collect()),
        }
    }
}
