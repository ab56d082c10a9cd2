//! What the log is filtered by, while the bridge runs.

use http::{Response, StatusCode};
use serde_json::json;

use crate::respond::{self, Body};
use crate::telemetry::log::{self, FilterError};

/// The filter that is in force.
pub(super) fn filter() -> Response<Body> {
    match log::filter() {
        Some(filter) => respond::json(StatusCode::OK, json!({ "filter": filter }).to_string().into()),
        None => not_ours(),
    }
}

/// Filters the log as `query` says.
pub(super) fn change(query: &str) -> Response<Body> {
    let mut filter = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name != "filter" || filter.replace(value).is_some() {
            return wanted("It knows one parameter.");
        }
    }
    let Some(filter) = filter.filter(|filter| !filter.is_empty()) else { return wanted("There is none.") };
    match log::set(&filter) {
        Ok(before) => {
            let body = json!({ "filter": filter, "before": before });
            respond::json(StatusCode::OK, body.to_string().into())
        }
        Err(error @ FilterError::Bad(_)) => wanted(&format!("{error}.")),
        Err(FilterError::NotOurs) => not_ours(),
    }
}

fn wanted(why: &str) -> Response<Body> {
    let detail = format!("{why} PUT /log?filter=info, debug, proxbox_bridge=trace and the like.");
    respond::said(StatusCode::BAD_REQUEST, "Not a filter of the log.", &detail)
}

fn not_ours() -> Response<Body> {
    let detail = FilterError::NotOurs.to_string();
    respond::said(StatusCode::CONFLICT, "The log cannot be filtered.", &detail)
}
