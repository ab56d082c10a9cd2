//! The admin listener.
//!
//! | path | answer |
//! |---|---|
//! | `GET /livez` | 200 `ok` as long as the process can answer |
//! | `GET /readyz` | 200 when jobs can begin, 503 with the reasons when not |
//! | `GET /metrics` | the numbers that Prometheus asks for |

use std::net::IpAddr;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::Bridge;
use crate::config::WithoutLedger;
use crate::ledger::Health;
use crate::respond::{self, Body};
use crate::telemetry;

/// Answers a request to the admin listener from `address`.
pub async fn answer(bridge: &Bridge, request: Request<Incoming>, _address: IpAddr) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/readyz") => ready(bridge),
        (&Method::GET | &Method::HEAD, "/livez") => {
            text("text/plain; charset=utf-8", Bytes::from_static(b"ok\n"))
        }
        (&Method::GET | &Method::HEAD, "/metrics") => {
            text("text/plain; version=0.0.4; charset=utf-8", telemetry::metrics_text().into())
        }
        (_, "/livez" | "/readyz" | "/metrics") => respond::only("GET, HEAD"),
        _ => respond::said(
            StatusCode::NOT_FOUND,
            "Not found.",
            "The admin listener has /livez, /readyz and /metrics.",
        ),
    }
}

/// Whether jobs can begin, and why not. A ledger that does not work is told of also where jobs go on
/// without it.
fn ready(bridge: &Bridge) -> Response<Body> {
    let ledger = bridge.registry.ledger().health().borrow().clone();
    let must_record = bridge.config.jobs.without_ledger == WithoutLedger::Refuse;
    let draining = bridge.registry.is_draining();
    let is_ready = !draining && (ledger == Health::Available || !must_record);
    let ledger = match ledger {
        Health::Available => json!({ "available": true }),
        Health::Unavailable(reason) => json!({ "available": false, "reason": reason }),
    };
    let body = json!({ "ready": is_ready, "draining": draining, "ledger": ledger });
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    respond::json(status, body.to_string().into())
}

fn text(content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(respond::whole(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
