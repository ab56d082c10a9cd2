//! Headers: which ones are forwarded, and how to read them.

use http::header::{
    ACCEPT, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, TE, TRANSFER_ENCODING,
    UPGRADE, VIA,
};
use http::{HeaderValue, Version};

/// Hop-by-hop headers (RFC 9110, section 7.6.1), including those of older peers.
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// The `Via` of a response that a bridge forwards (RFC 9110, section 7.6.3).
pub const RESPONSE_VIA: HeaderValue = HeaderValue::from_static("1.1 proxbox-bridge");
/// The name of every bridge in `Via`, without the pseudonym of the instance.
const NAME: &[u8] = b"proxbox-bridge";
/// The length of the id in a pseudonym, in hexadecimal digits.
const ID_DIGITS: usize = 8;

/// The name of one instance in the `Via` of its requests, by which it detects a request that came back: a pseudonym,
/// which a proxy on the way must keep, unlike a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pseudonym(String);

impl Pseudonym {
    /// The pseudonym of the instance `id`.
    pub fn new(id: u32) -> Self {
        Self(format!("proxbox-bridge-{id:08x}"))
    }

    /// Appends the entry of this instance to the `Via` of a request that it received over `version`.
    pub fn append_to(&self, headers: &mut HeaderMap, version: Version) {
        let received = match version {
            Version::HTTP_2 => "2.0",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        };
        // The pseudonym has ASCII letters, digits and dashes.
        headers.append(VIA, HeaderValue::try_from(format!("{received} {}", self.0)).unwrap_or(RESPONSE_VIA));
    }

    /// Whether this instance has sent the request with `headers`.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        names_in_via(headers).any(|name| name == self.0.as_bytes())
    }
}

/// The names of the proxies in `Via`.
fn names_in_via(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    list(headers, &VIA)
        .filter_map(|hop| hop.split(u8::is_ascii_whitespace).filter(|part| !part.is_empty()).nth(1))
}

/// The non-empty elements of a list (RFC 9110, section 5.6.1). They may not be UTF-8.
pub fn elements(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// The list elements of all headers of this name.
pub fn list<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a> {
    headers.get_all(name).iter().flat_map(|value| elements(value.as_bytes()))
}

/// The text of a header value. HTTP defines no encoding. A value that is not UTF-8 is read as Latin-1, which Python's
/// http.client and others send where it suffices.
pub fn text(value: &HeaderValue) -> String {
    let bytes = value.as_bytes();
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}

/// The `Host`, if it is text.
pub fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST)?.to_str().ok()
}

/// Whether the `Content-Type` is that of an event stream.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| names_event_stream(kind.as_bytes()))
}

/// Whether an `Accept` asks for an event stream by name.
pub fn accepts_event_stream(headers: &HeaderMap) -> bool {
    list(headers, &ACCEPT).any(names_event_stream)
}

/// Whether a media type, with or without parameters, is that of an event stream.
fn names_event_stream(kind: &[u8]) -> bool {
    const TYPE: &[u8] = b"text/event-stream";
    kind.get(..TYPE.len()).is_some_and(|start| start.eq_ignore_ascii_case(TYPE))
}

/// The `Content-Encoding` of a body, except for `identity`, which the bridge requests.
pub fn content_encoding(headers: &HeaderMap) -> Option<&str> {
    let is_coding = |coding: &[u8]| !coding.eq_ignore_ascii_case(b"identity");
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let coded = values.find(|value| elements(value.as_bytes()).any(is_coding))?;
    Some(coded.to_str().unwrap_or("unknown"))
}

/// Whether a request passed through another bridge.
pub fn came_through_bridge(headers: &HeaderMap) -> bool {
    let is_id = |id: &[u8]| id.len() == ID_DIGITS && id.iter().all(u8::is_ascii_hexdigit);
    names_in_via(headers).any(|name| match name.strip_prefix(NAME) {
        // Older bridges have no pseudonym.
        Some(rest) => rest.is_empty() || rest.strip_prefix(b"-").is_some_and(is_id),
        None => false,
    })
}

/// Whether the sender of `headers` accepts trailers. In HTTP/1, a `TE` is valid only if `Connection` names it (RFC
/// 9110, section 10.1.4); HTTP/2 has no `Connection`.
pub fn accepts_trailers(headers: &HeaderMap, version: Version) -> bool {
    let is_for_this_hop = || list(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case(b"te"));
    list(headers, &TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
        && (version == Version::HTTP_2 || is_for_this_hop())
}

/// Whether the `Upgrade` names WebSocket and no other protocol.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = list(headers, &UPGRADE);
    protocols.next().is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
        && protocols.next().is_none()
}

/// Removes the hop-by-hop headers, including those that `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> =
        list(headers, &CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok()).collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_is_known_by_its_name() {
        for (via, is_bridge) in [
            (&b"1.1 proxbox-bridge"[..], true),
            (b"1.1 nginx, 2.0 proxbox-bridge (lab)", true),
            (b"1.1 proxbox-bridge-lookalike", false),
            (b"1.1 proxbox-bridge-0123abcd", true),
            (b"1.1 proxbox-bridge-0123abcde", false),
            (b"1.1 nginx", false),
            (b"", false),
            (b"1.1 caf\xe9, 1.1 proxbox-bridge", true),
        ] {
            let headers = HeaderMap::from_iter([(VIA, HeaderValue::from_bytes(via).unwrap())]);
            assert_eq!(came_through_bridge(&headers), is_bridge, "{}", via.escape_ascii());
        }
        assert!(!came_through_bridge(&HeaderMap::new()));
    }

    #[test]
    fn an_instance_knows_its_own_pseudonym_behind_other_proxies() {
        let (own, other) = (Pseudonym::new(0xab), Pseudonym::new(0xcd));
        let mut headers = HeaderMap::new();
        own.append_to(&mut headers, Version::HTTP_2);
        assert_eq!(headers[VIA], "2.0 proxbox-bridge-000000ab");
        assert!(own.is_in(&headers) && !other.is_in(&headers));
        headers
            .insert(VIA, HeaderValue::from_static("1.1 nginx, 1.1 proxbox-bridge-000000ab (lab),1.0 squid"));
        other.append_to(&mut headers, Version::HTTP_11);
        assert!(own.is_in(&headers) && other.is_in(&headers) && came_through_bridge(&headers));
        headers.insert(VIA, RESPONSE_VIA);
        assert!(!own.is_in(&headers));
        headers.clear();
        own.append_to(&mut headers, Version::HTTP_10);
        assert_eq!(headers[VIA], "1.0 proxbox-bridge-000000ab");
    }

    #[test]
    fn trailers_are_taken_by_a_te_that_the_connection_names() {
        let takes = |version, headers: &[(HeaderName, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            accepts_trailers(&headers.collect(), version)
        };
        let te = (TE, "deflate;q=0.5, Trailers");
        assert!(takes(Version::HTTP_11, &[te.clone(), (CONNECTION, "keep-alive, te")]));
        assert!(!takes(Version::HTTP_11, std::slice::from_ref(&te)), "it is for a hop that is over");
        assert!(!takes(Version::HTTP_11, &[te.clone(), (CONNECTION, "keep-alive")]));
        assert!(!takes(Version::HTTP_11, &[(TE, "deflate"), (CONNECTION, "te")]));
        assert!(takes(Version::HTTP_2, &[te]), "HTTP/2 has no Connection");
    }

    #[test]
    fn the_text_of_a_header_is_utf8_or_else_latin1() {
        for (bytes, is) in [
            (&b"cafe"[..], "cafe"),
            ("café".as_bytes(), "café"),
            (b"caf\xe9", "café"),
            (b"\xc4rger f\xfcr \xa3", "Ärger für £"),
        ] {
            assert_eq!(text(&HeaderValue::from_bytes(bytes).unwrap()), is);
        }
    }

    #[test]
    fn what_a_connection_names_stays_on_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret"),
            ("connection", "x-other"),
            ("x-odd", "1"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("x-kept", "1"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers.append(CONNECTION, HeaderValue::from_bytes(b"caf\xe9, x-odd").unwrap());
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }
}
