//! The query of `GET /jobs`: filters and pages.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use percent_encoding::percent_decode_str;

use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::Outcome;
use crate::core::http::url::BackendUrl;
use crate::ledger::{JobFilter, Record, Timestamp};

/// A page of the list of jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JobQuery {
    filter: JobFilter,
    /// The most jobs on the page.
    pub(super) size: usize,
}

/// Why a query is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::admin) enum QueryError {
    #[error("{name:?} is not a parameter of {path}. It has {allowed}.")]
    Unknown { name: String, path: &'static str, allowed: &'static str },
    #[error("{0:?} is given twice.")]
    Twice(String),
    #[error("{name}={value} is invalid. Expected: {allowed}.")]
    Value { name: &'static str, value: String, allowed: String },
}

pub(super) const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

/// The number of rows on a page, from the parameter `limit`: `value`, which was sent as `raw`.
pub(super) fn page_size(raw: &str, value: Option<&str>) -> Result<usize, QueryError> {
    let size = value.and_then(|value| value.parse().ok()).filter(|size| (1..=MAX_LIMIT).contains(size));
    let allowed = || format!("a number from 1 to {MAX_LIMIT}");
    size.ok_or_else(|| QueryError::Value { name: "limit", value: raw.to_owned(), allowed: allowed() })
}

impl JobQuery {
    /// Parses `query` at the time `now`. `url_of` is the URL of the backend with a name.
    ///
    /// # Errors
    ///
    /// [`QueryError`] names the valid parameters or values.
    pub(super) fn parse(
        query: &str,
        now: Timestamp,
        url_of: impl Fn(&str) -> Option<BackendUrl>,
    ) -> Result<Self, QueryError> {
        let filter = JobFilter { limit: DEFAULT_LIMIT, ..JobFilter::default() };
        let mut page = Self { filter, size: DEFAULT_LIMIT };
        for (name, raw, value) in parameters(query, &["outcome"])? {
            page.set(name, (raw, value.as_deref()), now, &url_of)?;
        }
        Ok(page)
    }

    fn set(
        &mut self,
        name: &str,
        (raw, value): (&str, Option<&str>),
        now: Timestamp,
        url_of: &dyn Fn(&str) -> Option<BackendUrl>,
    ) -> Result<(), QueryError> {
        let bad = |name, allowed: String| QueryError::Value { name, value: raw.to_owned(), allowed };
        let filter = &mut self.filter;
        match name {
            "kind" => {
                let kinds = || join_or(Kind::all().map(Kind::as_str));
                filter.kind = Some(value.and_then(Kind::from_name).ok_or_else(|| bad("kind", kinds()))?);
            }
            "outcome" => {
                let outcomes = || join_or(Outcome::ALL.into_iter().map(Outcome::as_str));
                let outcome = value.and_then(Outcome::from_name);
                filter.outcomes.push(outcome.ok_or_else(|| bad("outcome", outcomes()))?);
            }
            "failed" => {
                let failed = match value {
                    Some("true") => Some(true),
                    Some("false") => Some(false),
                    _ => None,
                };
                filter.failed = Some(failed.ok_or_else(|| bad("failed", "true or false".to_owned()))?);
            }
            "backend" => {
                let expected =
                    || "the name of a backend, or its URL, as in the field backend of jobs".to_owned();
                let url = value.and_then(|value| value.parse().ok().or_else(|| url_of(value)));
                filter.backend = Some(url.ok_or_else(|| bad("backend", expected()))?);
            }
            "since" => {
                let expected = || "a time such as 2026-11-24T15:16:46Z, or an age such as 1h".to_owned();
                let since = value.and_then(|value| parse_time(value, now));
                filter.since = Some(since.ok_or_else(|| bad("since", expected()))?);
            }
            "limit" => self.size = page_size(raw, value)?,
            "before" => {
                let before = value.and_then(|value| value.parse().ok());
                filter.before = Some(before.ok_or_else(|| bad("before", "the id of a job".to_owned()))?);
            }
            _ => {
                return Err(QueryError::Unknown {
                    name: name.to_owned(),
                    path: "/jobs",
                    allowed: "kind, outcome, failed, backend, since, limit and before",
                });
            }
        }
        Ok(())
    }

    /// The filter for the ledger. Its limit is one more than the page, which shows whether there is a next page.
    pub(super) fn filter(&self) -> JobFilter {
        JobFilter { limit: self.size + 1, ..self.filter.clone() }
    }

    /// Whether a job matches the filters.
    pub(super) fn matches(&self, record: &Record) -> bool {
        let JobFilter { kind, outcomes, failed, backend, since, before, limit: _ } = &self.filter;
        let outcome = record.end.as_ref().map(|end| end.outcome);
        let has_failures = record.progress.counts.total().failed > 0;
        kind.is_none_or(|kind| record.kind == kind)
            && (outcomes.is_empty() || outcome.is_some_and(|outcome| outcomes.contains(&outcome)))
            && failed.is_none_or(|failed| has_failures == failed)
            && backend.as_ref().is_none_or(|backend| record.backend.known() == Some(backend))
            && since.is_none_or(|since| record.queued >= since)
            && before.is_none_or(|before| record.id < before)
    }

    /// The path of the next page, if `records` has more jobs than the page.
    pub(super) fn next(&self, records: &[Record]) -> Option<String> {
        let last = records.get(..self.size)?.last().filter(|_| records.len() > self.size)?;
        let JobFilter { kind, outcomes, failed, backend, since, .. } = &self.filter;
        let outcomes = outcomes.iter().map(|outcome| Some(format!("outcome={}", outcome.as_str())));
        let parts = [
            failed.map(|failed| format!("failed={failed}")),
            // Host names, addresses and ports have no characters that need escaping in a query.
            backend.as_ref().map(|backend| format!("backend={backend}")),
            // As a time, not an age: all pages have the same bound.
            since.map(|since| format!("since={since}")),
            Some(format!("limit={}&before={}", self.size, last.id)),
        ];
        let kind = kind.map(|kind| format!("kind={kind}"));
        let parts: Vec<String> = [kind].into_iter().chain(outcomes).chain(parts).flatten().collect();
        Some(format!("/jobs?{}", parts.join("&")))
    }
}

/// A parameter of a query: its name, its text, and its decoded value if that is valid and not empty.
type Parameter<'a> = (&'a str, &'a str, Option<Cow<'a, str>>);

/// The parameters of `query`. Only the ones in `repeatable` may be given twice.
///
/// # Errors
///
/// [`QueryError::Twice`].
pub(in crate::admin) fn parameters<'a>(
    query: &'a str,
    repeatable: &[&str],
) -> Result<Vec<Parameter<'a>>, QueryError> {
    let mut parameters: Vec<(&str, &str, _)> = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, raw) = part.split_once('=').unwrap_or((part, ""));
        if !repeatable.contains(&name) && parameters.iter().any(|(known, ..)| *known == name) {
            return Err(QueryError::Twice(name.to_owned()));
        }
        parameters.push((name, raw, decoded(raw).filter(|value| !value.is_empty())));
    }
    Ok(parameters)
}

/// The valid values of a parameter, for an error.
pub(in crate::admin) fn join_or<'a>(values: impl Iterator<Item = &'a str>) -> String {
    format!("one of {}", values.collect::<Vec<_>>().join(", "))
}

/// A time in RFC 3339, or an age before `now`.
fn parse_time(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Some(now.before(ago));
    }
    let (local, east) = offset(text).unwrap_or_else(|| (text.to_owned(), 0));
    let at = humantime::parse_rfc3339(&local).ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = Duration::from_secs(east.unsigned_abs());
    let at = if east < 0 { at + seconds } else { at.saturating_sub(seconds) };
    Some(Timestamp(u64::try_from(at.as_millis()).ok()?))
}

/// A time with an offset such as `+02:00`: the local time as if in UTC, and the offset in seconds east.
fn offset(text: &str) -> Option<(String, i64)> {
    let (local, offset) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
    let sign = match offset.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
    let is_time = hours < 24 && minutes < 60;
    is_time.then(|| (format!("{local}Z"), sign * (i64::from(hours) * 3600 + i64::from(minutes) * 60)))
}

/// `text` percent-decoded. `None` if an escape is invalid or the result is not UTF-8.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    let is_escape =
        |rest: &str| rest.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    text.split('%').skip(1).all(is_escape).then(|| percent_decode_str(text).decode_utf8().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_764_000_000_000);

    fn url_of(name: &str) -> Option<BackendUrl> {
        (name == "lab").then(|| "http://10.0.0.7:8800".parse().unwrap())
    }

    #[test]
    fn a_time_is_a_moment_in_any_zone_or_an_age() {
        for (text, wanted) in [
            ("1970-01-01T00:00:01Z", 1_000),
            ("1970-01-01T02:00:01.5+02:00", 1_500),
            ("1970-01-01T00:00:01-00:30", 1_801_000),
            ("1h", NOW.0 - 3_600_000),
            ("1h 30m", NOW.0 - 5_400_000),
        ] {
            assert_eq!(parse_time(text, NOW), Some(Timestamp(wanted)), "{text}");
        }
        for text in ["yesterday", "1970-01-01", "1970-01-01T00:00:01+99:00", "+00:00", "é0:00", ""] {
            assert_eq!(parse_time(text, NOW), None, "{text}");
        }
    }

    #[test]
    fn a_query_that_is_not_understood_is_refused_with_what_may_stand_there() {
        for (query, named) in [
            ("kinds=devices", "kind, outcome, failed, backend, since, limit and before"),
            ("kind=device", "one of devices, storage"),
            ("kind=", "one of devices, storage"),
            ("outcome=running", "one of completed, errored"),
            ("failed=yes", "true or false"),
            ("outcome=errored&outcome=", "one of completed, errored"),
            ("backend=default", "URL"),
            ("since=soon", "1h"),
            ("limit=0", "1 to 200"),
            ("limit=201", "1 to 200"),
            ("before=1", "the id of a job"),
            ("kind=devices&kind=storage", "twice"),
            ("kind=%zz", "one of devices"),
            ("kind=devices%", "one of devices"),
            ("kind=devices%7", "one of devices"),
            ("kind=%+1", "one of devices"),
            ("kind=%ff", "one of devices"),
        ] {
            let refused = JobQuery::parse(query, NOW, url_of).unwrap_err().to_string();
            assert!(refused.contains(named), "{query}: {refused}");
        }
    }

    #[test]
    fn percent_encoded_filters_are_decoded() {
        let page =
            JobQuery::parse("&backend=http%3A%2F%2FPVE%3a8000%2f&since=1h%2030m&limit=7&", NOW, url_of)
                .unwrap();
        assert_eq!(page.filter.backend, "http://pve:8000".parse().ok());
        let named = JobQuery::parse("backend=la%62", NOW, url_of).unwrap();
        assert_eq!(named.filter.backend, url_of("lab"));
        assert_eq!(page.filter.since, Some(Timestamp(NOW.0 - 5_400_000)));
        assert_eq!((page.size, page.filter().limit), (7, 8));
    }
}
