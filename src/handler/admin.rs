//! The admin listener.
//!
//! | path | answer |
//! |---|---|
//! | `GET /livez` | 200 `ok` as long as the process can answer |

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};

use crate::respond::{self, Body};

/// Answers a request to the admin listener.
pub fn answer<B>(request: &Request<B>) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/livez") => {
            let mut response = Response::new(respond::whole(Bytes::from_static(b"ok\n")));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            response
        }
        (_, "/livez") => respond::only("GET, HEAD"),
        _ => respond::said(StatusCode::NOT_FOUND, "Not found.", "The admin listener has /livez."),
    }
}
