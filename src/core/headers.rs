//! Which headers may travel from one connection to the next.

use http::HeaderValue;
use http::header::{CONNECTION, HeaderMap, HeaderName, TE, TRANSFER_ENCODING, UPGRADE, VIA};

/// Headers that belong to one connection (RFC 9110, section 7.6.1), and what older peers put there.
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// How the bridge names itself in the `Via` of a request (RFC 9110, section 7.6.3).
pub const VIA_HTTP_1: HeaderValue = HeaderValue::from_static("1.1 proxbox-bridge");

/// Whether a request came through another bridge.
pub fn came_through_bridge(headers: &HeaderMap) -> bool {
    let via = headers.get_all(VIA).iter().filter_map(|via| via.to_str().ok());
    via.flat_map(|via| via.split(',')).any(|hop| hop.split_whitespace().nth(1) == Some("proxbox-bridge"))
}

/// Takes out what belongs to the connection that `headers` came on, the headers that its `Connection`
/// names included.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_is_known_by_its_name() {
        let through = |via: &'static str| {
            came_through_bridge(&HeaderMap::from_iter([(VIA, HeaderValue::from_static(via))]))
        };
        assert!(through("1.1 proxbox-bridge") && through("1.1 nginx, 2.0 proxbox-bridge (lab)"));
        assert!(!through("1.1 proxbox-bridge-lookalike") && !through("1.1 nginx") && !through(""));
        assert!(!came_through_bridge(&HeaderMap::new()));
    }

    #[test]
    fn what_a_connection_names_stays_on_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret"),
            ("connection", "x-other"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("x-kept", "1"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }
}
