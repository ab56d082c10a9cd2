//! Random connections, split at random positions, and parsed again by hyper's parser.

use bytes::Bytes;

use super::{BOUNDS, HTTP2, assert_as_expected, cut, parts_of, table, watch};
use crate::core::http::guard::rejection::RejectReason;

/// The parts of connections, valid and invalid: whole requests and fragments of others.
const REQUESTS: [&str; 9] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "\r\nOPTIONS * HTTP/1.1\r\nhost: a:80\r\n\r\n",
    "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n\r\n",
    "PUT http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "PUT http://a?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX: y\r\nZ:\r\n\r\n",
    "PUT http://[::1]:80 HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\nA \r\n0123456789\r\n0\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];
const REQUEST_LINES: [&str; 6] = [
    "GET / HTTP/1.1\r\n",
    "POST /a?b HTTP/1.1\r\nHost: a\r\n",
    "POST http://a HTTP/1.1\r\nHost: A:80\r\n",
    "PUT / HTTP/1.0\r\n",
    "PRI * HTTP/2.0\r\n",
    "CONNECT a:1 HTTP/1.1\r\n",
];
const HEADERS: [&str; 24] = [
    "Host: a\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 5\r\n",
    "content-length:5 \t\r\n",
    "Content-Length: 5, 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "TRANSFER-ENCODING:\tCHUNKED\r\n",
    "transfer-encoding: Chunked \r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Connection: keep-alive, te\r\n",
    "Connection: host\r\n",
    "Upgrade: h2c\r\n",
    "Upgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    "Expect: x\r\n",
    "X: y\r\n",
    "X:\r\n",
    "X: \u{e4}\u{ff} \r\n",
    "X: \u{1}\r\n",
    "X: y\n",
    "X: y\r",
    " folded\r\n",
];
const BODIES: [&str; 17] = [
    "",
    "\r\n",
    "abc",
    "hello",
    "0\r\n\r\n",
    "00;x\r\nX: y\r\n\r\n",
    "0\r\nContent-Length: 3\r\n\r\n",
    "0\r\nX : y\r\n\r\n",
    "3\r\nabc\r\n0\r\n\r\n",
    "3 ;a=\"b\"\r\nabc\r\n5\r\nhello\r\n0\r\n\r\n",
    "A\r\n0123456789\r\n",
    "a\r\n01234567890\r\n",
    "ffffffffffffffff\r\nhello",
    "+3\r\nabc\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5;\n\r\nhello\r\n",
];

fn connections() -> impl proptest::strategy::Strategy<Value = Bytes> {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};
    let made =
        (select(&REQUEST_LINES[..]), vec(select(&HEADERS[..]), 0..4), select(&BODIES[..]), any::<bool>());
    let made = made.prop_map(|(line, headers, body, has_host)| {
        let host = if has_host && !line.contains("Host") { "Host: a\r\n" } else { "" };
        format!("{line}{host}{}\r\n{body}", headers.concat())
    });
    let request = prop_oneof![select(&REQUESTS[..]).prop_map(str::to_owned), made];
    // Some bytes are then changed, inserted or removed.
    let change = (any::<Index>(), 0..3u8, select(&b"\r\n\t :;,05aH#\0\x7f\xff"[..]));
    let changes = prop_oneof![2 => Just(vec![]), 1 => vec(change, 1..3)];
    (vec(request, 1..6), changes).prop_map(|(requests, changes)| {
        let mut bytes = requests.concat().into_bytes();
        for (at, how, byte) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        bytes.into()
    })
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        cases: 64, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn no_way_to_cut_the_table_makes_a_difference(sizes in proptest::collection::vec(1usize..60, 1..8)) {
        for case in table() {
            let bytes = super::bytes(&case);
            let outcome = watch(BOUNDS, cut(&bytes, &sizes));
            assert_as_expected(&case, &outcome);
            proptest::prop_assert_eq!(outcome, watch(BOUNDS, [&bytes[..]]), "{}", case.name);
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        cases: 20_000, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn what_goes_through_is_read_by_hyper_as_by_the_guard(
        bytes in connections(),
        sizes in proptest::collection::vec(1usize..40, 1..8),
    ) {
        let whole = watch(BOUNDS, [&bytes[..]]);
        proptest::prop_assert_eq!(&watch(BOUNDS, cut(&bytes, &sizes)), &whole);
        proptest::prop_assert_eq!(&watch(BOUNDS, cut(&bytes, &[1])), &whole);
        if whole.state == HTTP2 {
            return Ok(());
        }
        // A chunk line that is rejected in the middle was passed on up to that point.
        let is_between = whole.state[1] || whole.state[0];
        let in_body = whole.refused.as_ref().is_some_and(|refused| refused.reason == RejectReason::Chunk);
        let (heads, at_end) = read(&whole.out);
        proptest::prop_assert_eq!(heads, whole.heads);
        if whole.refused.is_none() {
            proptest::prop_assert_eq!(at_end, is_between);
        } else if in_body {
            proptest::prop_assert!(!at_end);
        }
    }
}

/// The result of hyper's parser: the number of requests, and whether the bytes end between two of them. It shares no
/// code with the guard.
fn read(mut bytes: &[u8]) -> (u64, bool) {
    let mut count = 0;
    while !bytes.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(length) = request.parse(bytes).unwrap() else {
            return (count, false);
        };
        parts_of(&request).unwrap();
        count += 1;
        bytes = &bytes[length..];
        let value = |name: &str| {
            let mut found = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            found.next_back().map(|header| std::str::from_utf8(header.value).unwrap())
        };
        let is_upgrade = |header: &httparse::Header<'_>| {
            let mut protocols = header.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            header.name.eq_ignore_ascii_case("upgrade")
                && protocols.any(|protocol| !matches!(protocol, b"" | b"h2c"))
        };
        if request.headers.iter().any(is_upgrade)
            && (request.method, request.version) == (Some("GET"), Some(1))
        {
            return (count, false);
        }
        let rest = match (value("transfer-encoding"), value("content-length")) {
            (Some(_), _) => behind_chunks(bytes),
            (None, Some(length)) => bytes.get(length.parse().unwrap()..),
            (None, None) => Some(bytes),
        };
        let Some(rest) = rest else { return (count, false) };
        bytes = rest;
    }
    (count, true)
}

fn behind_chunks(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let httparse::Status::Complete((length, size)) = httparse::parse_chunk_size(bytes).unwrap() else {
            return None;
        };
        bytes = &bytes[length..];
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).ok().filter(|size| *size < bytes.len())?;
        let (_, rest) = bytes.split_at(size);
        bytes = rest.strip_prefix(b"\r\n")?;
    }
    let mut trailers = [httparse::EMPTY_HEADER; 100];
    match httparse::parse_headers(bytes, &mut trailers).unwrap() {
        httparse::Status::Complete((length, _)) => Some(&bytes[length..]),
        httparse::Status::Partial => None,
    }
}
