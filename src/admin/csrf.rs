//! Protection against cross-site request forgery.
//!
//! A page of another site can send requests to the admin listener through an operator's browser. It cannot read the
//! answers, but a request can have effects.

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName, Method};

/// The relation of the page that made the request to this site.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The mode of the request: `navigate` for a link.
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Whether a page of another site made this request. Links (navigation with GET) are allowed from any site.
pub(super) fn is_cross_site(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_said = text(&FETCH_SITE).is_some_and(|site| matches!(site, "cross-site" | "same-site"));
    let is_seen = text(&ORIGIN).is_some_and(|origin| !is_same_host(origin, text(&HOST).unwrap_or_default()));
    let is_link = method.is_safe() && text(&FETCH_MODE).is_some_and(|mode| mode == "navigate");
    (is_said || is_seen) && !is_link
}

/// Whether `origin` is the origin of `host`. `null`, the origin of pages without one, matches no host.
fn is_same_host(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let plain = |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase();
    plain(authority) == plain(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_ours_if_its_host_and_port_are() {
        let ours = [
            ("http://127.0.0.1:8801", "127.0.0.1:8801"),
            ("http://Bridge.example", "bridge.example:80"),
            ("https://bridge.example:443", "bridge.example"),
            ("http://[::1]:8801", "[::1]:8801"),
        ];
        for (origin, host) in ours {
            assert!(is_same_host(origin, host), "{origin} {host}");
        }
        let others = [
            ("null", "127.0.0.1:8801"),
            ("http://127.0.0.1:8000", "127.0.0.1:8801"),
            ("http://evil.example", "bridge.example"),
            ("http://bridge.example:443", "bridge.example"),
            ("http://bridge.example.evil", "bridge.example"),
            ("http://bridge.example", ""),
            ("", ""),
        ];
        for (origin, host) in others {
            assert!(!is_same_host(origin, host), "{origin} {host}");
        }
    }
}
