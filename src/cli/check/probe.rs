//! What a backend says of itself, and what follows for syncs.

use serde::Deserialize;

use super::netbox::netbox;
use super::redact::Said;
use super::report::{BackendReport, KindLine, Line};
use super::verdict::{Check, Verdict};
use crate::backend::{Backend, Glimpse, Identity, KEY_STATUS, Silence};
use crate::config::Config;
use crate::core::compat::plugin::forecast;
use crate::core::domain::channel::{Channel, Choice};
use crate::core::domain::credential::ApiKey;
use crate::core::domain::kind::{Endpoint, Kind};
use crate::core::domain::outcome::Cause;
use crate::core::domain::refusal::Refusal;
use crate::core::domain::release::Release;
use crate::core::http::headers::text;
use crate::core::run::capabilities::{Capabilities, FIRST_WITH_VERSION, Socket};
use crate::core::run::plan::plan;

/// The first release that believes the `X-Forwarded-For` of nobody but the proxies that it is told to trust.
const FIRST_WITH_TRUSTED_PROXIES: Release = Release::new(0, 0, 10);
/// Where the key is from.
const CONFIGURED: &str = "backend.api_key_file";
const GIVEN: &str = "--key-file";

/// Asks a backend that can be reached. It gets the key only if it looks like one that wants it.
pub(super) async fn ask(
    config: &Config,
    backend: &Backend,
    given: Option<&ApiKey>,
    report: &mut BackendReport,
) {
    let configured = backend.config().api_key.as_ref();
    let origin = if configured.is_some() { CONFIGURED } else { GIVEN };
    let key = configured.or(given);
    let said = &Said::new(key);
    let (root, is_one) = root(backend, said).await;
    report.checks.push(root);
    if !is_one {
        return;
    }
    let wants_key = match backend.lacks(KEY_STATUS).await {
        Ok(lacks) => !lacks,
        Err(_) => {
            let found = format!("{KEY_STATUS} is not answered, which says whether it wants one");
            report.checks.push(busy(Line::new(Check::Key, Verdict::Failed, found)));
            return;
        }
    };
    if wants_key && key.is_none() {
        let line = Line::new(
            Check::Key,
            Verdict::Skipped,
            "this backend wants one, and there is none to check with",
        );
        let advice = "Pass the plugin's with --key-file to see the rest. Clients send their own.";
        report.checks.push(line.advising(advice));
        return;
    }
    let identity = Identity { key: key.cloned(), ..Identity::default() };
    let known = match known(backend, &identity).await {
        Ok(known) => known,
        Err(refusal) => {
            report.checks.push(refused(Check::Version, origin, said, &refusal));
            return;
        }
    };
    report.checks.push(version(&known));
    match kinds(backend, &identity).await {
        Ok((kinds, known)) => {
            report.checks.push(key_line(wants_key, key.is_some(), origin));
            report.checks.extend(clients(&known));
            report.checks.push(socket(&known));
            report.checks.extend(netbox(config, backend, &identity, known.release).await);
            report.checks.extend(nothing_works(&kinds, backend.config().channel));
            report.kinds = kinds;
            report.plugin_job = forecast(&known, &config.shims.settings(backend.config()));
        }
        Err(refusal) => report.checks.push(refused(Check::Streams, origin, said, &refusal)),
    }
}

/// What it says to everybody, and whether it is a ProxBox backend.
async fn root(backend: &Backend, said: &Said) -> (Line, bool) {
    #[derive(Deserialize)]
    struct Root {
        message: String,
    }

    let failed = |found: String, advice: &str| {
        (Line::new(Check::Root, Verdict::Failed, found).advising(advice.to_owned()), false)
    };
    let Glimpse { status, headers, body, compressed } = match backend.glimpse("/", &Identity::default()).await
    {
        Ok(answer) => answer,
        Err(why @ Silence::Overdue(_)) => {
            return (busy(Line::new(Check::Root, Verdict::Failed, why.to_string())), false);
        }
        Err(Silence::Connect(error)) => {
            return failed(error.to_string(), "It was there a moment ago: see its log.");
        }
        Err(Silence::Tls(why)) => return (Line::new(Check::Root, Verdict::Failed, why), false),
        Err(why @ Silence::Broken(_)) => {
            let advice = "The log of the backend, or of the proxy in front of it, says why.";
            return failed(said.text(&why.to_string()), advice);
        }
    };
    if let Ok(root) = serde_json::from_slice::<Root>(&body)
        && status.is_success()
        && root.message.starts_with("Proxbox Backend")
    {
        return (Line::ok(Check::Root, said.text(&root.message)), true);
    }
    let location = headers.get(http::header::LOCATION).map(text);
    let what = match (location.filter(|_| status.is_redirection()), &compressed) {
        (Some(location), _) => format!("to {}", said.text(&location)),
        (None, Some(compressed)) => said.text(compressed),
        (None, None) => said.body(&body),
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
async fn known(backend: &Backend, identity: &Identity) -> Result<Capabilities, Refusal> {
    let socket = Choice::Only(Channel::Websocket);
    backend.capabilities(Endpoint::of(Kind::Devices), socket, identity, 1).await
}

fn refused(asked: Check, origin: &str, said: &Said, refusal: &Refusal) -> Line {
    let text = said.refusal(refusal);
    let line = |check, found| Line::new(check, Verdict::Failed, found);
    let wait = match refusal.retry_after.as_deref() {
        Some(seconds) => format!("Wait {} seconds, then check again.", said.text(seconds)),
        None => "Check again in a minute.".to_owned(),
    };
    match (refusal.status, asked) {
        (_, _) if refusal.cause == Cause::Unreachable => busy(line(asked, text)),
        // The key was good a moment ago.
        (429, Check::Streams) => line(asked, "too many requests".to_owned()).advising(wait),
        (429, _) if text.starts_with("Too many failed") => line(Check::Key, format!("not looked at: {text}"))
            .advising(format!("{wait} Until then the right key is refused as well.")),
        (401, _) if text.starts_with("No API key configured") => line(Check::Key, text)
            .advising("Register the key with the backend, as plugins do: POST /auth/register-key."),
        (401 | 403, _) => line(Check::Key, format!("{origin} is refused: {text}")).advising(
            "Put the key that is registered with the backend there. Do not try many: five refusals lock the \
             address out.",
        ),
        _ => line(asked, text).advising(wait),
    }
}

/// Backends are slow to answer anything while they sync.
fn busy(line: Line) -> Line {
    line.advising("If a sync runs on it, check again later, or give it longer (limits.probe). If none does, restart it.")
}

fn version(known: &Capabilities) -> Line {
    match known.release {
        Some(release) if release < FIRST_WITH_VERSION => {
            Line::ok(Check::Version, format!("{release}, as its streams tell: it has no /version"))
        }
        Some(release) => Line::ok(Check::Version, release.to_string()),
        None => Line::new(Check::Version, Verdict::Note, "it does not say its release").advising(
            "The bridge goes by the streams that it has. A checkout has to be installed to know it.",
        ),
    }
}

fn key_line(wants_key: bool, has_key: bool, origin: &str) -> Line {
    match (wants_key, has_key) {
        (true, _) if origin == CONFIGURED => Line::ok(
            Check::Key,
            format!("{origin} is accepted, and sent in the place of the keys of clients on sync streams"),
        ),
        (true, _) => Line::ok(Check::Key, format!("{origin} is accepted")),
        (false, false) => Line::ok(Check::Key, "this release wants none"),
        (false, true) => Line::new(
            Check::Key,
            Verdict::Note,
            format!("this release wants none, and does not look at {origin}"),
        ),
    }
}

/// Whose wrong keys it counts together, which no question tells.
fn clients(known: &Capabilities) -> Option<Line> {
    let may_not_know = known.release.is_some_and(|release| release >= FIRST_WITH_TRUSTED_PROXIES);
    may_not_know.then(|| {
        Line::new(
            Check::Proxies,
            Verdict::Note,
            "it takes the bridge for its only client unless it trusts the bridge's X-Forwarded-For",
        )
        .advising(
            "Start the backend with PROXBOX_TRUSTED_PROXIES=<address of the bridge>, such as 127.0.0.1/32: then \
             wrong keys of one client do not count for all.",
        )
    })
}

/// How its `/ws` is spoken to, as its release tells: opening it would make old releases write to NetBox.
fn socket(known: &Capabilities) -> Line {
    match (known.socket, known.dialect()) {
        (Socket::Denied, _) => Line::new(
            Check::Ws,
            Verdict::Note,
            "switched off by the execution policy of the backend",
        )
        .advising(
            "Its streams do not need it. To use it, start the backend with PROXBOX_EXECUTION_MODE=legacy.",
        ),
        (Socket::Presumed, Some(dialect)) => Line::ok(Check::Ws, format!("dialect {}", dialect.as_str())),
        (Socket::Presumed, None) if known.release.is_none() => {
            Line::new(Check::Ws, Verdict::Note, "which dialect is known when it is opened")
        }
        (Socket::Presumed, None) => {
            Line::new(Check::Ws, Verdict::Note, "a dialect that the bridge cannot drive")
        }
    }
}

/// The plan of every kind, as jobs would make it, and all that was learned for it.
async fn kinds(backend: &Backend, identity: &Identity) -> Result<(Vec<KindLine>, Capabilities), Refusal> {
    let choice = backend.config().channel;
    let mut lines = Vec::new();
    let mut all = Capabilities::default();
    for kind in Kind::all() {
        let endpoint = Endpoint::of(kind);
        let known = backend.capabilities(endpoint, choice, identity, 1).await?;
        for (endpoint, there) in &known.streams {
            all.learn_stream(*endpoint, *there);
        }
        all = Capabilities { streams: all.streams, ..known.clone() };
        lines.push(match plan(endpoint, &known, choice) {
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

fn nothing_works(kinds: &[KindLine], choice: Choice) -> Option<Line> {
    let found = match choice {
        Choice::Auto => "none that the bridge can drive".to_owned(),
        Choice::Only(channel) => format!("nothing can be synchronised over the channel {channel}"),
    };
    let line = Line::new(Check::Streams, Verdict::Failed, found).advising(match choice {
        Choice::Auto => "Upgrade the backend: 0.0.1 is the oldest release that can be driven, and 0.0.2.post1 the oldest that can be driven \
                          with more than one Proxmox endpoint.",
        Choice::Only(_) => "Set backend.channel to auto.",
    });
    kinds.iter().all(|kind| kind.channels.is_empty()).then_some(line)
}
