//! The requests: every documented one of a listing, and variants that HTTP allows.

use std::fmt;

use super::listing::{Listing, PathItem};
use super::own::{ALIASES, is_stream};
use crate::support::bridge::KEY;

/// The host name of all requests, direct ones too.
pub(super) const HOST: &str = "netbox.example:8800";
/// The header that identifies requests.
pub(super) const TAG: &str = "x-walk";
const KEY_HEADER: &str = "X-Proxbox-API-Key";

/// Paths that listings lack: pages, files, and missing paths.
const UNLISTED: [&str; 10] = [
    "/", "/auth/bootstrap-status", "/auth/keys", "/auth/register-key", "/docs", "/health", "/no/such/path",
    "/openapi.json", "/static/style.css", "/ws",
];
/// Below it are hundreds of paths with one generated handler. They share the undocumented variants.
const GENERATED: &str = "/proxmox/api2/";
/// A value of a parameter in a path that no backend expects.
const PARAMETER: &str = "a%2Fb%2f..%2F%E2%98%83%C3%a9;v=1,2+@:~!$&'()*%25%00%7e";
/// A query that no backend expects.
const QUERY: &str = "a=%2F%2f..&b=1+2%20;c=3&a=&a&=v&&e=%E2%98%83&%00=/?:@-._~!$'()*,[]{}|\\^`%";

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: String,
    pub(super) target: String,
    /// Beside `Host` and the framing of the body.
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: RequestBody,
}

/// How a body is sent.
#[derive(Clone, Debug)]
pub(super) enum RequestBody {
    /// There is none.
    Nothing,
    /// With its length.
    Whole(Vec<u8>),
    /// Without it.
    Pieces(Vec<Vec<u8>>),
}

impl Call {
    pub(super) fn new(method: &str, target: impl Into<String>) -> Self {
        Self {
            method: method.to_owned(),
            target: target.into(),
            headers: Vec::new(),
            body: RequestBody::Nothing,
        }
    }

    fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn body(mut self, body: RequestBody) -> Self {
        self.body = body;
        self
    }

    pub(super) fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    /// Whether a browser asks with it whether a page of another origin may send another request.
    pub(super) fn is_preflight(&self) -> bool {
        self.method == "OPTIONS"
            && self.headers.iter().any(|(name, _)| name == "Access-Control-Request-Method")
    }

    /// Whether it is plain from its head that it has no body.
    pub(super) fn is_bodiless(&self) -> bool {
        match &self.body {
            RequestBody::Nothing => true,
            RequestBody::Whole(body) => body.is_empty(),
            RequestBody::Pieces(_) => false,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}

/// The requests for the paths in `listing`, and for others.
pub(super) fn calls(listing: &Listing) -> Vec<Call> {
    let mut calls = vec![Call::new("OPTIONS", "*")];
    for (template, place) in &listing.paths {
        push_documented(template, place, &mut calls);
        push_undocumented(template, place, &mut calls);
    }
    for path in UNLISTED.into_iter().chain(ALIASES) {
        for method in ["GET", "POST"] {
            calls.push(Call::new(method, path));
        }
        push_undocumented(path, &PathItem::default(), &mut calls);
        calls.extend((0..10).map(|at| with_body(path, at)));
    }
    // The backend has another response to each, which the bridge may cache.
    for path in ["/", "/version", "/health"] {
        calls.extend((0..40).map(|at| Call::new("GET", format!("{path}?{at}"))));
    }
    for (at, call) in calls.iter_mut().enumerate() {
        // A stream would begin a sync. This parameter is one that the bridge refuses.
        if call.method == "GET" && is_stream(call.path()) {
            let joint = if call.target.contains('?') { '&' } else { '?' };
            call.target.push_str(&format!("{joint}bridge.no=1"));
        }
        call.headers.extend(extra_headers(at));
        call.headers.push(("X-Walk".to_owned(), at.to_string().into_bytes()));
    }
    calls
}

/// The same with the key each time, for a backend that counts who has none.
pub(super) fn calls_with_key(listing: &Listing) -> Vec<Call> {
    let mut calls = calls(listing);
    for call in &mut calls {
        if !call.headers.iter().any(|(name, _)| name == KEY_HEADER) {
            call.headers.push((KEY_HEADER.to_owned(), KEY.into()));
        }
    }
    calls
}

/// Adds the documented requests.
fn push_documented(template: &str, place: &PathItem, calls: &mut Vec<Call>) {
    let path = place.concrete(template);
    for (method, needs) in &place.methods {
        let query: Vec<String> = needs.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let target = if query.is_empty() { path.clone() } else { format!("{path}?{}", query.join("&")) };
        let mut call = Call::new(method, target);
        if let Some(body) = &needs.body {
            let body = RequestBody::Whole(body.to_string().into_bytes());
            call = call.header("Content-Type", "application/json").body(body);
        }
        calls.push(call);
    }
}

/// Adds other requests that HTTP allows.
fn push_undocumented(template: &str, place: &PathItem, calls: &mut Vec<Call>) {
    let path = place.concrete(template);
    let preflight = Call::new("OPTIONS", path.as_str()).header("Origin", "https://netbox.example");
    let mut all = vec![
        Call::new("HEAD", path.as_str()),
        preflight.header("Access-Control-Request-Method", "PUT"),
        Call::new("BREW", path.as_str()),
        Call::new("GET", format!("{path}/")),
        Call::new("GET", format!("/{path}").replace("/create/", "//create/./../")),
        Call::new("GET", format!("{path}?{QUERY}")),
        with_body(&path, calls.len()),
    ];
    all.extend(place.with(template, PARAMETER).map(|path| Call::new("GET", path)));
    if template.starts_with(GENERATED) {
        all = vec![all.swap_remove(calls.len() % all.len())];
    }
    calls.append(&mut all);
}

/// One of the ways to send a body, or none, that are not usual.
fn with_body(path: &str, at: usize) -> Call {
    let text = |text: &str| text.as_bytes().to_vec();
    let bytes: Vec<u8> = (0..=255).collect();
    match at % 10 {
        0 => Call::new("GET", path).body(RequestBody::Pieces(vec![text("in"), text("pieces")])),
        1 => Call::new("GET", path).body(RequestBody::Whole(text("{\"in\": \"one\"}"))),
        2 => Call::new("HEAD", path).body(RequestBody::Pieces(vec![text("in"), text("pieces")])),
        3 => Call::new("POST", path).body(RequestBody::Whole(Vec::new())),
        4 => Call::new("POST", path),
        5 => Call::new("PATCH", path).body(RequestBody::Pieces(vec![bytes; 40])),
        6 => Call::new("DELETE", path).body(RequestBody::Whole(text("gone"))),
        7 => Call::new("PUT", format!("{path}?")).body(RequestBody::Pieces(Vec::new())),
        8 => Call::new("GET", path).body(RequestBody::Pieces(Vec::new())),
        _ => Call::new("POST", path).body(RequestBody::Whole(bytes.repeat(100))),
    }
}

/// Headers that do not depend on the request.
fn extra_headers(at: usize) -> Vec<(String, Vec<u8>)> {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let long = "x".repeat(if at.is_multiple_of(4) { 6000 } else { 60 });
    let headers: &[(&str, &str)] = match at % 9 {
        0 => &[],
        1 => &[("Cookie", "csrftoken=1; sessionid=\"a,b\"; empty="), ("Accept-Language", "de, en;q=0.5")],
        2 => &[("Accept-Encoding", "gzip, br"), ("If-None-Match", "W/\"a\", \"b\""), ("Range", "bytes=0-9")],
        3 => &[("X-oDD", "a,  b"), ("x-odd", ""), ("X-ODD", "\tc;d=\"e\"")],
        4 => &[(KEY_HEADER, KEY), ("Origin", "https://netbox.example"), ("Accept", "*/*")],
        5 => &[
            ("Authorization", "Basic bmV0Ym94OnBhc3N3b3Jk"),
            ("Via", "1.0 other"),
            ("X-Request-Id", "job-7"),
            ("traceparent", PARENT),
            ("tracestate", "a=b"),
        ],
        6 => &[
            ("Connection", "Keep-Alive, TE"),
            ("Keep-Alive", "timeout=9"),
            ("TE", "trailers, deflate;q=0.5"),
            ("Proxy-Connection", "keep-alive"),
            ("User-Agent", "python-requests/2.32.3"),
        ],
        7 => &[("X-Long", &long), ("Upgrade-Insecure-Requests", "1"), ("Max-Forwards", "0"), ("DNT", "1")],
        _ => {
            &[("TE", "trailers"), ("Connection", "TE"), ("Cache-Control", "no-cache"), ("Pragma", "no-cache")]
        }
    };
    let mut headers: Vec<(String, Vec<u8>)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    if at.is_multiple_of(4) {
        headers.push(("X-Proxbox-Actor".to_owned(), b"caf\xe9 \xc3\xa9".to_vec()));
    }
    headers
}
