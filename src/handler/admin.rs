//! The admin listener.
//!
//! | path | answer |
//! |---|---|
//! | `GET /livez` | 200 `ok` as long as the process can answer |
//! | `GET /metrics` | the numbers that Prometheus asks for |

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};

use crate::respond::{self, Body};
use crate::telemetry;

/// Answers a request to the admin listener.
pub fn answer<B>(request: &Request<B>) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/livez") => {
            text("text/plain; charset=utf-8", Bytes::from_static(b"ok\n"))
        }
        (&Method::GET | &Method::HEAD, "/metrics") => {
            text("text/plain; version=0.0.4; charset=utf-8", telemetry::metrics_text().into())
        }
        (_, "/livez" | "/metrics") => respond::only("GET, HEAD"),
        _ => {
            respond::said(StatusCode::NOT_FOUND, "Not found.", "The admin listener has /livez and /metrics.")
        }
    }
}

fn text(content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(respond::whole(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
