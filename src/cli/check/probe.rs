//! The release, API key and channels of a backend.

use http::HeaderMap;
use serde::Deserialize;

use super::netbox::netbox;
use super::redact::KeyRedactor;
use super::report::{BackendReport, CheckLine, KindLine};
use super::verdict::CheckName;
use crate::backend::{Backend, KEY_STATUS, ProbeError, ProbeResponse, RequestIdentity};
use crate::config::Config;
use crate::core::compat::plugin::forecast;
use crate::core::domain::channel::{Channel, ChannelChoice};
use crate::core::domain::credential::ApiKey;
use crate::core::domain::kind::{Kind, SyncEndpoint};
use crate::core::domain::outcome::Cause;
use crate::core::domain::refusal::Refusal;
use crate::core::domain::release::Release;
use crate::core::http::headers::text;
use crate::core::run::capabilities::{Capabilities, FIRST_WITH_VERSION, SocketSupport};
use crate::core::run::plan::plan;

/// The first release that trusts `X-Forwarded-For` only from configured proxies.
const FIRST_WITH_TRUSTED_PROXIES: Release = Release::new(0, 0, 10);
/// The names of the key's source in texts.
const KEY_SETTING: &str = "backend.api_key_file";
const KEY_FLAG: &str = "--key-file";

/// Probes a reachable backend. The key is sent only to a ProxBox backend that requires one.
pub(super) async fn probe_backend(
    config: &Config,
    backend: &Backend,
    flag_key: Option<&ApiKey>,
    report: &mut BackendReport,
) {
    let configured = backend.config().api_key.as_ref();
    let origin = if configured.is_some() { KEY_SETTING } else { KEY_FLAG };
    let key = configured.or(flag_key);
    let redactor = &KeyRedactor::new(key);
    let (root, is_one) = root_line(backend, redactor).await;
    report.checks.push(root);
    if !is_one {
        return;
    }
    let wants_key = match backend.lacks(KEY_STATUS, &HeaderMap::new()).await {
        Ok(lacks) => !lacks,
        Err(_) => {
            let found =
                format!("{KEY_STATUS} was not answered, so it is unknown whether the backend requires a key");
            report.checks.push(busy(CheckLine::failed(CheckName::Key, found)));
            return;
        }
    };
    if wants_key && key.is_none() {
        let line = CheckLine::skipped(CheckName::Key, "this backend requires a key, and none is given");
        let advice =
            "Pass the plugin's key with --key-file to run the remaining checks. Clients send their own.";
        report.checks.push(line.with_advice(advice));
        return;
    }
    let identity = RequestIdentity { key: key.cloned(), ..RequestIdentity::default() };
    let capabilities = match probe_capabilities(backend, &identity).await {
        Ok(capabilities) => capabilities,
        Err(refusal) => {
            report.checks.push(refusal_line(CheckName::Version, origin, redactor, &refusal));
            return;
        }
    };
    report.checks.push(version_line(&capabilities));
    match kind_lines(backend, &identity).await {
        Ok((kinds, capabilities)) => {
            report.checks.push(if wants_key {
                accepted_key_line(origin)
            } else {
                unneeded_key_line(key.map(|_| origin))
            });
            report.checks.extend(proxies_line(&capabilities));
            report.checks.push(websocket_line(&capabilities));
            report.checks.extend(netbox(config, backend, &identity, capabilities.release).await);
            report.checks.extend(no_channel_line(&kinds, backend.config().channel));
            report.kinds = kinds;
            report.plugin_job = forecast(&capabilities, &config.shims.settings(backend.config()));
        }
        Err(refusal) => report.checks.push(refusal_line(CheckName::Streams, origin, redactor, &refusal)),
    }
}

/// The line on `/`, and whether a ProxBox backend answers there.
async fn root_line(backend: &Backend, redactor: &KeyRedactor) -> (CheckLine, bool) {
    #[derive(Deserialize)]
    struct Root {
        message: String,
    }

    let failed = |found: String, advice: &str| {
        (CheckLine::failed(CheckName::Root, found).with_advice(advice.to_owned()), false)
    };
    let ProbeResponse { status, headers, body, compressed } =
        match backend.probe("/", &RequestIdentity::default()).await {
            Ok(answer) => answer,
            Err(why @ ProbeError::TimedOut(_)) => {
                return (busy(CheckLine::failed(CheckName::Root, why.to_string())), false);
            }
            Err(ProbeError::Connect(error)) => {
                return failed(
                    error.to_string(),
                    "A connection succeeded a moment ago: see the log of the backend.",
                );
            }
            Err(ProbeError::Tls(why)) => {
                return (CheckLine::failed(CheckName::Root, why), false);
            }
            Err(why @ ProbeError::Broken(_)) => {
                let advice = "See the log of the backend, or of the proxy in front of it.";
                return failed(redactor.text(&why.to_string()), advice);
            }
        };
    if let Ok(root) = serde_json::from_slice::<Root>(&body)
        && status.is_success()
        && root.message.starts_with("Proxbox Backend")
    {
        return (CheckLine::ok(CheckName::Root, redactor.text(&root.message)), true);
    }
    let location = headers.get(http::header::LOCATION).map(text);
    let what = match (location.filter(|_| status.is_redirection()), &compressed) {
        (Some(location), _) => format!("to {}", redactor.text(&location)),
        (None, Some(compressed)) => redactor.text(compressed),
        (None, None) => redactor.body(&body),
    };
    let found = if what.is_empty() { status.to_string() } else { format!("{status}: {what}") };
    let advice = match status.as_u16() {
        300..=399 => "The backend has another URL: set backend.url to it.",
        200..=299 if compressed.is_some() => "The answer cannot be read. The key was not sent.",
        508 => {
            "Requests come back to a bridge that has sent them: set backend.url of this bridge, or of one behind it, to the \
             backend itself."
        }
        502..=504 => "A proxy answers, but the backend behind it does not: start the backend.",
        _ => "This is not a ProxBox backend: fix backend.url. The key was not sent.",
    };
    failed(found, advice)
}

/// The release, and whether `/ws` may be opened. The first request with the key.
async fn probe_capabilities(backend: &Backend, identity: &RequestIdentity) -> Result<Capabilities, Refusal> {
    let socket = ChannelChoice::Only(Channel::Websocket);
    backend.capabilities(SyncEndpoint::for_kind(Kind::Devices), socket, identity).await
}

fn refusal_line(
    failed_check: CheckName,
    origin: &str,
    redactor: &KeyRedactor,
    refusal: &Refusal,
) -> CheckLine {
    let text = redactor.refusal(refusal);
    let line = |check, found| CheckLine::failed(check, found);
    let wait = match refusal.retry_after.as_deref() {
        Some(seconds) => format!("Wait {} seconds, then check again.", redactor.text(seconds)),
        None => "Check again in a minute.".to_owned(),
    };
    match (refusal.status, failed_check) {
        (_, _) if refusal.cause == Cause::Unreachable => busy(line(failed_check, text)),
        // The key was accepted a moment ago.
        (429, CheckName::Streams) => line(failed_check, "too many requests".to_owned()).with_advice(wait),
        (429, _) if text.starts_with("Too many failed") => {
            line(CheckName::Key, format!("not checked: {text}"))
                .with_advice(format!("{wait} Until then the right key is refused, too."))
        }
        (401, _) if text.starts_with("No API key configured") => line(CheckName::Key, text)
            .with_advice("Register the key with the backend, as the plugin does: POST /auth/register-key."),
        (401 | 403, _) => line(CheckName::Key, format!("the key in {origin} is refused: {text}")).with_advice(
            "Use the key that is registered with the backend. Do not try several: backends lock an address out after \
             five refusals.",
        ),
        _ => line(failed_check, text).with_advice(wait),
    }
}

/// Adds the advice for a backend that did not answer: backends answer slowly while a sync runs.
fn busy(line: CheckLine) -> CheckLine {
    line.with_advice(
        "If a sync is running on the backend, check again later or raise limits.probe. If not, restart the backend.",
    )
}

fn version_line(capabilities: &Capabilities) -> CheckLine {
    match capabilities.release {
        Some(release) if release < FIRST_WITH_VERSION => {
            CheckLine::ok(CheckName::Version, format!("{release}, detected from its streams: it has no /version"))
        }
        Some(release) => CheckLine::ok(CheckName::Version, release.to_string()),
        None => CheckLine::note(CheckName::Version, "the backend does not report its release")
            .with_advice(
                "The bridge goes by its streams instead. A source checkout has to be installed to know its release.",
            ),
    }
}

fn accepted_key_line(origin: &str) -> CheckLine {
    let effect = if origin == KEY_SETTING { ". It replaces the keys of clients on sync streams" } else { "" };
    CheckLine::ok(CheckName::Key, format!("the key in {origin} is accepted{effect}"))
}

/// The line on the key, from `origin` if there is one, for a release that requires none.
fn unneeded_key_line(origin: Option<&str>) -> CheckLine {
    match origin {
        None => CheckLine::ok(CheckName::Key, "this release requires none"),
        Some(origin) => CheckLine::note(
            CheckName::Key,
            format!("this release requires none and ignores the key in {origin}"),
        ),
    }
}

/// The line on PROXBOX_TRUSTED_PROXIES. Whether it is set cannot be probed.
fn proxies_line(capabilities: &Capabilities) -> Option<CheckLine> {
    let may_not_know = capabilities.release.is_some_and(|release| release >= FIRST_WITH_TRUSTED_PROXIES);
    may_not_know.then(|| {
        CheckLine::note(CheckName::Proxies, "the backend counts wrong keys of all clients together unless it trusts the bridge's X-Forwarded-For",
        )
        .with_advice(
            "Start the backend with PROXBOX_TRUSTED_PROXIES=<address of the bridge>, such as 127.0.0.1/32, so that \
             wrong keys of one client do not lock out all.",
        )
    })
}

/// The line on `/ws`, derived from the release: opening it would make old releases write to NetBox.
fn websocket_line(capabilities: &Capabilities) -> CheckLine {
    match (capabilities.socket, capabilities.dialect()) {
        (SocketSupport::Denied, _) => CheckLine::note(
            CheckName::Ws,
            "disabled by the execution policy of the backend",
        )
        .with_advice(
            "The streams do not need it. To use it, start the backend with PROXBOX_EXECUTION_MODE=legacy.",
        ),
        (SocketSupport::Presumed, Some(dialect)) => {
            CheckLine::ok(CheckName::Ws, format!("dialect {}", dialect.as_str()))
        }
        (SocketSupport::Presumed, None) if capabilities.release.is_none() => {
            CheckLine::note(CheckName::Ws, "the dialect is detected when it is opened")
        }
        (SocketSupport::Presumed, None) => {
            CheckLine::note(CheckName::Ws, "a dialect that the bridge cannot drive")
        }
    }
}

/// The plan for every kind, as jobs make it, and the capabilities that it is based on.
async fn kind_lines(
    backend: &Backend,
    identity: &RequestIdentity,
) -> Result<(Vec<KindLine>, Capabilities), Refusal> {
    let choice = backend.config().channel;
    let mut lines = Vec::new();
    let mut all = Capabilities::default();
    for kind in Kind::all() {
        let endpoint = SyncEndpoint::for_kind(kind);
        let capabilities = backend.capabilities(endpoint, choice, identity).await?;
        all.streams.extend(&capabilities.streams);
        all = Capabilities { streams: all.streams, ..capabilities.clone() };
        lines.push(match plan(endpoint, &capabilities, choice) {
            Ok(plan) => {
                let mut channels: Vec<Channel> = plan.legs.iter().map(|leg| leg.channel).collect();
                channels.dedup();
                KindLine { kind, channels, left_out: plan.skipped }
            }
            Err(_) => KindLine { kind, channels: Vec::new(), left_out: Vec::new() },
        });
    }
    Ok((lines, all))
}

fn no_channel_line(kinds: &[KindLine], choice: ChannelChoice) -> Option<CheckLine> {
    let found = match choice {
        ChannelChoice::Auto => "none that the bridge can use".to_owned(),
        ChannelChoice::Only(channel) => format!("nothing can be synchronised over the channel {channel}"),
    };
    let line = CheckLine::failed(CheckName::Streams, found).with_advice(match choice {
        ChannelChoice::Auto => {
            "Upgrade the backend: the oldest supported release is 0.0.1, or 0.0.2.post1 with more \
                                than one Proxmox endpoint."
        }
        ChannelChoice::Only(_) => "Set backend.channel to auto.",
    });
    kinds.iter().all(|kind| kind.channels.is_empty()).then_some(line)
}
