//! The secrets in client requests, which must not be stored or logged.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, PROXY_AUTHORIZATION};
use http::request::Parts;
use http_body::Frame;
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::backend::API_KEY;
use crate::core::domain::credential::ApiKey;
use crate::core::http::headers::text;
use crate::core::secret::{SecretJson, append};
use crate::core::text::redact::{Redactor, secrets_in_json, secrets_in_query};

/// The largest body that is searched for secrets, in bytes.
const MAX_READ: usize = 64 * 1024;

/// The path at which keys are registered, which makes a refused key valid.
pub(super) const REGISTER: &str = "/auth/register-key";
/// The path at which keys are managed.
pub(super) const KEYS: &str = "/auth/keys";

/// The key of a client, in one of the forms that plugins have used.
pub(super) fn request_key(headers: &HeaderMap) -> Option<ApiKey> {
    let from_header = || headers.get(API_KEY)?.to_str().ok()?.parse().ok();
    let bearer = || {
        let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        let is_known = ["bearer", "token"].iter().any(|name| scheme.eq_ignore_ascii_case(name));
        if is_known { key.trim().parse().ok() } else { None }
    };
    from_header().or_else(bearer)
}

/// A redactor for the secrets in the head of `request`.
pub(crate) fn redactor(request: &Parts) -> Redactor {
    let in_headers = in_headers(&request.headers);
    let in_query = secrets_in_query(request.uri.query().unwrap_or_default());
    // An address sent as a key must not hide that address from the log.
    Redactor::new(
        in_headers.into_iter().chain(in_query).filter(|secret| !is_like_an_address(secret.expose_secret())),
    )
}

fn in_headers(headers: &HeaderMap) -> Vec<SecretString> {
    let mut secrets: Vec<SecretString> =
        headers.get_all(API_KEY).iter().map(|key| text(key).into()).collect();
    for value in [AUTHORIZATION, PROXY_AUTHORIZATION].iter().flat_map(|name| headers.get_all(name)) {
        let value = Zeroizing::new(text(value));
        let (scheme, credential) = value.split_once(' ').unwrap_or(("", &value));
        let credential = credential.trim();
        secrets.push(credential.into());
        if scheme.eq_ignore_ascii_case("basic")
            && let Ok(pair) = STANDARD.decode(credential).map(Zeroizing::new)
            && let Ok(pair) = str::from_utf8(&pair)
            && let Some((_, password)) = pair.split_once(':')
        {
            secrets.push(password.into());
        }
    }
    secrets
}

/// Returns whether `secret` may be part of an address, with or without a port.
fn is_like_an_address(secret: &str) -> bool {
    secret.contains(['.', ':'])
        && secret.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '[' | ']'))
}

/// The JSON in the body of a request on its way to the backend, unless it is too long.
#[derive(Clone, Debug, Default)]
pub(super) struct BodyCapture(Arc<Mutex<Zeroizing<Vec<u8>>>>);

impl BodyCapture {
    /// The capture of a request with `headers`, if its body is JSON.
    pub(super) fn new(headers: &HeaderMap) -> Option<Self> {
        let is_json = headers.get(CONTENT_TYPE).is_some_and(|value| text(value).contains("json"));
        is_json.then(Self::default)
    }

    pub(super) fn note(&self, frame: &Frame<Bytes>) {
        let Some(data) = frame.data_ref() else { return };
        let mut bytes = self.0.lock();
        let room = (MAX_READ + 1).saturating_sub(bytes.len());
        append(&mut bytes, &data[..data.len().min(room)]);
    }

    /// The secrets in the captured JSON.
    pub(super) fn secrets(&self) -> Vec<SecretString> {
        let bytes = self.0.lock();
        // A truncated body is not valid JSON.
        SecretJson::parse(&bytes).map(|pushed| secrets_in_json(&pushed)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn the_secrets_of_a_request_are_in_its_headers_and_its_query() {
        let request = Request::get("/x?a=1&api_key=in-the-query")
            .header("x-proxbox-api-key", "in-a-header")
            .header("authorization", format!("Basic {}", STANDARD.encode("me:in-a-basic")))
            .header("authorization", "Bearer in-a-bearer");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let redactor = redactor(&parts);
        for secret in ["in-the-query", "in-a-header", "in-a-basic", "in-a-bearer"] {
            assert!(redactor.secrets().iter().any(|known| known.expose_secret() == secret), "{secret}");
        }
    }

    #[test]
    fn a_client_cannot_hide_its_address_by_sending_it_as_a_key() {
        for (key, is_hidden) in
            [("203.0.113.77", false), ("3.0.113.77", false), ("2001:db8::77", false), ("deadbeefdead", true)]
        {
            let (parts, ()) =
                Request::get("/").header("x-proxbox-api-key", key).body(()).unwrap().into_parts();
            assert_eq!(redactor(&parts).secrets().is_empty(), !is_hidden, "{key}");
        }
    }
}
