//! The request for a target, in its form.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::request::Builder;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use sha2::Sha256;

use super::message::Message;
use crate::config::NotifyConfig;
use crate::core::domain::credential::ApiKey;
use crate::core::domain::notification::{NotificationEvent, NotificationForm, signing_key};
use crate::core::secret;
use crate::ledger::{QueuedNotification, ResolvedProblem, Timestamp};

/// When an alert ends that no completed sync resolves. Without an end, Alertmanager would end it after
/// `resolve_timeout`, which is 5 minutes by default.
const ALERT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The request that sends `message` to `target`.
pub(super) fn request(target: &NotifyConfig, message: &Message<'_>) -> Result<Request<Full<Bytes>>, String> {
    let url = &target.url;
    let request = Request::builder()
        .method(Method::POST)
        .uri(url.target())
        .header(HOST, url.origin().authority())
        .header(USER_AGENT, concat!("proxbox-bridge/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close");
    let (request, body) = match target.form {
        NotificationForm::Json => cloud_event(request, target, message)?,
        NotificationForm::Slack => {
            let text = slack_escaped(&format!("{}\n{}", message.title(), message.text()));
            (request.header(CONTENT_TYPE, "application/json"), json!({ "text": text.trim_end() }).to_string())
        }
        NotificationForm::Ntfy => ntfy(authorized(request, target)?, message),
        NotificationForm::Alertmanager => {
            let request = authorized(request.uri(alerts_path(url.target())), target)?;
            (request.header(CONTENT_TYPE, "application/json"), Value::Array(alerts(message)).to_string())
        }
    };
    request.body(body.into()).map_err(|error| error.to_string())
}

/// A CloudEvent in structured mode, with the headers of Standard Webhooks.
fn cloud_event(
    request: Builder,
    target: &NotifyConfig,
    message: &Message<'_>,
) -> Result<(Builder, String), String> {
    let QueuedNotification { id, event, kind, at, .. } = message.notification;
    let subject = Some(format!("{}/{kind}", message.backend)).filter(|_| !kind.is_empty());
    let mut body = json!({
        "specversion": "1.0",
        "id": id,
        "source": "/proxbox-bridge",
        "type": format!("proxbox_bridge.sync.{event}"),
        "time": at.to_string(),
        "datacontenttype": "application/json",
        "data": message.data(),
    });
    // An attribute without a value is left out.
    if let Some(subject) = subject {
        body["subject"] = subject.into();
    }
    let (body, timestamp) = (body.to_string(), Timestamp::now().0 / 1000);
    let mut request = request
        .header(CONTENT_TYPE, "application/cloudevents+json; charset=utf-8")
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp);
    if let Some(secret) = &target.secret {
        request = request.header("webhook-signature", signature(secret, id, timestamp, &body)?);
    }
    Ok((request, body))
}

/// The signature of Standard Webhooks.
pub(super) fn signature(secret: &ApiKey, id: &str, timestamp: u64, body: &str) -> Result<String, String> {
    let key = signing_key(secret.expose()).map_err(|error| error.to_string())?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|error| error.to_string())?;
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

fn authorized(request: Builder, target: &NotifyConfig) -> Result<Builder, String> {
    let Some(token) = &target.secret else { return Ok(request) };
    let value = secret::header(&["Bearer ", token.expose()]).map_err(|error| error.to_string())?;
    Ok(request.header(AUTHORIZATION, value))
}

/// `text` with the characters escaped that Slack requires. A zero-width space after each `@` keeps Mattermost and
/// Rocket.Chat from notifying a whole channel because an object has such a name.
pub(super) fn slack_escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('@', "@\u{200b}")
}

fn ntfy(request: Builder, message: &Message<'_>) -> (Builder, String) {
    let (priority, tags) = match message.notification.event {
        NotificationEvent::Recovered | NotificationEvent::Test => ("default", "white_check_mark"),
        NotificationEvent::ObjectsFailed => ("default", "warning"),
        _ => ("high", "warning"),
    };
    let mut request = request
        .header(CONTENT_TYPE, "text/plain; charset=utf-8")
        .header("title", message.title())
        .header("priority", priority)
        .header("tags", tags);
    if let Some(link) = &message.link {
        request = request.header("click", link);
    }
    (request, message.text())
}

/// The path for alerts of the Alertmanager whose page is at `target`.
pub(super) fn alerts_path(target: &str) -> String {
    const ALERTS: &str = "/api/v2/alerts";
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let path = path.trim_end_matches('/');
    format!("{}{ALERTS}{query}", path.strip_suffix(ALERTS).unwrap_or(path))
}

/// The alert of the problem, and those that the run resolves. An alert has the same labels when it is resolved.
pub(super) fn alerts(message: &Message<'_>) -> Vec<Value> {
    let QueuedNotification { event, vm, at, since, resolved, .. } = message.notification;
    let resolved = resolved.iter().filter_map(|ResolvedProblem { event, vm, since }| {
        let event = NotificationEvent::from_name(event)?;
        Some(alert(message, event, *vm, (Timestamp(*since).min(*at), *at)))
    });
    // From now on: a notification of an interrupted job may be sent long after the event.
    let end = Timestamp::now().after(ALERT);
    let firing = match event {
        NotificationEvent::Recovered => None,
        NotificationEvent::Test => Some((*at, at.after(Duration::from_secs(60)))),
        // `since` of a stale sync is its last completed run.
        NotificationEvent::Stale => Some((*at, end)),
        _ => Some((since.unwrap_or(*at).min(*at), end)),
    };
    let firing = firing.map(|times| alert(message, *event, *vm, times));
    firing.into_iter().chain(resolved).collect()
}

fn alert(
    message: &Message<'_>,
    event: NotificationEvent,
    vm: Option<u64>,
    (starts, ends): (Timestamp, Timestamp),
) -> Value {
    let name = match event {
        NotificationEvent::Failed => "ProxboxBridgeSyncFailed",
        NotificationEvent::ObjectsFailed => "ProxboxBridgeSyncObjectsFailed",
        NotificationEvent::Interrupted => "ProxboxBridgeSyncInterrupted",
        NotificationEvent::Stale => "ProxboxBridgeSyncStale",
        NotificationEvent::Recovered | NotificationEvent::Test => "ProxboxBridgeTest",
    };
    let mut labels = json!({ "alertname": name, "severity": "warning" });
    // Alertmanager takes an empty label for one that is not set.
    for (label, value) in [("backend", &message.backend), ("kind", &message.notification.kind)] {
        labels[label] = value.as_str().into();
    }
    if let Some(vm) = vm {
        labels["vm"] = vm.to_string().into();
    }
    let mut alert = json!({
        "labels": labels,
        "annotations": { "summary": message.title(), "description": message.text() },
        "startsAt": starts.to_string(),
        "endsAt": ends.to_string(),
    });
    if let Some(link) = &message.link {
        alert["generatorURL"] = link.as_str().into();
    }
    alert
}
