//! Protection against cross-site request forgery and DNS rebinding.
//!
//! A page of another site can send requests to the bridge through the browser of somebody who can reach it. It cannot
//! read the answers, but a request can have effects. A page whose DNS name an attacker points at the bridge
//! (DNS rebinding) is same-origin to the browser, but its `Host` is not a name of the bridge.

use core::net::IpAddr;

use http::header::{ACCEPT_LANGUAGE, COOKIE, ORIGIN, REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName, Method};

use super::url::BackendUrl;

/// The relation of the page that made the request to this site.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The mode of the request: `navigate` for a link.
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Whether a page of another site than `host` made this request. `allowed` are origins whose pages may make it.
pub fn is_cross_site(headers: &HeaderMap, host: Option<&str>, allowed: &[BackendUrl]) -> bool {
    let origin = text(headers, &ORIGIN);
    let is_allowed = |origin: &str| origin.parse().is_ok_and(|origin| allowed.contains(&origin));
    if origin.is_some_and(is_allowed) {
        return false;
    }
    match text(headers, &FETCH_SITE) {
        // The browser has compared the origins. Here a proxy may have removed the port from `Host`.
        Some("same-origin") => false,
        Some("cross-site" | "same-site") => true,
        _ => origin.is_some_and(|origin| !is_same_host(origin, host.unwrap_or_default())),
    }
}

/// Whether the request follows a link, which may be on a page of any site. A method with effects makes it a form.
pub fn is_link(method: &Method, headers: &HeaderMap) -> bool {
    method.is_safe() && text(headers, &FETCH_MODE) == Some("navigate")
}

/// Whether a browser may have sent the request, judged by headers that browsers send and scripts usually do not. Browsers
/// send `Accept-Language` with every request, and pages cannot remove it.
pub fn may_be_browser(headers: &HeaderMap) -> bool {
    [ORIGIN, FETCH_SITE, REFERER, COOKIE, ACCEPT_LANGUAGE].iter().any(|name| headers.contains_key(name))
        || text(headers, &USER_AGENT).is_some_and(|agent| agent.starts_with("Mozilla/"))
}

/// Whether the `Host` of a request is a name of the bridge: one of `hosts`, the host of an origin in `allowed`, an
/// address, or a name without a dot, such as `localhost`. Only names of the public DNS can be pointed at the bridge by
/// others, and those have a dot.
pub fn is_own_host(host: &str, hosts: &[String], allowed: &[BackendUrl]) -> bool {
    let Ok(url) = format!("http://{host}").parse::<BackendUrl>() else { return false };
    let name = url.host().trim_end_matches('.');
    !name.contains('.')
        || name.parse::<IpAddr>().is_ok()
        || hosts.iter().any(|host| host == name)
        || allowed.iter().any(|origin| origin.host() == name)
}

/// The value of a header; empty if it is not text.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
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

    #[test]
    fn a_browser_that_compared_the_origins_is_believed_where_a_proxy_removed_the_port_from_the_host() {
        let headers = |site| {
            let headers = [(ORIGIN, "https://bridge.example:8843"), (FETCH_SITE, site)];
            HeaderMap::from_iter(headers.map(|(name, value)| (name, value.parse().unwrap())))
        };
        let host = Some("bridge.example");
        assert!(!is_cross_site(&headers("same-origin"), host, &[]));
        for site in ["same-site", "cross-site", "none", "same-origin, same-origin"] {
            assert!(is_cross_site(&headers(site), host, &[]), "{site}");
        }
    }

    #[test]
    fn a_host_is_ours_if_nobody_else_can_have_it_or_the_configuration_names_it() {
        let (hosts, allowed) = (["lab.example".to_owned()], ["https://netbox.example:8443".parse().unwrap()]);
        for host in [
            "127.0.0.1:8800", "[::1]:8800", "[::ffff:10.0.0.1]", "LOCALHOST", "proxbox-bridge:8800",
            "lab.example.:8800", "netbox.example",
        ] {
            assert!(is_own_host(host, &hosts, &allowed), "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.example", "a.lab.example", "localhost.example:8800", "a b"]
        {
            assert!(!is_own_host(host, &hosts, &allowed), "{host}");
        }
    }
}
