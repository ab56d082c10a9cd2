//! `GET /log` and `PUT /log`: the filter of the log at run time.

use http::{Response, StatusCode};
use serde_json::json;

use super::Requester;
use crate::core::domain::error_code::ErrorCode;
use crate::respond::{self, Body};
use crate::telemetry::AuditAction;
use crate::telemetry::log::{self, FilterError};

/// Answers `GET /log`: the current filter.
pub(super) fn filter() -> Response<Body> {
    match log::filter() {
        Some(filter) => respond::json(StatusCode::OK, json!({ "filter": filter }).to_string().into()),
        None => filter_unavailable(),
    }
}

/// Answers `PUT /log`: sets the filter in `query`.
pub(super) fn set_filter(query: &str, requester: &Requester) -> Response<Body> {
    let mut filter = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name != "filter" || filter.replace(value).is_some() {
            return bad_filter("The query has one parameter, filter.");
        }
    }
    let Some(filter) = filter.filter(|filter| !filter.is_empty()) else {
        return bad_filter("The filter is missing.");
    };
    match log::set(&filter) {
        Ok(before) => {
            requester.audit(AuditAction::LogFilter { before: &before, filter: &filter });
            let body = json!({ "filter": filter, "before": before });
            respond::json(StatusCode::OK, body.to_string().into())
        }
        Err(error @ FilterError::Bad(_)) => bad_filter(&format!("{error}.")),
        Err(FilterError::NoHandle) => filter_unavailable(),
    }
}

fn bad_filter(why: &str) -> Response<Body> {
    let detail = format!("{why} Examples: PUT /log?filter=debug, PUT /log?filter=proxbox_bridge=trace.");
    respond::error(StatusCode::BAD_REQUEST, ErrorCode::InvalidLogFilter, "Invalid log filter.", &detail)
}

fn filter_unavailable() -> Response<Body> {
    let detail = FilterError::NoHandle.to_string();
    respond::error(
        StatusCode::CONFLICT,
        ErrorCode::LogFilterFixed,
        "The log filter cannot be changed.",
        &detail,
    )
}
