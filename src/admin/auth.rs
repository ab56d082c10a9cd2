//! Authentication on the admin listener.
//!
//! Everything but health requires a token, in `Authorization` or as a session cookie. The tokens of
//! `admin_read_token_file` allow reading alone. The peer address
//! alone proves nothing: requests through a proxy, an SSH tunnel or a container port come from a loopback address, too.
//! With `admin_open_reads`, reading needs no token on a loopback address if `Host` is a loopback name, which excludes
//! DNS rebinding, and no header shows that a proxy forwarded the request.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::app::host_name;
use crate::config::{AdminToken, Config};
use crate::core::domain::credential::{ApiKey, hexadecimal};
use crate::core::http::headers::host;

/// The access that a request requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequiredAccess {
    /// None.
    None,
    /// The token, or a local request with `admin_open_reads`.
    Read,
    /// The token.
    Write,
}

/// The rights of a caller.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Whether it may read without a token: a local request with `admin_open_reads`.
    pub(super) is_local: bool,
    /// The token that it presented, itself or by a valid session.
    token: Option<AdminToken>,
}

/// Why access is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthError {
    /// The request has no token, or a wrong one.
    NoToken,
    /// The token of the request allows reading alone.
    ReadOnly,
    /// No token is configured.
    NotConfigured,
}

/// The lifetime of a session.
pub(super) const SESSION: Duration = Duration::from_secs(12 * 60 * 60);

/// How much of the name of a user is kept, in characters.
const MAX_ACTOR: usize = 80;

impl Caller {
    /// The caller that sent `headers` to the listener at `listen`.
    pub(super) fn from_request(config: &Config, listen: Option<SocketAddr>, headers: &HeaderMap) -> Self {
        let on_loopback = listen.is_some_and(|address| address.ip().to_canonical().is_loopback());
        let find = |is_presented: &dyn Fn(&ApiKey) -> bool| {
            config.admin_tokens.iter().find(|token| is_presented(&token.secret)).cloned()
        };
        Self {
            is_local: config.admin_open_reads
                && on_loopback
                && has_loopback_host(headers)
                && !is_forwarded(headers),
            token: find(&|token| has_token(token, headers))
                .or_else(|| find(&|token| has_session(config, token, headers))),
        }
    }

    /// The name of its token.
    pub(super) fn name(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.name.as_str())
    }

    /// The user behind its token. `actor` is the one that the request names; without a token it proves nothing. A token
    /// with a name of its own is named beside it.
    pub(super) fn user(&self, actor: Option<String>) -> Option<String> {
        let token = self.token.as_ref()?;
        let actor = actor.map(|actor| actor.chars().take(MAX_ACTOR).collect::<String>());
        Some(match actor {
            None => token.name.clone(),
            Some(actor) if !token.is_named => actor,
            Some(actor) => format!("{actor} ({})", token.name),
        })
    }

    /// Whether it may read.
    pub(super) fn may_read(&self) -> bool {
        self.is_local || self.token.is_some()
    }

    /// Whether it may change something.
    pub(super) fn is_operator(&self) -> bool {
        self.token.as_ref().is_some_and(|token| !token.is_read_only)
    }

    /// Checks that the caller has the access in `demand`.
    pub(super) fn authorize(&self, demand: RequiredAccess, config: &Config) -> Result<(), AuthError> {
        let is_allowed = match demand {
            RequiredAccess::None => true,
            RequiredAccess::Read => self.may_read(),
            RequiredAccess::Write => self.is_operator(),
        };
        match &self.token {
            _ if is_allowed => Ok(()),
            Some(_) => Err(AuthError::ReadOnly),
            None if config.admin_tokens.is_empty() => Err(AuthError::NotConfigured),
            None => Err(AuthError::NoToken),
        }
    }
}

/// Whether `Host` is a loopback address or `localhost`. Any other name could be pointed at this machine by its owner.
fn has_loopback_host(headers: &HeaderMap) -> bool {
    let Some(host) = host(headers) else { return false };
    let name = host_name(host);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Whether a header shows that a proxy forwarded the request.
fn is_forwarded(headers: &HeaderMap) -> bool {
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"]
        .iter()
        .any(|name| headers.contains_key(*name))
}

fn has_token(token: &ApiKey, headers: &HeaderMap) -> bool {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let header = header.and_then(|value| value.split_once(' '));
    header.is_some_and(|(scheme, header)| {
        scheme.eq_ignore_ascii_case("bearer") && is_token(token, header.trim())
    })
}

/// Whether `presented` is the token, in constant time.
pub(super) fn is_token(token: &ApiKey, presented: &str) -> bool {
    let [right, presented] = [token.expose(), presented].map(|text| Sha256::digest(text.as_bytes()));
    right.as_slice().ct_eq(presented.as_slice()).into()
}

fn has_session(config: &Config, token: &ApiKey, headers: &HeaderMap) -> bool {
    let name = cookie_name(config);
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies =
        cookies.flat_map(|value| value.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    let now = seconds(SystemTime::now());
    cookies.any(|(known, value)| known == name && is_session(token, value, now))
}

/// The name of the session cookie. It has the port, because browsers share cookies between the ports of a host.
pub(super) fn cookie_name(config: &Config) -> String {
    format!("proxbox_bridge_{}", config.admin_listen.port())
}

/// The cookie value of a session that starts now: its expiry time, with a MAC keyed with the token. It stays valid
/// across a restart, and becomes invalid when the token changes.
pub(super) fn session(token: &ApiKey) -> String {
    let ends = seconds(SystemTime::now() + SESSION);
    format!("{ends}.{}", proof(token, ends).unwrap_or_default())
}

fn is_session(token: &ApiKey, cookie: &str, now: u64) -> bool {
    let Some((ends, given)) = cookie.split_once('.') else { return false };
    let Ok(ends) = ends.parse::<u64>() else { return false };
    let right = proof(token, ends);
    ends > now && right.is_some_and(|right| right.as_bytes().ct_eq(given.as_bytes()).into())
}

/// HMAC accepts keys of any length. `None`, which it never returns, would match no cookie.
fn proof(token: &ApiKey, ends: u64) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(token.expose().as_bytes()).ok()?;
    mac.update(format!("proxbox-bridge session until {ends}").as_bytes());
    Some(hexadecimal(&mac.finalize().into_bytes()))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HOST;

    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::Flags;

    const TOKEN: &str = "0123456789abcdef";

    fn config(token: Option<&str>) -> Config {
        Config { admin_open_reads: true, ..closed(token) }
    }

    /// The default configuration with a token.
    fn closed(token: Option<&str>) -> Config {
        let flags = Flags {
            backend: Some("http://127.0.0.1:1".to_owned()),
            admin_token_file: token.map(|_| "token".to_owned()),
            ..Flags::default()
        };
        Config::parse(&flags, [], |_| Ok(token.unwrap_or_default().as_bytes().to_vec())).unwrap()
    }

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    const LOOPBACK: Option<SocketAddr> = Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8801));
    const NETWORK: Option<SocketAddr> = Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8801));

    #[test]
    fn reading_takes_the_token_on_this_machine_too_unless_it_is_opened() {
        let local = headers(&[(HOST, "127.0.0.1:8801")]);
        let with_token = headers(&[(HOST, "127.0.0.1:8801"), (AUTHORIZATION, &format!("Bearer {TOKEN}"))]);
        for (config, headers, expected) in [
            (closed(Some(TOKEN)), &local, Err(AuthError::NoToken)),
            (closed(Some(TOKEN)), &with_token, Ok(())),
            (closed(None), &local, Err(AuthError::NotConfigured)),
            (self::config(None), &local, Ok(())),
        ] {
            assert_eq!(
                Caller::from_request(&config, LOOPBACK, headers).authorize(RequiredAccess::Read, &config),
                expected
            );
        }
    }

    #[test]
    fn reading_that_was_opened_is_free_on_this_machine_under_its_own_name() {
        let config = config(Some(TOKEN));
        let reads = |listen, host: &str| {
            Caller::from_request(&config, listen, &headers(&[(HOST, host)]))
                .authorize(RequiredAccess::Read, &config)
        };
        for host in ["127.0.0.1:8801", "localhost:8801", "LOCALHOST", "[::1]:8801", "127.0.0.1", "localhost."]
        {
            assert_eq!(reads(LOOPBACK, host), Ok(()), "{host}");
            assert_eq!(reads(NETWORK, host), Err(AuthError::NoToken), "{host}");
        }
        for host in ["evil.example:8801", "127.0.0.1.evil.example", "localhost.evil.example", "192.0.2.1", ""]
        {
            assert_eq!(reads(LOOPBACK, host), Err(AuthError::NoToken), "{host}");
        }
        let nameless = Caller::from_request(&config, LOOPBACK, &HeaderMap::new());
        assert!(!nameless.may_read());
        for name in ["x-forwarded-for", "forwarded", "via"] {
            let name = http::HeaderName::from_static(name);
            let passed_on = headers(&[(HOST, "127.0.0.1"), (name, "192.0.2.1")]);
            assert!(
                !Caller::from_request(&config, LOOPBACK, &passed_on).may_read(),
                "a proxy may let anybody in"
            );
        }
    }

    #[test]
    fn acting_takes_the_token_everywhere_and_none_is_none() {
        let config = config(Some(TOKEN));
        let acts = |value: &str| {
            let headers = headers(&[(HOST, "localhost"), (AUTHORIZATION, value)]);
            Caller::from_request(&config, LOOPBACK, &headers).authorize(RequiredAccess::Write, &config)
        };
        assert_eq!(acts(&format!("Bearer {TOKEN}")), Ok(()));
        assert_eq!(acts(&format!("bearer  {TOKEN}")), Ok(()));
        for wrong in ["Bearer 0123456789abcdeF", "Bearer ", "Bearer", TOKEN, "Basic 0123456789abcdef"] {
            assert_eq!(acts(wrong), Err(AuthError::NoToken), "{wrong}");
        }
        let config = self::config(None);
        let nobody = Caller::from_request(&config, LOOPBACK, &headers(&[(AUTHORIZATION, "Bearer ")]));
        assert_eq!(nobody.authorize(RequiredAccess::Write, &config), Err(AuthError::NotConfigured));
        assert_eq!(nobody.authorize(RequiredAccess::None, &config), Ok(()));
    }

    #[test]
    fn a_session_is_of_its_token_and_ends() {
        let token: ApiKey = TOKEN.parse().unwrap();
        let cookie = session(&token);
        let (ends, proof) = cookie.split_once('.').unwrap();
        let ends: u64 = ends.parse().unwrap();
        assert!(is_session(&token, &cookie, ends - 1));
        assert!(!is_session(&token, &cookie, ends), "it is over");
        assert!(!is_session(&"fedcba9876543210".parse().unwrap(), &cookie, 0), "another token");
        assert!(
            !is_session(&token, &format!("{}.{proof}", ends + 1), 0),
            "it is not for longer than was said"
        );
        for bad in ["", ".", "1", &format!("{ends}."), &format!("x.{proof}")] {
            assert!(!is_session(&token, bad, 0), "{bad}");
        }
        let config = config(Some(TOKEN));
        let cookies = format!("theme=dark; {}={cookie}", cookie_name(&config));
        assert!(Caller::from_request(&config, None, &headers(&[(COOKIE, &cookies)])).is_operator());
    }
}
