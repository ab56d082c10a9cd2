//! The answers of the plain endpoints, and whether a 200 is a success.
//!
//! A plain endpoint answers once, after all its work. A 200 may be a failure. Releases answer with an error record
//! among the records of a cluster, with an `error` beside the counts, with a status string that means failure, or with
//! `null` from an endpoint that does nothing. One 400 is a success with nothing to do.

use std::borrow::Cow;
use std::collections::HashSet;

use memchr::memmem;
use serde_json::Value;
use serde_json::value::RawValue;

use super::lenient::LenientCount;
use super::python;
use crate::core::domain::event::Failure;
use crate::core::domain::figures::Figures;
use crate::core::domain::figures::ResultSummary;
use crate::core::domain::kind::Kind;
use crate::core::text::detail::{self, SENTENCE, join_distinct};
use crate::core::text::plain;
use crate::core::upstream::result;

/// The result of a plain endpoint.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct JsonResult {
    /// Its counts, or the number of records it answered with.
    pub figures: Figures,
    /// The summary of its answer.
    pub summary: ResultSummary,
}

impl JsonResult {
    /// The result of a sync that had nothing to do.
    pub fn empty() -> Self {
        Self { figures: Figures { count: LenientCount(Some(0)), ..Figures::default() }, ..Self::default() }
    }
}

/// Parses the body of a 2xx answer of the plain endpoint of `kind`.
///
/// # Errors
///
/// The failure that the body reports despite its status.
pub fn parse_result(kind: Kind, body: &[u8]) -> Result<JsonResult, Failure> {
    let fail = |error: &str, detail: String| Failure {
        step: kind.row().step.to_owned(),
        error: error.to_owned(),
        detail: if detail.is_empty() { error.to_owned() } else { detail },
    };
    let text = String::from_utf8_lossy(body);
    let is_json = serde_json::from_str::<&RawValue>(&text).is_ok() && !python::has_surrogates(&text);
    let strict = if is_json { None } else { python::to_strict(&text) };
    let text = strict.map_or(text, Cow::Owned);
    let Ok(raw) = serde_json::from_str::<&RawValue>(&text) else {
        let shown = plain(&text, SENTENCE);
        return Err(fail(
            "The backend's answer is not JSON.",
            format!("The backend's answer is not JSON: {shown}"),
        ));
    };
    match serde_json::from_str::<Value>(raw.get()) {
        Ok(Value::Array(items)) => {
            let mut records = Records::default();
            records.count(&items);
            if records.errors.is_empty() {
                let count = LenientCount(Some(records.records));
                // Records without an id cannot be deduplicated.
                let ids = Some(records.ids.len() as u64).filter(|ids| *ids > 0);
                let figures = Figures { count, records: LenientCount(ids), ..Figures::default() };
                Ok(JsonResult { figures, summary: ResultSummary::default() })
            } else {
                let detail = plain(&join_distinct(records.errors), detail::DETAIL).into_owned();
                Err(fail("The backend answered 200 with an error inside.", detail))
            }
        }
        Ok(Value::Object(fields)) => {
            let message =
                ["error", "errors"].into_iter().filter_map(|name| fields.get(name)).find_map(failure_in);
            if let Some(error) = message.or_else(|| error_of(&Value::Object(fields))) {
                let detail = plain(&error, detail::DETAIL).into_owned();
                return Err(fail("The backend answered 200 with an error inside.", detail));
            }
            let summary = result::summarize(Some(raw));
            let mut figures = Figures::from_summary(&summary);
            if figures == Figures::default() {
                // The length of its list of records.
                let length = summary.numbers.iter().find(|(name, _)| name.ends_with("_count"));
                figures.count = LenientCount(length.map(|(_, length)| *length));
            }
            Ok(JsonResult { figures, summary })
        }
        Ok(Value::Null) => Err(fail(
            "The backend answered null.",
            "The backend answered null: this endpoint does nothing in its release.".to_owned(),
        )),
        _ => Err(fail("The backend's answer is no list and no object.", plain(&text, SENTENCE).into_owned())),
    }
}

#[derive(Default)]
struct Records {
    records: u64,
    /// The ids of the records that have one.
    ids: HashSet<u64>,
    errors: Vec<String>,
}

/// Values of `status` that mean a failure. They are no HTTP status.
const FAILED: [&str; 3] = ["failed", "error", "errored"];
/// The maximum number of errors kept of an answer.
const MAX_ERRORS: usize = 32;

impl Records {
    fn error(&mut self, text: String) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(text);
        }
    }

    /// Counts records. 0.0.2 answers with one list per cluster.
    fn count(&mut self, items: &[Value]) {
        for item in items {
            match item {
                Value::Array(inner) => self.count(inner),
                Value::Null => {}
                Value::String(error) => self.error(error.clone()),
                item => match error_of(item) {
                    Some(error) => self.error(error),
                    None => {
                        self.records += 1;
                        self.ids.extend(item["id"].as_u64());
                    }
                },
            }
        }
    }
}

/// The text of an `error` or `errors` field, if it is set.
fn failure_in(value: &Value) -> Option<String> {
    match value {
        Value::String(_) | Value::Array(_) | Value::Object(_) => {
            detail::text_of_value(value).filter(|text| !text.is_empty())
        }
        _ => None,
    }
}

/// The text of an error record. Such a record has a failed status, or a `message` with a Python exception or a
/// `detail`, or only a `detail`. It has no `id`; every NetBox record has one.
fn error_of(item: &Value) -> Option<String> {
    let fields = item.as_object()?;
    let has = |name: &str| fields.contains_key(name);
    let has_failed = ["ok", "success"].into_iter().any(|name| fields.get(name) == Some(&Value::Bool(false)))
        || fields.get("status").and_then(Value::as_str).is_some_and(|status| FAILED.contains(&status));
    let is_detail = has("detail") && (has("python_exception") || has("message") || fields.len() == 1);
    let is_raised = has("message") && has("python_exception");
    let is_error = !has("id") && (has_failed || is_detail || is_raised);
    is_error.then(|| detail::text_of_value(item).unwrap_or_default())
}

/// Whether an answer of any status reports that there is nothing to do. 0.0.5 to 0.0.11 answer 400 to a backup sync on
/// a cluster without backups.
pub fn is_nothing_to_do(kind: Kind, status: u16, body: &[u8]) -> bool {
    kind == Kind::Backups && status == 400 && memmem::find(body, b"No backups found to process").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(body: &str) -> Result<u64, String> {
        let done = parse_result(Kind::VirtualMachines, body.as_bytes()).map_err(|failure| failure.detail)?;
        Ok(done.figures.count.0.unwrap_or_default())
    }

    #[test]
    fn records_are_counted_in_every_shape() {
        for (body, expected) in [
            ("[]", 0),
            (r#"[{"id":1},{"id":2,"message":"a","detail":"b"}]"#, 2),
            (r#"[[{"id":1},{"id":2}],[{"id":3}]]"#, 3),
            (r#"{"count":12,"created":0,"updated":12,"skipped":0}"#, 12),
            (r#"{"virtual_machines":[{"id":1}],"count":1,"warnings":["w"],"degraded":true}"#, 1),
            // What looks like an error and is none.
            (r#"[{"id":1,"status":"failed","detail":"of a device"}]"#, 1),
            (r#"{"count":2,"status":"completed","ok":true,"detail":"2 synced"}"#, 2),
            (r#"{"count":12,"error":"","errors":[]}"#, 12),
            (r#"{"count":12,"error":false}"#, 12),
            (r#"[{"message":"m"}]"#, 1),
            (r#"[{"python_exception":"p","name":"a"}]"#, 1),
            (r#"[{"detail":"x","name":"a"}]"#, 1),
            (r#"[{"id":1,"detail":"x","message":"m","python_exception":"p"}]"#, 1),
            // Python has cut a character in two.
            (r#"[{"id":1,"name":"vm\ud83d"}]"#, 1),
            (r#"[{"id":1,"name":"vm\uD83D"}]"#, 1),
        ] {
            assert_eq!(count(body), Ok(expected), "{body}");
        }
    }

    #[test]
    fn records_are_deduplicated_by_their_id_if_they_have_one() {
        for (body, expected) in [
            (r#"[[{"id":1},{"id":2}],[{"id":1}]]"#, (Some(3), Some(2))),
            (r#"[{"name":"a"},{"name":"b"}]"#, (Some(2), None)),
        ] {
            let done = parse_result(Kind::Devices, body.as_bytes()).unwrap();
            assert_eq!((done.figures.count.0, done.figures.records.0), expected, "{body}");
        }
    }

    #[test]
    fn an_error_inside_a_200_is_a_failure() {
        for (body, detail) in [
            (
                r#"[[{"id":1}],{"message":"Error to create","detail":"x","python_exception":"y"}]"#,
                "Error to create | x",
            ),
            (r#"{"count":0,"error":"boom"}"#, "boom"),
            (r#"{"count":0,"errors":["boom"]}"#, "boom"),
            (r#"["boom"]"#, "boom"),
            (r#"{"detail":"Not Found"}"#, "Not Found"),
        ] {
            assert_eq!(count(body), Err(detail.to_owned()), "{body}");
        }
        for (body, part) in [
            (r#"{"ok":false,"count":3}"#, ""),
            (r#"{"success":false}"#, ""),
            (r#"{"status":"failed","count":1}"#, ""),
            (r#"[{"id":1},{"success":false}]"#, ""),
            (r#"[{"detail":"x"}]"#, ""),
            (r#"[{"detail":"x","message":"m","count":1}]"#, ""),
            (r#"[{"detail":"x","python_exception":"p"}]"#, ""),
            (r#"[{"message":"m","python_exception":"p"}]"#, ""),
            (r#"[{"status":"error"}]"#, ""),
            ("null", "does nothing"),
            ("", "not JSON"),
            ("<html>", ""),
            ("3", ""),
        ] {
            assert!(count(body).unwrap_err().contains(part), "{body}");
        }
    }
}
