//! What the log is filtered by, while the bridge runs.

use http::{Response, StatusCode};
use serde_json::json;

use crate::respond::{self, Body};
use crate::telemetry::log::{self, FilterError};

/// The filter that is in force.
pub(super) fn filter() -> Response<Body> {
    match log::filter() {
        Some(filter) => respond::json(StatusCode::OK, json!({ "filter": filter }).to_string().into()),
        None => filter_unavailable(),
    }
}

/// Filters the log as `query` says.
pub(super) fn set_filter(query: &str) -> Response<Body> {
    let mut filter = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name != "filter" || filter.replace(value).is_some() {
            return bad_filter("It knows one parameter.");
        }
    }
    let Some(filter) = filter.filter(|filter| !filter.is_empty()) else {
        return bad_filter("There is none.");
    };
    match log::set(&filter) {
        Ok(before) => {
            let body = json!({ "filter": filter, "before": before });
            respond::json(StatusCode::OK, body.to_string().into())
        }
        Err(error @ FilterError::Bad(_)) => bad_filter(&format!("{error}.")),
        Err(FilterError::NoHandle) => filter_unavailable(),
    }
}

fn bad_filter(why: &str) -> Response<Body> {
    let detail = format!("{why} PUT /log?filter=info, debug, proxbox_bridge=trace and the like.");
    respond::message(StatusCode::BAD_REQUEST, "Not a filter of the log.", &detail)
}

fn filter_unavailable() -> Response<Body> {
    let detail = FilterError::NoHandle.to_string();
    respond::message(StatusCode::CONFLICT, "The log cannot be filtered.", &detail)
}
