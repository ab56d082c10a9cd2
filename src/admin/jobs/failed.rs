//! `GET /jobs/{id}/failed`: the failed objects of a job, one by one or grouped by their error.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::Serialize;

use super::query::{DEFAULT_LIMIT, QueryError, page_size, parameters};
use super::{JobLookupError, find_record, invalid_query, parse_id};
use crate::app::App;
use crate::core::domain::outcome::ObjectFailure;
use crate::core::text::csv_field;
use crate::ledger::{FailureGroup, JobId, Ledger, LedgerUnavailable, LoggedFailure, Record};
use crate::proxy::streams::with_job_header;
use crate::respond::{self, Body, BoxError};

/// How many rows of a download are read at once.
const CHUNK_ROWS: usize = 1_000;

/// The parameters of the query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FailedQuery {
    by_error: bool,
    /// Only what follows this number, or this many groups.
    after: u64,
    limit: Option<usize>,
    /// Takes precedence over `Accept`.
    format: Option<Format>,
}

/// The format of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// A page, as an object.
    Json,
    /// One object in each line.
    Ndjson,
    /// Comma-separated values, by RFC 4180.
    Csv,
}

/// A row of the answer: a failed object, or a group of them.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum FailedRow {
    Object {
        number: Option<u64>,
        time: Option<String>,
        object: Option<&'static str>,
        name: Option<String>,
        cluster: Option<String>,
        owner: Option<String>,
        count: u64,
        error: String,
    },
    Group {
        error: String,
        count: u64,
        first: Option<u64>,
    },
}

#[derive(Serialize)]
struct FailedPage {
    next: Option<String>,
    results: Vec<FailedRow>,
    failed_total: u64,
    failed_left_out: u64,
    /// Why the list is incomplete.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// Answers a request for the failed objects of the job `id`.
pub(crate) async fn answer(app: &App, id: &str, query: &str, headers: &HeaderMap) -> Response<Body> {
    let query = match FailedQuery::parse(query) {
        Ok(query) => query,
        Err(invalid) => return invalid_query(&invalid),
    };
    let id = match parse_id(id) {
        Ok(id) => id,
        Err(missing) => return missing.answer(app),
    };
    let record = match find_record(app, id).await {
        Ok(record) => record,
        Err(missing) => return missing.answer(app),
    };
    let ledger = app.registry.ledger();
    let cut = Some(left_out(&record)).filter(|left_out| *left_out > 0).map(|left_out| {
        let limit = ledger.failed_limit(app.state().config.jobs.failed_objects);
        (left_out, cut_message(left_out, limit))
    });
    let answered = match query.format.unwrap_or_else(|| Format::from_headers(headers)) {
        Format::Json => page(ledger, &record, query, cut).await,
        format => download(ledger, record.id, query, format, cut).await,
    };
    match answered {
        Ok(response) => with_job_header(response, id),
        Err(why) => JobLookupError::Unavailable(why).answer(app),
    }
}

async fn page(
    ledger: &Arc<Ledger>,
    record: &Record,
    query: FailedQuery,
    cut: Option<(u64, String)>,
) -> Result<Response<Body>, LedgerUnavailable> {
    let size = query.limit.unwrap_or(DEFAULT_LIMIT);
    // One more shows whether there is a next page.
    let mut rows = query.read(ledger, record.id, query.after, size + 1).await?;
    let next = (rows.len() > size).then(|| {
        rows.truncate(size);
        let group = if query.by_error { "group=error&" } else { "" };
        let after = query.position(query.after, &rows);
        format!("/jobs/{}/failed?{group}limit={size}&after={after}", record.id)
    });
    let page = FailedPage {
        next,
        results: rows,
        failed_total: record.progress.counts.total().failed,
        failed_left_out: left_out(record),
        warning: cut.map(|(_, message)| message),
    };
    Ok(respond::object(StatusCode::OK, &page))
}

/// All rows, or as many as the query wants, read piece by piece. If the ledger leaves failed objects out, the last row
/// of all says so.
async fn download(
    ledger: &Arc<Ledger>,
    id: JobId,
    query: FailedQuery,
    format: Format,
    cut: Option<(u64, String)>,
) -> Result<Response<Body>, LedgerUnavailable> {
    let ledger = Arc::clone(ledger);
    let wanted = query.limit.unwrap_or(usize::MAX);
    // An error of the first read becomes a status.
    let first = query.read(&ledger, id, query.after, wanted.min(CHUNK_ROWS)).await?;
    let cut = cut.filter(|_| query.limit.is_none());
    let head = if format == Format::Csv { query.csv_head() } else { "" };
    let start = (Some((first, head)), query.after, wanted);
    let pieces = stream::try_unfold(start, move |(read, after, wanted)| {
        let (ledger, cut) = (Arc::clone(&ledger), cut.clone());
        async move {
            let Some((mut rows, head)) = read else { return Ok::<_, BoxError>(None) };
            let (after, wanted) = (query.position(after, &rows), wanted - rows.len());
            let has_more = rows.len() == CHUNK_ROWS && wanted > 0;
            let next = match has_more {
                true => Some((query.read(&ledger, id, after, wanted.min(CHUNK_ROWS)).await?, "")),
                false => None,
            };
            if let (Some((left_out, message)), None) = (cut, &next) {
                rows.push(query.cut_row(left_out, message));
            }
            let mut text = head.to_owned();
            rows.iter().for_each(|row| row.write(format, &mut text));
            Ok(Some((Frame::data(Bytes::from(text)), (next, after, wanted))))
        }
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    let content_type = match format {
        Format::Csv => "text/csv; charset=utf-8",
        _ => "application/x-ndjson",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

/// How many failed objects of a job are not in the ledger.
pub(super) fn left_out(record: &Record) -> u64 {
    record.progress.failed_left_out.min(record.progress.counts.total().failed)
}

/// Says why `left_out` failed objects are not kept. `limit` is how many are now.
fn cut_message(left_out: u64, limit: usize) -> String {
    format!(
        "{left_out} more failed objects are not kept: over the limit of {limit} (jobs.failed_objects) or of an \
         earlier ledger."
    )
}

impl Format {
    /// The format that a link names in the query, where it cannot set `Accept`.
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "ndjson" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }

    /// The format that `Accept` names, or JSON.
    fn from_headers(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut types = accepted.flat_map(|value| value.split(',')).filter_map(|part| {
            match part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
                "text/csv" => Some(Self::Csv),
                "application/x-ndjson" => Some(Self::Ndjson),
                "application/json" => Some(Self::Json),
                _ => None,
            }
        });
        types.next().unwrap_or(Self::Json)
    }
}

impl FailedQuery {
    fn parse(query: &str) -> Result<Self, QueryError> {
        let mut parsed = Self::default();
        for (name, raw, value) in parameters(query, &[])? {
            let value = value.as_deref();
            let bad = |name, allowed: String| QueryError::Value { name, value: raw.to_owned(), allowed };
            match name {
                "group" => {
                    value
                        .filter(|value| *value == "error")
                        .ok_or_else(|| bad("group", "error".to_owned()))?;
                    parsed.by_error = true;
                }
                "after" => {
                    let after = value.and_then(|value| value.parse().ok());
                    parsed.after = after.ok_or_else(|| bad("after", "a number".to_owned()))?;
                }
                "limit" => parsed.limit = Some(page_size(raw, value)?),
                "format" => {
                    let format = value.and_then(Format::from_name);
                    parsed.format =
                        Some(format.ok_or_else(|| bad("format", "json, ndjson or csv".to_owned()))?);
                }
                _ => {
                    return Err(QueryError::Unknown {
                        name: name.to_owned(),
                        path: "/jobs/{id}/failed",
                        allowed: "group, after, limit and format",
                    });
                }
            }
        }
        Ok(parsed)
    }

    async fn read(
        self,
        ledger: &Ledger,
        id: JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<FailedRow>, LedgerUnavailable> {
        Ok(if self.by_error {
            let groups = ledger.failed_by_error(id, after, limit).await?;
            groups.into_iter().map(FailedRow::from).collect()
        } else {
            ledger.failed(id, after, limit).await?.into_iter().map(FailedRow::from).collect()
        })
    }

    /// The position behind `rows`, which begin after the position `after`.
    fn position(self, after: u64, rows: &[FailedRow]) -> u64 {
        match rows.last() {
            Some(FailedRow::Object { number, .. }) => number.unwrap_or(after),
            _ => after.saturating_add(rows.len() as u64),
        }
    }

    fn csv_head(self) -> &'static str {
        if self.by_error {
            "error,count,first\r\n"
        } else {
            "number,time,object,name,cluster,owner,count,error\r\n"
        }
    }

    /// The row that says how many failed objects the ledger leaves out.
    fn cut_row(self, count: u64, error: String) -> FailedRow {
        if self.by_error {
            return FailedRow::Group { error, count, first: None };
        }
        let (number, time, object, name, cluster, owner) = (None, None, None, None, None, None);
        FailedRow::Object { number, time, object, name, cluster, owner, count, error }
    }
}

impl From<LoggedFailure> for FailedRow {
    fn from(LoggedFailure { number, at, failure }: LoggedFailure) -> Self {
        let ObjectFailure { object, name, cluster, owner, count, error } = failure;
        Self::Object {
            number: Some(number),
            time: Some(at.to_string()),
            object: Some(object.as_str()),
            name: Some(name).filter(|name| !name.is_empty()),
            cluster,
            owner,
            count,
            error,
        }
    }
}

impl From<FailureGroup> for FailedRow {
    fn from(FailureGroup { error, count, first }: FailureGroup) -> Self {
        Self::Group { error, count, first: Some(first) }
    }
}

impl FailedRow {
    /// Writes the row as a line in `format`.
    fn write(&self, format: Format, out: &mut String) {
        if format != Format::Csv {
            // Serializing this type does not fail.
            out.push_str(&serde_json::to_string(self).unwrap_or_default());
            out.push('\n');
            return;
        }
        let number = |number: &Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let text = |text: &Option<String>| text.as_deref().map(csv_field).unwrap_or_default();
        let fields = match self {
            Self::Object { number: at, time, object, name, cluster, owner, count, error } => vec![
                number(at),
                text(time),
                object.unwrap_or_default().to_owned(),
                text(name),
                text(cluster),
                text(owner),
                count.to_string(),
                csv_field(error),
            ],
            Self::Group { error, count, first } => {
                vec![csv_field(error), count.to_string(), number(first)]
            }
        };
        out.push_str(&fields.join(","));
        out.push_str("\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_first_one_that_is_known() {
        for (accept, format) in [
            ("*/*", Format::Json),
            ("text/csv", Format::Csv),
            ("text/html, TEXT/CSV; q=0.9, application/json", Format::Csv),
            ("application/x-ndjson;q=1", Format::Ndjson),
            ("application/json, text/csv", Format::Json),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(Format::from_headers(&headers), format, "{accept}");
        }
    }

    #[test]
    fn a_query_that_is_not_understood_is_refused_with_what_may_stand_there() {
        for (query, named) in [
            ("before=1", "group, after, limit and format"),
            ("group=object", "error"),
            ("limit=201", "1 to 200"),
            ("after=-1", "a number"),
            ("format=text/csv", "json, ndjson or csv"),
            ("limit=1&limit=2", "twice"),
        ] {
            let refused = FailedQuery::parse(query).unwrap_err().to_string();
            assert!(refused.contains(named), "{query}: {refused}");
        }
    }
}
