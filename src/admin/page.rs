//! The live page and the sign-in page.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, LOCATION, REFERRER_POLICY, SET_COOKIE,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::Requester;
use super::auth::{self, SESSION};
use crate::config::Config;
use crate::core::domain::error_code::ErrorCode;
use crate::deadline::timeout;
use crate::respond::{self, Body};
use crate::telemetry::AuditAction;

const PAGE: &str = include_str!("page/index.html");
const SIGN_IN: &str = include_str!("page/sign-in.html");

/// A static file of the live page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asset {
    /// The path that it is served at.
    pub(super) path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The static files of the live page.
pub(super) const ASSETS: [Asset; 20] = [
    Asset { path: "/page/base.css", content_type: CSS, text: include_str!("page/base.css") },
    Asset { path: "/page/frame.css", content_type: CSS, text: include_str!("page/frame.css") },
    Asset { path: "/page/overview.css", content_type: CSS, text: include_str!("page/overview.css") },
    Asset { path: "/page/job.css", content_type: CSS, text: include_str!("page/job.css") },
    Asset { path: "/page/narrow.css", content_type: CSS, text: include_str!("page/narrow.css") },
    Asset { path: "/page/main.js", content_type: JAVASCRIPT, text: include_str!("page/main.js") },
    Asset { path: "/page/actions.js", content_type: JAVASCRIPT, text: include_str!("page/actions.js") },
    Asset { path: "/page/api.js", content_type: JAVASCRIPT, text: include_str!("page/api.js") },
    Asset { path: "/page/backends.js", content_type: JAVASCRIPT, text: include_str!("page/backends.js") },
    Asset { path: "/page/dom.js", content_type: JAVASCRIPT, text: include_str!("page/dom.js") },
    Asset { path: "/page/failed.js", content_type: JAVASCRIPT, text: include_str!("page/failed.js") },
    Asset { path: "/page/format.js", content_type: JAVASCRIPT, text: include_str!("page/format.js") },
    Asset { path: "/page/freshness.js", content_type: JAVASCRIPT, text: include_str!("page/freshness.js") },
    Asset { path: "/page/history.js", content_type: JAVASCRIPT, text: include_str!("page/history.js") },
    Asset { path: "/page/job.js", content_type: JAVASCRIPT, text: include_str!("page/job.js") },
    Asset { path: "/page/labels.js", content_type: JAVASCRIPT, text: include_str!("page/labels.js") },
    Asset { path: "/page/live.js", content_type: JAVASCRIPT, text: include_str!("page/live.js") },
    Asset { path: "/page/logs.js", content_type: JAVASCRIPT, text: include_str!("page/logs.js") },
    Asset { path: "/page/progress.js", content_type: JAVASCRIPT, text: include_str!("page/progress.js") },
    Asset { path: "/page/state.js", content_type: JAVASCRIPT, text: include_str!("page/state.js") },
];

/// The content security policy: own files only, no framing.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
);
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The largest sign-in form, in bytes.
const FORM: usize = 4096;
/// The field of the form that has the token.
const TOKEN: &str = "token";

impl Asset {
    /// The file at `path`.
    pub(super) fn from_path(path: &str) -> Option<&'static Self> {
        ASSETS.iter().find(|asset| asset.path == path)
    }

    /// Whether it is a style sheet, which the sign-in page needs without a token.
    pub(super) fn is_style(&self) -> bool {
        self.content_type == CSS
    }

    /// The answer with the file.
    pub(super) fn response(&self) -> Response<Body> {
        asset_response(self.content_type, self.text)
    }
}

/// The live page.
pub(super) fn page() -> Response<Body> {
    asset_response(HTML, PAGE)
}

/// The sign-in page.
pub(super) fn sign_in() -> Response<Body> {
    asset_response(HTML, SIGN_IN)
}

/// The sign-in page with 401, instead of the live page.
pub(super) fn sign_in_first() -> Response<Body> {
    let mut response = sign_in();
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// The sign-in page with 403 and the message that the token is wrong.
fn wrong_token() -> Response<Body> {
    let mut response = asset_response(HTML, SIGN_IN.replacen(" hidden>", ">", 1));
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
}

/// Answers `POST /session`: starts a session if the form has the token.
pub(super) async fn start_session(
    config: &Config,
    headers: &HeaderMap,
    body: Incoming,
    requester: &Requester,
) -> Response<Body> {
    if config.admin_tokens.is_empty() {
        return not_configured();
    }
    let form = timeout(config.limits.client_body, Limited::new(body, FORM).collect()).await;
    let form = match form {
        Ok(Ok(form)) => form.to_bytes(),
        _ => Bytes::new(),
    };
    let presented = form_urlencoded::parse(&form).find(|(name, _)| name == TOKEN).map(|(_, value)| value);
    let known = |presented: &str| {
        config.admin_tokens.iter().find(|token| auth::is_token(&token.secret, presented.trim()))
    };
    let Some(token) = presented.and_then(|presented| known(&presented)) else {
        requester.audit(AuditAction::SignInRefused);
        return wrong_token();
    };
    Requester { user: Some(token.name.clone()), address: requester.address }.audit(AuditAction::SignIn);
    let is_secure = headers.get(FORWARDED_PROTO).is_some_and(|proto| proto.as_bytes() == b"https");
    let attributes = if is_secure { "; Secure" } else { "" };
    let response = with_cookie(config, &auth::session(&token.secret), SESSION.as_secs(), attributes);
    redirect(StatusCode::SEE_OTHER, response, config)
}

/// Answers `DELETE /session`: removes the cookie. A copy of the cookie stays valid until it expires.
pub(super) fn end_session(config: &Config) -> Response<Body> {
    with_cookie(config, "", 0, "")
}

/// `response` as a redirect to the live page.
pub(super) fn redirect(status: StatusCode, mut response: Response<Body>, config: &Config) -> Response<Body> {
    *response.status_mut() = status;
    if let Ok(location) = HeaderValue::from_str(config.admin_base_path.as_str()) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// The answer if no token is configured.
pub(super) fn not_configured() -> Response<Body> {
    respond::error(
        StatusCode::FORBIDDEN,
        ErrorCode::TokenNotConfigured,
        "No token is configured.",
        "Everything but /livez and /readyz requires one. Write a token to a file, such as the output of \
         `openssl rand -hex 32`, set admin_token_file (or --admin-token-file) to the file, and restart or reload the \
         bridge. To read without a token, set admin_open_reads = \"on\" for a loopback address, or \
         admin_open_metrics = \"on\" for /metrics on any.",
    )
}

fn with_cookie(config: &Config, value: &str, seconds: u64, attributes: &str) -> Response<Body> {
    let (name, path) = (auth::cookie_name(config), config.admin_base_path.as_str());
    let cookie =
        format!("{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{attributes}");
    let mut response = respond::no_content();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

fn asset_response(content_type: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(respond::full(text.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // With no-referrer, browsers would send the form with `Origin: null`.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    // The files change with the version of the bridge.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
