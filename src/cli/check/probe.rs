//! What a backend says of itself, and what follows for syncs.

use serde::Deserialize;

use super::netbox::netbox;
use super::redact::KeyRedactor;
use super::report::{BackendReport, CheckLine, KindLine};
use super::verdict::{CheckName, CheckVerdict};
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

/// The first release that believes the `X-Forwarded-For` of nobody but the proxies that it is told to trust.
const FIRST_WITH_TRUSTED_PROXIES: Release = Release::new(0, 0, 10);
/// Where the key is from.
const KEY_SETTING: &str = "backend.api_key_file";
const KEY_FLAG: &str = "--key-file";

/// Asks a backend that can be reached. It gets the key only if it looks like one that wants it.
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
    let wants_key = match backend.lacks(KEY_STATUS).await {
        Ok(lacks) => !lacks,
        Err(_) => {
            let found = format!("{KEY_STATUS} is not answered, which says whether it wants one");
            report.checks.push(busy(CheckLine::new(CheckName::Key, CheckVerdict::Failed, found)));
            return;
        }
    };
    if wants_key && key.is_none() {
        let line = CheckLine::new(
            CheckName::Key,
            CheckVerdict::Skipped,
            "this backend wants one, and there is none to check with",
        );
        let advice = "Pass the plugin's with --key-file to see the rest. Clients send their own.";
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
            report.checks.push(key_line(wants_key, key.is_some(), origin));
            report.checks.extend(clients_line(&capabilities));
            report.checks.push(websocket_line(&capabilities));
            report.checks.extend(netbox(config, backend, &identity, capabilities.release).await);
            report.checks.extend(no_channel_line(&kinds, backend.config().channel));
            report.kinds = kinds;
            report.plugin_job = forecast(&capabilities, &config.shims.settings(backend.config()));
        }
        Err(refusal) => report.checks.push(refusal_line(CheckName::Streams, origin, redactor, &refusal)),
    }
}

/// What it says to everybody, and whether it is a ProxBox backend.
async fn root_line(backend: &Backend, redactor: &KeyRedactor) -> (CheckLine, bool) {
    #[derive(Deserialize)]
    struct Root {
        message: String,
    }

    let failed = |found: String, advice: &str| {
        (CheckLine::new(CheckName::Root, CheckVerdict::Failed, found).with_advice(advice.to_owned()), false)
    };
    let ProbeResponse { status, headers, body, compressed } =
        match backend.probe("/", &RequestIdentity::default()).await {
            Ok(answer) => answer,
            Err(why @ ProbeError::TimedOut(_)) => {
                return (busy(CheckLine::new(CheckName::Root, CheckVerdict::Failed, why.to_string())), false);
            }
            Err(ProbeError::Connect(error)) => {
                return failed(error.to_string(), "It was there a moment ago: see its log.");
            }
            Err(ProbeError::Tls(why)) => {
                return (CheckLine::new(CheckName::Root, CheckVerdict::Failed, why), false);
            }
            Err(why @ ProbeError::Broken(_)) => {
                let advice = "The log of the backend, or of the proxy in front of it, says why.";
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
        300..=399 => "The backend is somewhere else: write that into backend.url.",
        200..=299 if compressed.is_some() => "What is there cannot be read, and was not given the key.",
        502..=504 => "A proxy answers, and the backend behind it does not: start that.",
        _ => "This is no ProxBox backend, and was not given the key: mend backend.url.",
    };
    failed(found, advice)
}

/// Its release, and whether its `/ws` may be opened; the key is tried here.
async fn probe_capabilities(backend: &Backend, identity: &RequestIdentity) -> Result<Capabilities, Refusal> {
    let socket = ChannelChoice::Only(Channel::Websocket);
    backend.capabilities(SyncEndpoint::for_kind(Kind::Devices), socket, identity, 1).await
}

fn refusal_line(
    failed_check: CheckName,
    origin: &str,
    redactor: &KeyRedactor,
    refusal: &Refusal,
) -> CheckLine {
    let text = redactor.refusal(refusal);
    let line = |check, found| CheckLine::new(check, CheckVerdict::Failed, found);
    let wait = match refusal.retry_after.as_deref() {
        Some(seconds) => format!("Wait {} seconds, then check again.", redactor.text(seconds)),
        None => "Check again in a minute.".to_owned(),
    };
    match (refusal.status, failed_check) {
        (_, _) if refusal.cause == Cause::Unreachable => busy(line(failed_check, text)),
        // The key was good a moment ago.
        (429, CheckName::Streams) => line(failed_check, "too many requests".to_owned()).with_advice(wait),
        (429, _) if text.starts_with("Too many failed") => {
            line(CheckName::Key, format!("not looked at: {text}"))
                .with_advice(format!("{wait} Until then the right key is refused as well."))
        }
        (401, _) if text.starts_with("No API key configured") => line(CheckName::Key, text)
            .with_advice("Register the key with the backend, as plugins do: POST /auth/register-key."),
        (401 | 403, _) => line(CheckName::Key, format!("{origin} is refused: {text}")).with_advice(
            "Put the key that is registered with the backend there. Do not try many: five refusals lock the \
             address out.",
        ),
        _ => line(failed_check, text).with_advice(wait),
    }
}

/// Backends are slow to answer anything while they sync.
fn busy(line: CheckLine) -> CheckLine {
    line.with_advice("If a sync runs on it, check again later, or give it longer (limits.probe). If none does, restart it.")
}

fn version_line(capabilities: &Capabilities) -> CheckLine {
    match capabilities.release {
        Some(release) if release < FIRST_WITH_VERSION => {
            CheckLine::ok(CheckName::Version, format!("{release}, as its streams tell: it has no /version"))
        }
        Some(release) => CheckLine::ok(CheckName::Version, release.to_string()),
        None => CheckLine::new(CheckName::Version, CheckVerdict::Note, "it does not say its release")
            .with_advice(
                "The bridge goes by the streams that it has. A checkout has to be installed to know it.",
            ),
    }
}

fn key_line(wants_key: bool, has_key: bool, origin: &str) -> CheckLine {
    match (wants_key, has_key) {
        (true, _) if origin == KEY_SETTING => CheckLine::ok(
            CheckName::Key,
            format!("{origin} is accepted, and sent in the place of the keys of clients on sync streams"),
        ),
        (true, _) => CheckLine::ok(CheckName::Key, format!("{origin} is accepted")),
        (false, false) => CheckLine::ok(CheckName::Key, "this release wants none"),
        (false, true) => CheckLine::new(
            CheckName::Key,
            CheckVerdict::Note,
            format!("this release wants none, and does not look at {origin}"),
        ),
    }
}

/// Whose wrong keys it counts together, which no question tells.
fn clients_line(capabilities: &Capabilities) -> Option<CheckLine> {
    let may_not_know = capabilities.release.is_some_and(|release| release >= FIRST_WITH_TRUSTED_PROXIES);
    may_not_know.then(|| {
        CheckLine::new(
            CheckName::Proxies,
            CheckVerdict::Note,
            "it takes the bridge for its only client unless it trusts the bridge's X-Forwarded-For",
        )
        .with_advice(
            "Start the backend with PROXBOX_TRUSTED_PROXIES=<address of the bridge>, such as 127.0.0.1/32: then \
             wrong keys of one client do not count for all.",
        )
    })
}

/// How its `/ws` is spoken to, as its release tells: opening it would make old releases write to NetBox.
fn websocket_line(capabilities: &Capabilities) -> CheckLine {
    match (capabilities.socket, capabilities.dialect()) {
        (SocketSupport::Denied, _) => CheckLine::new(
            CheckName::Ws,
            CheckVerdict::Note,
            "switched off by the execution policy of the backend",
        )
        .with_advice(
            "Its streams do not need it. To use it, start the backend with PROXBOX_EXECUTION_MODE=legacy.",
        ),
        (SocketSupport::Presumed, Some(dialect)) => {
            CheckLine::ok(CheckName::Ws, format!("dialect {}", dialect.as_str()))
        }
        (SocketSupport::Presumed, None) if capabilities.release.is_none() => {
            CheckLine::new(CheckName::Ws, CheckVerdict::Note, "which dialect is known when it is opened")
        }
        (SocketSupport::Presumed, None) => {
            CheckLine::new(CheckName::Ws, CheckVerdict::Note, "a dialect that the bridge cannot drive")
        }
    }
}

/// The plan of every kind, as jobs would make it, and all that was learned for it.
async fn kind_lines(
    backend: &Backend,
    identity: &RequestIdentity,
) -> Result<(Vec<KindLine>, Capabilities), Refusal> {
    let choice = backend.config().channel;
    let mut lines = Vec::new();
    let mut all = Capabilities::default();
    for kind in Kind::all() {
        let endpoint = SyncEndpoint::for_kind(kind);
        let capabilities = backend.capabilities(endpoint, choice, identity, 1).await?;
        for (endpoint, there) in &capabilities.streams {
            all.set_stream(*endpoint, *there);
        }
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
        ChannelChoice::Auto => "none that the bridge can drive".to_owned(),
        ChannelChoice::Only(channel) => format!("nothing can be synchronised over the channel {channel}"),
    };
    let line = CheckLine::new(CheckName::Streams, CheckVerdict::Failed, found).with_advice(match choice {
        ChannelChoice::Auto => "Upgrade the backend: 0.0.1 is the oldest release that can be driven, and 0.0.2.post1 the oldest that can be driven \
                          with more than one Proxmox endpoint.",
        ChannelChoice::Only(_) => "Set backend.channel to auto.",
    });
    kinds.iter().all(|kind| kind.channels.is_empty()).then_some(line)
}
