//! URLs of backends, of NetBox, and of webhooks.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::fmt;
use std::str::FromStr;

use http::uri::PathAndQuery;
use secrecy::{ExposeSecret, SecretString};

/// A URL of the form `http://HOST[:PORT]` or `https://HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendUrl {
    is_tls: bool,
    host: String,
    port: u16,
}

impl BackendUrl {
    /// Whether the scheme is `https`.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The host: a name in lower case, or an address; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 1 to 65535; by default, that of the scheme.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the port is that of the scheme.
    pub fn has_default_port(&self) -> bool {
        self.port == self.default_port()
    }

    const fn default_port(&self) -> u16 {
        if self.is_tls { 443 } else { 80 }
    }

    /// Host and port as in a `Host` header: IPv6 in brackets, without the port of the scheme.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.has_default_port() { host } else { format!("{host}:{}", self.port) }
    }
}

impl From<SocketAddr> for BackendUrl {
    /// The URL of a server that speaks plain HTTP.
    fn from(address: SocketAddr) -> Self {
        Self { is_tls: false, host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority())
    }
}

/// Why a text is not a [`BackendUrl`]. It does not repeat the text, which may contain a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBackendUrl {
    /// There is no `://`.
    #[error("it has no scheme")]
    NoScheme,
    /// The scheme is neither `http` nor `https`.
    #[error("its scheme is neither http nor https")]
    Scheme,
    /// There is an `@`.
    #[error("it contains a user name or password: use backend.api_key_file for the key")]
    Userinfo,
    /// There is a path, a query or a fragment.
    #[error("it has a path, a query or a fragment: end it after the port")]
    Path,
    /// There is an `@` before the host of a webhook.
    #[error("it contains a user name or password: use notify.secret_file for a token")]
    Credentials,
    /// The path or the query has a character that is not allowed there.
    #[error("its path or query has a character that must be percent-encoded, or a fragment")]
    Target,
    /// The host is missing or invalid.
    #[error("its host is neither a name nor an address (IPv6 is written in brackets)")]
    Host,
    /// The port is invalid.
    #[error("its port is not a number from 1 to 65535")]
    Port,
}

impl FromStr for BackendUrl {
    type Err = InvalidBackendUrl;

    fn from_str(text: &str) -> Result<Self, InvalidBackendUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidBackendUrl::NoScheme)?;
        if rest.contains('@') {
            return Err(InvalidBackendUrl::Userinfo);
        }
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(InvalidBackendUrl::Scheme),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '\\']) {
            return Err(InvalidBackendUrl::Path);
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or(InvalidBackendUrl::Host)?;
                (address.parse::<Ipv6Addr>().map_err(|_| InvalidBackendUrl::Host)?.to_string(), port)
            }
            None => {
                let (name, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
                (host_name(name)?, port)
            }
        };
        let mut url = Self { is_tls, host, port: 0 };
        url.port = port_number(port, url.default_port())?;
        Ok(url)
    }
}

/// A URL with a path and a query, which may be a secret: `https://HOST[:PORT]/PATH?QUERY`.
#[derive(Clone)]
pub struct HttpUrl {
    origin: BackendUrl,
    /// It begins with a slash.
    target: SecretString,
}

impl HttpUrl {
    /// The scheme, the host and the port.
    pub fn origin(&self) -> &BackendUrl {
        &self.origin
    }

    /// The path and the query, which may be a secret.
    pub fn target(&self) -> &str {
        self.target.expose_secret()
    }

    /// The whole URL, which may be a secret.
    pub fn expose(&self) -> String {
        format!("{}{}", self.origin, self.target())
    }
}

impl PartialEq for HttpUrl {
    fn eq(&self, other: &Self) -> bool {
        self.origin == other.origin && self.target() == other.target()
    }
}

impl Eq for HttpUrl {}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/…", self.origin)
    }
}

impl FromStr for HttpUrl {
    type Err = InvalidBackendUrl;

    fn from_str(text: &str) -> Result<Self, InvalidBackendUrl> {
        let host = text.find("://").ok_or(InvalidBackendUrl::NoScheme)? + 3;
        let end = text[host..].find(['/', '?', '#']).map_or(text.len(), |at| host + at);
        let (origin, target) = text.split_at(end);
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        if origin.contains('@') {
            return Err(InvalidBackendUrl::Credentials);
        }
        let is_valid = !target.contains('#') && PathAndQuery::try_from(target.as_str()).is_ok();
        let origin = origin.parse()?;
        if is_valid { Ok(Self { origin, target: target.into() }) } else { Err(InvalidBackendUrl::Target) }
    }
}

fn host_name(name: &str) -> Result<String, InvalidBackendUrl> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.trim_end_matches('.').is_empty() || !name.bytes().all(plain) {
        return Err(InvalidBackendUrl::Host);
    }
    // A name that ends in a number is an address or a typing error: `http://8800`, `http://10.0.0.256`.
    let last = name.rsplit('.').next().unwrap_or(name);
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) && name.parse::<Ipv4Addr>().is_err()
    {
        return Err(InvalidBackendUrl::Host);
    }
    Ok(name.to_ascii_lowercase())
}

fn port_number(text: &str, default: u16) -> Result<u16, InvalidBackendUrl> {
    let Some(digits) = text.strip_prefix(':') else {
        return if text.is_empty() { Ok(default) } else { Err(InvalidBackendUrl::Port) };
    };
    // `u16::from_str` accepts a leading plus sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidBackendUrl::Port);
    }
    digits.parse().ok().filter(|&port| port != 0).ok_or(InvalidBackendUrl::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_port_and_authority_are_read() {
        for (text, host, port, authority) in [
            ("http://netbox", "netbox", 80, "netbox"),
            ("HTTP://Backend_1.Example/", "backend_1.example", 80, "backend_1.example"),
            ("http://10.0.0.2:8800", "10.0.0.2", 8800, "10.0.0.2:8800"),
            ("http://[::1]:8800/", "::1", 8800, "[::1]:8800"),
            ("http://[2001:DB8::0:1]", "2001:db8::1", 80, "[2001:db8::1]"),
            ("https://backend", "backend", 443, "backend"),
            ("HTTPS://backend:80", "backend", 80, "backend:80"),
            ("https://[::1]:443/", "::1", 443, "[::1]"),
        ] {
            let url: BackendUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.port(), url.authority().as_str()), (host, port, authority), "{text}");
            assert_eq!(url.to_string().parse(), Ok(url), "{text}");
        }
    }

    #[test]
    fn a_url_with_a_path_keeps_it_and_does_not_show_it() {
        for (text, origin, target) in [
            ("https://hooks.example", "https://hooks.example", "/"),
            ("https://hooks.example:8443/T1/s3cret?x=1", "https://hooks.example:8443", "/T1/s3cret?x=1"),
            ("http://[::1]?auth=s3cret", "http://[::1]", "/?auth=s3cret"),
            ("http://nb/T/s3cret", "http://nb", "/T/s3cret"),
        ] {
            let url: HttpUrl = text.parse().unwrap();
            assert_eq!((url.origin().to_string().as_str(), url.target()), (origin, target));
            assert_eq!(url.expose(), format!("{origin}{target}"));
            assert!(!format!("{url:?}").contains("s3cret"), "{url:?}");
        }
        for (text, why) in [
            ("hooks.example/x", InvalidBackendUrl::NoScheme),
            ("https://me:secret@hooks.example/x", InvalidBackendUrl::Credentials),
            ("https://hooks.example/a b", InvalidBackendUrl::Target),
            ("https://hooks.example/a#b", InvalidBackendUrl::Target),
        ] {
            assert_eq!(text.parse::<HttpUrl>(), Err(why), "{text}");
        }
        let [one, same, path, host] =
            ["http://nb/1", "http://nb/1", "http://nb/2", "http://nc/1"].map(|text| text.parse::<HttpUrl>());
        assert!(one == same && one != path && one != host);
    }

    #[test]
    fn an_invalid_url_is_refused_with_its_reason() {
        use InvalidBackendUrl::*;
        for (text, why) in [
            ("", NoScheme),
            ("backend:8800", NoScheme),
            ("ws://backend", Scheme),
            ("https://me:secret@backend", Userinfo),
            ("http://backend/api", Path),
            ("http://backend//", Path),
            ("http://backend?x=1", Path),
            ("http://backend#x", Path),
            ("http://", Host),
            ("http://:8800", Host),
            ("http://.", Host),
            ("http://8800", Host),
            ("http://10.0.0.256", Host),
            ("http://back end", Host),
            ("http:// backend", Host),
            ("http://[::1", Host),
            ("http://[fe80::1%25eth0]", Host),
            ("http://::1", Host),
            ("http://[::1]8800", Port),
            ("http://backend:", Port),
            ("http://backend:0", Port),
            ("http://backend:+80", Port),
            ("http://backend:65536", Port),
            ("http://backend:80:80", Port),
        ] {
            assert_eq!(text.parse::<BackendUrl>(), Err(why), "{text}");
        }
    }
}
