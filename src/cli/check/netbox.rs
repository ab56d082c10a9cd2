//! The connection of a backend to NetBox: whether its release needs the NetBox listener, whether it uses the listener,
//! which rules apply there, and what is missing.

use std::net::SocketAddr;

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::redact::KeyRedactor;
use super::report::CheckLine;
use super::verdict::{CheckName, CheckVerdict};
use crate::backend::{Backend, ConnectError, ProbeError, ProbeResponse, RequestIdentity};
use crate::client::connectable_address;
use crate::config::{self, Config, NetboxListener, ShimsConfig};
use crate::core::compat::netbox::{NetboxRule, RULES, STATUS, V2};
use crate::core::compat::rows::{can_update_netbox, leads_to_listener, stores_proxmox};
use crate::core::compat::{Shim, release_name};
use crate::core::domain::release::Release;
use crate::core::http::url::BackendUrl;
use crate::core::secret;
use crate::tls::Trust;

/// The path of the NetBox endpoint in a backend.
const NETBOX_ENDPOINT: &str = "/netbox/endpoint";
const PUSH: &str = "Save the NetBox endpoint of the plugin in NetBox, or start a sync there. The plugin then pushes it \
                    through the bridge.";

/// Checks the connection from a backend of `release` to NetBox.
pub(super) async fn netbox(
    config: &Config,
    backend: &Backend,
    identity: &RequestIdentity,
    release: Option<Release>,
) -> Vec<CheckLine> {
    let Some(listener) = &backend.config().netbox else {
        return without_listener(backend, identity, release).await;
    };
    let mut lines = Vec::new();
    match backend.get_json(NETBOX_ENDPOINT, identity).await {
        Ok(rows) => {
            let row = rows.as_ref().and_then(|rows| rows.get(0));
            lines.push(endpoint_line(row, listener, release));
            let is_on = config.shims.is_on(Shim::NetboxToken);
            lines.extend(row.filter(|_| !is_on).and_then(|row| token_line(row, release)));
        }
        Err(refusal) => {
            let found = format!("{NETBOX_ENDPOINT} cannot be read: {}", refusal.text());
            lines.push(CheckLine::warning(CheckName::Netbox, found));
        }
    }
    lines.extend(rule_lines(&config.shims, release));
    lines.extend(url_line(backend.config(), listener).await);
    if let Some((line, is_open)) = listener_line(backend.config(), listener).await {
        lines.push(line);
        if is_open {
            lines.extend(status_lines(config, backend.config(), release).await);
        }
    }
    lines
}

/// Checks a backend without a NetBox listener.
async fn without_listener(
    backend: &Backend,
    identity: &RequestIdentity,
    release: Option<Release>,
) -> Vec<CheckLine> {
    let needed = RULES.iter().filter(|rule| rule.is_needed_by(release));
    let reasons: Vec<&str> = needed.map(|rule| rule.reason).collect();
    if reasons.is_empty() {
        return Vec::new();
    }
    let found = format!("{} needs backend.netbox_listen. {}", release_name(release), reasons.join(" "));
    let advice = "Set backend.netbox_listen: deploy/netbox-listener.md has the steps.";
    let mut lines = vec![CheckLine::note(CheckName::Netbox, found).with_advice(advice)];
    if release.is_some_and(|release| !can_update_netbox(release)) {
        // The advice is the same if the row cannot be read.
        let rows = backend.get_json(NETBOX_ENDPOINT, identity).await.ok().flatten();
        lines.extend(rows.as_ref().and_then(|rows| rows.get(0)).and_then(|row| token_line(row, release)));
    }
    lines
}

/// Whether the backend's own `row` of NetBox leads to the listener.
fn endpoint_line(row: Option<&Value>, listener: &NetboxListener, release: Option<Release>) -> CheckLine {
    let (listen, has_tls) = (listener.listen, listener.tls.is_some());
    let leads_there = |row: &Value| row.as_object().is_some_and(|row| leads_to_listener(row, listen));
    let found = match row {
        Some(row) if leads_there(row) => {
            let found = format!("reached through backend.netbox_listen ({listen})");
            let speaks_tls = row["verify_ssl"].as_bool().unwrap_or(true);
            if speaks_tls == has_tls {
                return CheckLine::ok(CheckName::Netbox, found);
            }
            let certificate = if has_tls { "has backend.netbox_certificate" } else { "has no certificate" };
            format!("{found} with verify_ssl {speaks_tls}, but the listener {certificate}")
        }
        Some(_) => format!("not reached through backend.netbox_listen ({listen})"),
        None => "the backend has no NetBox endpoint yet".to_owned(),
    };
    let restart = if release.is_none_or(can_update_netbox) { "" } else { " Then restart proxbox-api once." };
    CheckLine::warning(CheckName::Netbox, found).with_advice(format!("{PUSH}{restart}"))
}

/// The line on a token in `row` that `release` sends in a form that NetBox does not accept.
fn token_line(row: &Value, release: Option<Release>) -> Option<CheckLine> {
    let is_v2 = row["token"].as_str().is_some_and(|token| token.starts_with(V2));
    let cannot = release.is_some_and(|release| !can_update_netbox(release));
    (is_v2 && cannot).then(|| {
        let found = format!("a v2 token, which {} sends as Token, but NetBox accepts it only as Bearer", release_name(release));
        let advice = "Set backend.netbox_listen with shims.netbox_token = \"on\", or give the NetBox endpoint of the \
                      plugin a v1 token.";
        CheckLine::warning(CheckName::NetboxToken, found).with_advice(advice)
    })
}

/// The rules that apply between a backend of `release` and NetBox.
fn rule_lines(shims: &ShimsConfig, release: Option<Release>) -> Vec<CheckLine> {
    let (on, off): (Vec<&NetboxRule>, Vec<&NetboxRule>) =
        RULES.iter().filter(|rule| rule.applies_to(release)).partition(|rule| shims.is_on(rule.shim));
    let names: Vec<&str> = on.iter().map(|rule| rule.shim.as_str()).collect();
    let found =
        if names.is_empty() { "none: requests are forwarded unchanged".to_owned() } else { names.join(", ") };
    let line = match release {
        Some(release) if !RULES.iter().any(|rule| rule.is_needed_by(Some(release))) => {
            CheckLine::note(CheckName::NetboxRules, found)
                .with_advice(format!("proxbox-api {release} does not need backend.netbox_listen."))
        }
        _ => CheckLine::ok(CheckName::NetboxRules, found),
    };
    let missing = off.into_iter().filter(|rule| rule.is_needed_by(release)).map(|rule| {
        let found = format!("shims.{} is off. {}", rule.shim, rule.reason);
        let advice = format!("Set shims.{} = \"on\".", rule.shim);
        CheckLine::warning(CheckName::NetboxRules, found).with_advice(advice)
    });
    std::iter::once(line).chain(missing).collect()
}

/// Whether NetBox answers at `backend.netbox_url`, if that is set.
async fn url_line(backend: &config::BackendConfig, listener: &NetboxListener) -> Option<CheckLine> {
    let wanted = backend.netbox_upstream(listener, listener.url.clone()?, Trust::System);
    let url = wanted.url.clone();
    let netbox = match Backend::netbox(wanted) {
        Ok(netbox) => netbox,
        Err(error) => {
            return Some(CheckLine::misconfigured(CheckName::NetboxUrl, &error));
        }
    };
    let advice = "Fix backend.netbox_url, backend.netbox_ca_file or backend.netbox_pin, or the network.";
    Some(match netbox.probe(STATUS, &RequestIdentity::default()).await {
        Ok(answer) if is_netbox(answer.status) => {
            CheckLine::ok(CheckName::NetboxUrl, format!("NetBox answers at {url}"))
        }
        Ok(answer) => {
            let found = format!("{url}{STATUS} answers {}: this is not NetBox", answer.status);
            CheckLine::failed(CheckName::NetboxUrl, found).with_advice(advice)
        }
        Err(why) => {
            let found = format!("NetBox cannot be reached at {url}: {why}");
            CheckLine::failed(CheckName::NetboxUrl, found).with_advice(advice)
        }
    })
}

/// Whether NetBox answers through the listener, and whether a running bridge has it open. `None` if the listener has
/// port 0: its actual port is unknown.
async fn listener_line(
    backend: &config::BackendConfig,
    listener: &NetboxListener,
) -> Option<(CheckLine, bool)> {
    // Backends get an IPv4-mapped address as IPv4, and the certificate is issued for that.
    let listen = SocketAddr::new(listener.listen.ip().to_canonical(), listener.listen.port());
    if listen.port() == 0 {
        return None;
    }
    let line = |verdict, found: String| CheckLine::new(CheckName::NetboxListener, verdict, found);
    let certificate = listener.tls.as_ref().map(|files| &files.certificate);
    let scheme = if certificate.is_some() { "https" } else { "http" };
    let wanted = config::BackendConfig {
        trust: certificate.cloned().map_or(Trust::System, Trust::Authority),
        ..other(backend, format!("{scheme}://{listen}").parse().ok()?)
    };
    let bridge = match Backend::new(wanted) {
        Ok(bridge) => bridge,
        Err(error) => return Some((line(CheckVerdict::Misconfigured, error.to_string()), false)),
    };
    let ProbeResponse { status, body, .. } = match bridge.probe(STATUS, &RequestIdentity::default()).await {
        Ok(answer) => answer,
        Err(ProbeError::Connect(error)) if error.is_refusal() => {
            let advice = "Start the bridge with this configuration, or reload it.";
            return Some((
                line(CheckVerdict::Warning, format!("nothing listens: {error}")).with_advice(advice),
                false,
            ));
        }
        Err(ProbeError::Broken(_) | ProbeError::Tls(_) | ProbeError::Connect(ConnectError::Tls { .. }))
            if !listener.allows(listen.ip()) =>
        {
            let found = format!("{listen} closes connections from this machine");
            let advice =
                "This is correct if backend.netbox_allow contains only the addresses of the backend.";
            return Some((line(CheckVerdict::Note, found).with_advice(advice), true));
        }
        // The TLS error itself names the keys for backends.
        Err(ProbeError::Tls(_) | ProbeError::Connect(ConnectError::Tls { .. })) => {
            let found = format!("{listen}: the TLS handshake with backend.netbox_certificate fails");
            let advice = format!(
                "Set backend.netbox_certificate to a certificate that has not expired and has the IP address {} in its \
                 subjectAltName, and reload the bridge. Its log shows the certificate that it has read.",
                listen.ip()
            );
            return Some((line(CheckVerdict::Failed, found).with_advice(advice), true));
        }
        Err(why) => return Some((line(CheckVerdict::Failed, format!("{listen}: {why}")), true)),
    };
    let reason = KeyRedactor::new(None).body(&body);
    Some((
        match status {
            StatusCode::SERVICE_UNAVAILABLE => line(CheckVerdict::Warning, reason).with_advice(PUSH),
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => line(CheckVerdict::Failed, reason).with_advice(
                "Fix the NetBox endpoint of the plugin, backend.netbox_url, or the network between the bridge and NetBox.",
            ),
            status if is_netbox(status) => CheckLine::ok(CheckName::NetboxListener, format!("NetBox answers through {listen}")),
            status => line(CheckVerdict::Failed, format!("{listen}{STATUS} answers {status}: this is not NetBox"))
                .with_advice("Fix the NetBox endpoint of the plugin or backend.netbox_url."),
        },
        true,
    ))
}

/// Whether NetBox may answer a request for [`STATUS`] without a token with `status`.
fn is_netbox(status: StatusCode) -> bool {
    status.is_success() || [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status)
}

/// What the running bridge reports about the listener, if this command may read it.
async fn status_lines(
    config: &Config,
    backend: &config::BackendConfig,
    release: Option<Release>,
) -> Vec<CheckLine> {
    let lacks_store = release.is_some_and(|release| !stores_proxmox(release));
    let listener = match read_status(config, backend).await {
        Ok(Some(listener)) => listener,
        Ok(None) => return Vec::new(),
        Err(why) if lacks_store => {
            let found = format!("the pushed Proxmox endpoints are unknown: {why}");
            let advice = "The live page shows them. Set admin_token_file so that this command can read them.";
            return vec![CheckLine::skipped(CheckName::ProxmoxEndpoints, found).with_advice(advice)];
        }
        Err(_) => return Vec::new(),
    };
    let mut lines = Vec::new();
    lines.push(match listener["last_request"].as_str() {
        Some(last) => {
            CheckLine::ok(CheckName::NetboxUse, format!("the backend last sent a request at {last}"))
        }
        None => {
            CheckLine::note(CheckName::NetboxUse, "the backend has sent no request since the bridge started")
        }
    });
    if let Some(held) = listener["held"].as_str() {
        lines.push(
            CheckLine::warning(CheckName::NetboxUse, "syncs are refused with 503 for now").with_advice(held),
        );
    }
    let pushed = &listener["proxmox_endpoints"];
    let names = pushed["without_secrets"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let names: Vec<&str> = names.collect();
    if !lacks_store {
        return lines;
    }
    lines.push(match pushed["count"].as_u64().unwrap_or_default() {
        0 => CheckLine::warning(
            CheckName::ProxmoxEndpoints,
            "the plugin has pushed none since the bridge started",
        )
        .with_advice(
            "Start a sync in NetBox: the plugin pushes them before each sync. They are kept in memory only.",
        ),
        count if names.is_empty() => {
            CheckLine::ok(CheckName::ProxmoxEndpoints, format!("{count}, with their secrets"))
        }
        count => {
            let found = format!("{count}, without password or API token: {}", names.join(", "));
            let advice =
                "Give these Proxmox endpoints a password or an API token in NetBox, or disable them.";
            CheckLine::warning(CheckName::ProxmoxEndpoints, found).with_advice(advice)
        }
    });
    lines
}

/// The listener of `backend` in `GET /backends` of the running bridge.
async fn read_status(config: &Config, backend: &config::BackendConfig) -> Result<Option<Value>, String> {
    let address = connectable_address(config.admin_listen);
    if config.admin_tokens.is_empty() && !config.admin_open_reads {
        return Err("admin_token_file is not set".to_owned());
    }
    let url = format!("http://{address}").parse().map_err(|_| format!("{address} is not a valid address"))?;
    let bridge = Backend::new(other(backend, url)).map_err(|error| error.to_string())?;
    let mut passed_on = HeaderMap::new();
    let token = config.admin_tokens.first();
    if let Some(Ok(token)) = token.map(|token| secret::header(&["Bearer ", token.secret.expose()])) {
        passed_on.insert(AUTHORIZATION, token);
    }
    let identity = RequestIdentity { key: None, forwarded_headers: passed_on };
    let backends = bridge.get_json("/backends", &identity).await.map_err(|refusal| refusal.text())?;
    let backends = backends.unwrap_or_default();
    let mut named = backends["results"].as_array().into_iter().flatten();
    let named = named.find(|known| known["name"] == backend.name);
    Ok(named.map(|known| known["netbox_listener"].clone()).filter(Value::is_object))
}

/// Another server with the limits of `backend`.
fn other(backend: &config::BackendConfig, url: BackendUrl) -> config::BackendConfig {
    config::BackendConfig {
        url,
        trust: Trust::System,
        client_certificate: None,
        api_key: None,
        netbox: None,
        ..backend.clone()
    }
}
