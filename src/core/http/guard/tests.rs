//! Every request of `fixtures/hostile`, whole, byte by byte and in pieces, and cases that the table cannot express.

use bytes::BytesMut;
use http::request::Parts;
use http::{HeaderName, Request};

use self::hostile::{HostileCase, table};

use super::parsed::{announces_body, check, may_upgrade};
use super::rejection::{RejectReason, Rejection};
use super::{Guard, HeadLimits, KeepAlive};

#[path = "../../../../tests/support/hostile.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with the test of the listener")]
mod hostile;
mod random;

const BOUNDS: HeadLimits = HeadLimits { head_bytes: 16_384, header_count: 100, target_bytes: 8_192 };

/// The largest limits for which the table holds.
const WIDE: HeadLimits = HeadLimits { head_bytes: 65_536, header_count: 100, target_bytes: 65_536 };

fn bytes(case: &HostileCase) -> Vec<u8> {
    case.pieces().flatten().collect()
}

/// The result of a connection.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    out: Vec<u8>,
    refused: Option<Rejection>,
    heads: u64,
    /// Waiting for a head, between messages, in a body, opaque, HTTP/2.
    state: [bool; 5],
}

fn state(guard: &Guard) -> [bool; 5] {
    [
        guard.is_waiting_for_head(),
        guard.is_between_messages(),
        guard.is_in_body(),
        guard.is_opaque(),
        guard.is_http2(),
    ]
}

fn watch<'a>(bounds: HeadLimits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut guard = Guard::new(bounds);
    let mut out = BytesMut::new();
    let mut refused = None;
    for piece in pieces {
        let before = out.len();
        match (guard.feed(piece, &mut out), &refused) {
            (Ok(()), None) => {}
            (Err(rejection), None) => refused = Some(rejection),
            (again, Some(rejection)) => {
                assert_eq!(again.as_ref(), Err(rejection), "a refusal is for good");
                assert_eq!(out.len(), before, "nothing goes through behind a refusal");
            }
        }
    }
    Outcome { out: out.to_vec(), refused, heads: guard.heads(), state: state(&guard) }
}

/// Cuts `bytes` into pieces of these sizes, repeated as needed.
fn cut<'a>(bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    sizes.iter().cycle().map_while(move |size| {
        let (piece, after) = rest.split_at(rest.len().min(*size));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

fn assert_as_expected(case: &HostileCase, outcome: &Outcome) {
    let refused = outcome.refused.as_ref();
    let found = (refused.map(|refused| refused.status), refused.map(|refused| refused.reason.as_str()));
    assert_eq!(found, (case.status, case.reason.as_deref()), "{}: {refused:?}", case.name);
    assert_eq!(outcome.heads, case.accepted, "{}", case.name);
    assert_eq!(refused.is_some(), case.closes, "{}", case.name);
}

#[test]
fn what_must_be_refused_is_refused_and_what_is_harmless_goes_through() {
    let table = table();
    for (at, case) in table.iter().enumerate() {
        assert!(table[..at].iter().all(|other| other.name != case.name), "{} is there twice", case.name);
        let bytes = bytes(case);
        for bounds in [BOUNDS, WIDE] {
            let whole = watch(bounds, [&bytes[..]]);
            assert_as_expected(case, &whole);
            assert_eq!(watch(bounds, cut(&bytes, &[1])), whole, "{}, byte by byte", case.name);
            let pieces: Vec<Vec<u8>> = case.pieces().collect();
            assert_eq!(watch(bounds, pieces.iter().map(Vec::as_slice)), whole, "{}, in pieces", case.name);
        }
    }
    let refused = table.iter().filter(|case| case.status.is_some()).count();
    assert!(refused >= 55 && table.len() - refused >= 15);
}

#[test]
fn the_table_says_which_faults_are_in_a_body() {
    for case in table().iter().filter(|case| case.status.is_some()) {
        let mut guard = Guard::new(BOUNDS);
        let mut in_body = false;
        for byte in bytes(case) {
            if guard.feed(&[byte], &mut BytesMut::new()).is_err() {
                break;
            }
            in_body = guard.is_in_body();
        }
        assert_eq!(in_body, case.in_body, "{}", case.name);
    }
}

#[test]
fn every_reason_is_in_the_table_unless_no_bytes_can_have_it() {
    let table = table();
    for reason in RejectReason::ALL {
        let found = table.iter().any(|case| case.reason.as_deref() == Some(reason.as_str()));
        // Three belong to parsed requests; the others depend on bodies and clocks.
        let is_elsewhere = matches!(
            reason,
            RejectReason::ConnectionSpecific
                | RejectReason::Loop
                | RejectReason::Body
                | RejectReason::SlowHead
                | RejectReason::SlowBody
                | RejectReason::BodyTooLarge
                | RejectReason::BodyBroken
        );
        assert_eq!(found, !is_elsewhere, "{reason:?}");
    }
}

#[test]
fn a_refusal_is_a_sentence_that_repeats_nothing_of_the_request() {
    for case in table() {
        let Some(Rejection { detail, .. }) = watch(BOUNDS, [&bytes(&case)[..]]).refused else { continue };
        assert!(detail.ends_with('.') && detail.len() < 140, "{}: {detail}", case.name);
        for word in ["s3cret", "bridge.test", "other.test", "version", "admin"] {
            let other_text = detail.replace("The version is neither", "");
            assert!(!other_text.contains(word), "{}: {detail}", case.name);
        }
    }
}

#[test]
fn what_goes_through_is_what_was_sent_but_for_empty_lines_between_requests() {
    for case in table().iter().filter(|case| case.status.is_none()) {
        let mut sent = bytes(case);
        if sent.starts_with(b"\r\n") {
            sent.drain(..2);
        }
        let text = String::from_utf8_lossy(&sent).replace("hello\r\nGET", "helloGET");
        let outcome = watch(BOUNDS, [&sent[..]]);
        assert_eq!(String::from_utf8_lossy(&outcome.out), text, "{}", case.name);
    }
}

/// The head as hyper passes it on, if it accepts it.
fn parts_of(request: &httparse::Request<'_, '_>) -> Option<Parts> {
    let version = if request.version? == 1 { http::Version::HTTP_11 } else { http::Version::HTTP_10 };
    let mut builder = http::Request::builder().method(request.method?).version(version).uri(request.path?);
    for header in request.headers.iter() {
        builder = builder.header(HeaderName::from_bytes(header.name.as_bytes()).ok()?, header.value);
    }
    Some(builder.body(()).ok()?.into_parts().0)
}

fn first_of(bytes: &[u8]) -> Option<Parts> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(bytes).ok().filter(httparse::Status::is_complete)?;
    parts_of(&request)
}

#[test]
fn a_parsed_request_is_refused_for_the_same_reason_where_it_still_shows() {
    let mut compared = 0;
    for case in table() {
        let Some(parts) = first_of(&bytes(&case)) else {
            assert_eq!(case.accepted, 0, "{}", case.name);
            continue;
        };
        let reason = check(&parts, &WIDE).err().map(|rejection| rejection.reason.as_str());
        if case.accepted > 0 {
            assert_eq!(reason, None, "{}", case.name);
            continue;
        }
        // Line endings, empty lines and a fragment are gone; the limits are in bytes.
        let is_gone = matches!(
            case.reason.as_deref(),
            Some("line_end" | "request_line" | "target_too_long" | "head_too_large")
        );
        if !is_gone && case.name != "a fragment" {
            assert_eq!(reason, case.reason.as_deref(), "{}", case.name);
            compared += 1;
        }
    }
    assert!(compared >= 50, "{compared}");
}

/// Names and values.
type Headers<'a> = &'a [(&'a str, &'a str)];

fn http2(uri: &str, headers: Headers<'_>) -> Parts {
    let mut builder = http::Request::builder().version(http::Version::HTTP_2).uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

#[test]
fn http2_has_rules_of_its_own() {
    let here = "https://bridge.test/version";
    let (host, length) = (("host", "bridge.test"), ("content-length", "5"));
    let cases: [(&str, Headers<'_>, Option<RejectReason>); 20] = [
        (here, &[], None),
        (here, &[("host", "BRIDGE.test:443"), ("te", "trailers")], None),
        ("/version", &[host], None),
        ("/version", &[], Some(RejectReason::Host)),
        (here, &[("host", "other.test")], Some(RejectReason::Authority)),
        (here, &[host, host], Some(RejectReason::Host)),
        (here, &[length, length], Some(RejectReason::ContentLength)),
        (here, &[("content-length", "+5")], Some(RejectReason::ContentLength)),
        (here, &[("expect", "x")], Some(RejectReason::Expectation)),
        ("ftp://bridge.test/version", &[], Some(RejectReason::Target)),
        ("https://user@bridge.test/version", &[], Some(RejectReason::Target)),
        ("https://bridge.test/ä", &[], Some(RejectReason::Target)),
        ("bridge.test", &[], Some(RejectReason::Target)),
        (here, &[("connection", "close")], Some(RejectReason::ConnectionSpecific)),
        (here, &[("keep-alive", "timeout=5")], Some(RejectReason::ConnectionSpecific)),
        (here, &[("proxy-connection", "close")], Some(RejectReason::ConnectionSpecific)),
        (here, &[("te", "gzip")], Some(RejectReason::ConnectionSpecific)),
        (here, &[("transfer-encoding", "chunked")], Some(RejectReason::ConnectionSpecific)),
        (here, &[("upgrade", "websocket")], Some(RejectReason::ConnectionSpecific)),
        (here, &[("x-other", "close")], None),
    ];
    for (uri, headers, expected) in cases {
        let reason = check(&http2(uri, headers), &BOUNDS).err().map(|rejection| rejection.reason);
        assert_eq!(reason, expected, "{uri} {headers:?}");
    }
    let mut tunnel = http2("bridge.test:443", &[]);
    tunnel.method = http::Method::CONNECT;
    assert_eq!(check(&tunnel, &BOUNDS).unwrap_err().status, 405);
    let mut old = http2(here, &[host]);
    old.version = http::Version::HTTP_09;
    assert_eq!(check(&old, &BOUNDS).unwrap_err().reason, RejectReason::Version);
}

#[test]
fn a_body_is_announced_by_its_length_or_its_coding() {
    let cases: [(Headers<'_>, bool); 6] = [
        (&[], false),
        (&[("content-length", "0")], false),
        (&[("content-length", "1")], true),
        (&[("content-length", "0"), ("content-length", "1")], true),
        (&[("content-length", "x")], true),
        (&[("transfer-encoding", "chunked")], true),
    ];
    for (headers, is_announced) in cases {
        assert_eq!(announces_body(&http2("/", headers)), is_announced, "{headers:?}");
    }
}

const WAITING: [bool; 5] = [true, false, false, false, false];
const BETWEEN: [bool; 5] = [false, true, false, false, false];
const IN_BODY: [bool; 5] = [false, false, true, false, false];
const OPAQUE: [bool; 5] = [false, false, false, true, false];
const HTTP2: [bool; 5] = [false, false, false, false, true];

#[test]
fn one_knows_at_any_time_what_the_connection_waits_for() {
    let mut guard = Guard::new(BOUNDS);
    let mut out = BytesMut::new();
    assert_eq!(state(&guard), BETWEEN);
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let sized = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    let chunked = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c, websocket\r\n\r\n";
    let (begun, ending) = sized.split_at(sized.len() - 1);
    for (sent, passed, expected) in [
        ("\r\n\r", "", BETWEEN),
        ("\n", "", BETWEEN),
        (begun, "", WAITING),
        (ending, sized, IN_BODY),
        ("ab", "ab", IN_BODY),
        ("c", "c", BETWEEN),
        ("\r\n", "", BETWEEN),
        (get, get, BETWEEN),
        (chunked, chunked, IN_BODY),
        ("2", "2", IN_BODY),
        ("\r\nab\r\n0\r\n", "\r\nab\r\n0\r\n", IN_BODY),
        ("X: y\r\n", "", IN_BODY),
        ("\r\n", "X: y\r\n\r\n", BETWEEN),
        (upgrade, upgrade, OPAQUE),
        ("\0\n", "\0\n", OPAQUE),
    ] {
        guard.feed(sent.as_bytes(), &mut out).unwrap();
        assert_eq!((&out.split()[..], state(&guard)), (passed.as_bytes(), expected), "{sent:?}");
    }
    guard = Guard::new(BOUNDS);
    assert!(guard.feed(b"GET / HTTP/1.1\r\n\r\n", &mut out).is_err());
    assert_eq!(state(&guard), [false; 5]);
    assert!(guard.feed(b"", &mut out).is_err());
}

#[test]
fn the_preface_of_http2_is_held_until_it_is_one() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for end in 1..preface.len() {
        let outcome = watch(BOUNDS, [&preface[..end]]);
        assert_eq!((outcome.out, outcome.refused, outcome.state), (vec![], None, WAITING), "{end}");
    }
    let outcome = watch(BOUNDS, [&preface[..], b"\0\0\0\x04"]);
    assert_eq!((outcome.out.len(), outcome.heads, outcome.state), (28, 0, HTTP2));
    // It is a preface only at the start of a connection.
    let outcome = watch(BOUNDS, [&b"PRINT / HTTP/1.1\r\nHost: a\r\n\r\n"[..], preface]);
    assert_eq!((outcome.heads, outcome.refused.unwrap().reason), (1, RejectReason::Version));
}

#[test]
fn only_a_get_of_http_1_1_leads_out_of_http_1() {
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length:";
    for (method, version, headers, expected) in [
        ("GET", "1.1", "Upgrade: websocket", OPAQUE),
        ("GET", "1.1", "Upgrade: H2C", BETWEEN),
        ("GET", "1.1", "Upgrade: ", BETWEEN),
        ("GET", "1.0", "Upgrade: websocket", BETWEEN),
        ("POST", "1.1", format!("{websocket} 5").as_str(), IN_BODY),
        ("PUT", "1.1", format!("{websocket} 0").as_str(), BETWEEN),
        ("HEAD", "1.1", format!("{websocket} 0").as_str(), BETWEEN),
        ("OPTIONS", "1.1", format!("{websocket} 0").as_str(), BETWEEN),
        ("get", "1.1", format!("{websocket} 0").as_str(), BETWEEN),
    ] {
        let head = format!("{method} / HTTP/{version}\r\nHost: a\r\n{headers}\r\n\r\n");
        assert_eq!(watch(BOUNDS, [head.as_bytes()]).state, expected, "{head}");
        let request = Request::from_parts(first_of(head.as_bytes()).unwrap(), ());
        assert_eq!(may_upgrade(&request), expected == OPAQUE, "{head}");
    }
}

#[test]
fn each_head_can_be_changed_and_be_the_last_wherever_it_stands() {
    let sent =
        b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nPOST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\
        GET /c HTTP/1.1\r\nHost: a\r\n\r\nGET /d HTTP/1.1\r\nHost: a\r\n\r\n\0";
    let (goes, _) = sent.split_at(sent.windows(6).position(|window| window == b"GET /d").unwrap());
    let expected = String::from_utf8_lossy(goes).replace("Host", "HOST");
    for size in [1, 7, 1000] {
        let mut guard = Guard::new(BOUNDS);
        let mut out = BytesMut::new();
        let mut heads = 0;
        for piece in sent.chunks(size) {
            let edited = guard.feed_with(piece, &mut out, &mut |head| {
                heads += 1;
                let at = head.windows(4).position(|window| window == b"Host").unwrap();
                head[at..at + 4].copy_from_slice(b"HOST");
                if head.starts_with(b"GET /c") { KeepAlive::No } else { KeepAlive::Yes }
            });
            assert_eq!(edited, Ok(()), "nobody reads what comes behind the last");
        }
        assert_eq!(
            (String::from_utf8_lossy(&out), heads, guard.heads()),
            (expected.as_str().into(), 3, 3),
            "{size}"
        );
    }
}

#[test]
fn no_byte_passes_after_the_last_request() {
    for (headers, body) in [
        ("", ""),
        ("Content-Length: 2\r\n", "hi"),
        ("Transfer-Encoding: chunked\r\n", "2\r\nhi\r\n0\r\nX: y\r\n\r\n"),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", ""),
    ] {
        let last = format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}");
        let sent = format!("{last}GET / HTTP/1.1\r\nHost: a\r\n\r\n\0");
        for size in [1, 1000] {
            let mut guard = Guard::new(BOUNDS);
            let mut out = BytesMut::new();
            for piece in sent.as_bytes().chunks(size) {
                guard.feed_with(piece, &mut out, &mut |_| KeepAlive::No).unwrap();
            }
            assert_eq!((String::from_utf8_lossy(&out), guard.is_ended()), (last.as_str().into(), true));
        }
    }
}

#[test]
fn a_head_and_trailers_may_have_as_many_bytes_as_they_may_and_not_one_more() {
    let small = HeadLimits { head_bytes: 64, header_count: 3, target_bytes: 20 };
    let huge = HeadLimits { head_bytes: 200_000, header_count: 100, target_bytes: 200_000 };
    let request = |target: usize, name: usize, value: usize| {
        let [target, name, value] =
            [("a", target), ("X", name), ("b", value)].map(|(c, count)| c.repeat(count));
        format!("GET /{target} HTTP/1.1\r\nHost: a\r\n{name}: {value}\r\n\r\n")
    };
    let many = |lines: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let trailers = |filler: usize| {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}0\r\nX: {}\r\n\r\n", "y".repeat(filler))
    };
    assert_eq!(request(0, 1, 32).len(), small.head_bytes);
    for (bounds, sent, expected) in [
        (small, request(0, 1, 32), None),
        (small, request(0, 1, 33), Some(RejectReason::HeadTooLarge)),
        (small, request(19, 1, 0), None),
        (small, request(20, 1, 0), Some(RejectReason::TargetTooLong)),
        (small, request(100, 1, 0), Some(RejectReason::TargetTooLong)),
        (small, many("A:\r\nB:\r\n"), None),
        (small, many("A:\r\nB:\r\nC:\r\n"), Some(RejectReason::TooManyHeaders)),
        // No limit admits what hyper cannot hold.
        (huge, request(65_533, 65_535, 0), None),
        (huge, request(65_534, 1, 0), Some(RejectReason::TargetTooLong)),
        (huge, request(0, 65_536, 0), Some(RejectReason::HeadTooLarge)),
        (WIDE, trailers(16_383 - 7), None),
        (WIDE, trailers(16_383 - 6), Some(RejectReason::TrailersTooLarge)),
    ] {
        let outcome = watch(bounds, [sent.as_bytes()]);
        assert_eq!(watch(bounds, cut(sent.as_bytes(), &[1])), outcome, "{} bytes, one by one", sent.len());
        if expected.is_none() {
            assert_eq!(outcome.state, BETWEEN, "{} bytes", sent.len());
        }
        assert_eq!(outcome.refused.map(|refused| refused.reason), expected, "{} bytes", sent.len());
    }
}

#[test]
fn the_path_of_a_whole_url_is_checked_as_one_that_stands_alone() {
    for (path, goes) in [
        ("/a", true),
        ("/a\"b", true),
        ("/a?b`c", true),
        ("/a#b", false),
        ("/a<b", false),
        ("/a>b", false),
        ("/a?b\"c", false),
        ("/a`b", false),
        ("/a\u{7f}b", false),
    ] {
        for target in [path.to_owned(), format!("http://bridge{path}")] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: bridge\r\n\r\n");
            let outcome = watch(BOUNDS, [request.as_bytes()]);
            assert_eq!(outcome.refused.is_none(), goes, "{target}: {:?}", outcome.refused);
        }
    }
}

#[test]
fn a_parsed_request_has_no_more_headers_and_no_longer_target_than_it_may() {
    for (count, goes) in [(2, true), (3, false), (4, false)] {
        let headers: Vec<_> = ["a", "b", "c", "d"].into_iter().take(count).map(|name| (name, "x")).collect();
        let bounds = HeadLimits { header_count: 2, ..BOUNDS };
        assert_eq!(check(&http2("https://bridge/", &headers), &bounds).is_ok(), goes, "{count} headers");
    }
    for (bytes, goes) in [(2, true), (3, false), (4, false)] {
        let bounds = HeadLimits { target_bytes: 2, ..BOUNDS };
        let target = format!("https://bridge/{}", "x".repeat(bytes - 1));
        assert_eq!(check(&http2(&target, &[]), &bounds).is_ok(), goes, "{bytes} bytes");
    }
}
