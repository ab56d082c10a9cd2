//! Ids that follow a request from the client to the backend, and appear in the logs of all three.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use crate::telemetry::Route;

/// The id of a request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Its position in a trace (<https://www.w3.org/TR/trace-context/>).
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The longest request id that is accepted from a client, in bytes.
const MAX_ID: usize = 128;

/// The ids of one request.
#[derive(Clone, Debug)]
pub(super) struct RequestTrace {
    /// The id of the request: the client's, if it is valid.
    pub(super) request: String,
    /// The id of the trace, 32 hexadecimal digits.
    pub(super) trace: String,
}

impl RequestTrace {
    /// Reads the ids from `headers`, or creates them, and sets them there.
    pub(super) fn from_headers(headers: &mut HeaderMap) -> Self {
        let request_id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_plain(id));
        let mut digits = Uuid::encode_buffer();
        let request = match request_id {
            Some(id) => id.to_owned(),
            None => Uuid::new_v4().hyphenated().encode_lower(&mut digits).to_owned(),
        };
        let parent = headers.get(TRACEPARENT).and_then(|parent| parent.to_str().ok());
        let parent = match parent.filter(|parent| is_parent(parent)) {
            Some(parent) => parent.to_owned(),
            None => {
                headers.remove(TRACESTATE);
                let trace = Uuid::new_v4().simple().encode_lower(&mut digits).to_owned();
                let span = &Uuid::new_v4().simple().encode_lower(&mut digits)[..16];
                ["00-", &trace, "-", span, "-01"].concat()
            }
        };
        let trace = parent[3..35].to_owned();
        for (name, value) in [(REQUEST_ID, &request), (TRACEPARENT, &parent)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        Self { request, trace }
    }

    /// Sets the id in the headers of the response, except for NetBox requests: NetBox sets the id of its changelog.
    pub(super) fn apply(&self, route: Route, headers: &mut HeaderMap) {
        if route == Route::Netbox && headers.contains_key(REQUEST_ID) {
            return;
        }
        if let Ok(value) = HeaderValue::from_str(&self.request) {
            headers.insert(REQUEST_ID, value);
        }
    }
}

/// Returns whether an id can be logged unescaped.
fn is_plain(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(plain)
}

/// Returns whether `parent` is valid and must be forwarded: of this version, or of a later one with further fields.
fn is_parent(parent: &str) -> bool {
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |part: &str, length: usize| is_hex(part, length) && part.bytes().any(|byte| byte != b'0');
    let mut fields = parent.splitn(5, '-');
    let [Some(version), Some(trace), Some(span), Some(flags)] = std::array::from_fn(|_| fields.next()) else {
        return false;
    };
    is_hex(version, 2)
        && version != "ff"
        && is_id(trace, 32)
        && is_id(span, 16)
        && is_hex(flags, 2)
        && (version != "00" || fields.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn good_names_are_kept_and_others_are_made_anew() {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_static("job-7/try:2"));
        headers.insert(TRACEPARENT, HeaderValue::from_static(PARENT));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        let trace = RequestTrace::from_headers(&mut headers);
        assert_eq!((trace.request.as_str(), trace.trace.as_str()), ("job-7/try:2", &PARENT[3..35]));
        assert_eq!((headers[TRACEPARENT].to_str().unwrap(), headers.len()), (PARENT, 3));

        headers.insert(REQUEST_ID, HeaderValue::from_static("two words"));
        headers.insert(TRACEPARENT, HeaderValue::from_static("00-0-0-01"));
        let trace = RequestTrace::from_headers(&mut headers);
        assert_eq!(headers[REQUEST_ID], trace.request.as_str());
        assert!(is_plain(&trace.request) && is_parent(headers[TRACEPARENT].to_str().unwrap()));
        assert!(!headers.contains_key(TRACESTATE), "it belongs to the parent that is gone");
    }

    #[test]
    fn a_parent_is_what_the_standard_says() {
        assert!(is_parent(PARENT));
        assert!(is_parent(&PARENT.replacen("00", "cc", 1)));
        assert!(is_parent(&format!("{}-more", PARENT.replacen("00", "01", 1))));
        for bad in [
            "",
            "00",
            &PARENT[..54],
            &format!("{PARENT}-more"),
            &PARENT.to_uppercase(),
            &PARENT.replacen("00", "ff", 1),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
            "é0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(!is_parent(bad), "{bad}");
        }
    }
}
