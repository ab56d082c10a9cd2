//! Asking one backend.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::report::{BackendReport, KindLine, Line, Shim, Verdict};
use crate::backend::{Backend, ConnectError, Identity};
use crate::config::{self, Config};
use crate::core::capabilities::{Capabilities, Socket};
use crate::core::channel::{Channel, Choice};
use crate::core::credential::ApiKey;
use crate::core::kind::{Endpoint, Kind};
use crate::core::plan::plan;
use crate::core::text::plain;
use crate::tls::Certificate;

/// A certificate that ends within this time is worth a warning.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// How much of what a backend says is shown, in characters.
const SHOWN: usize = 200;

/// Asks the backend that `wanted` describes what it is and what it can do. `key` is tried where no other is
/// configured, and whichever it is, once.
pub(super) async fn examine(
    config: &Config,
    wanted: &config::Backend,
    key: Option<&ApiKey>,
) -> BackendReport {
    let mut report = BackendReport {
        name: wanted.name.clone(),
        url: wanted.url.to_string(),
        lines: Vec::new(),
        kinds: Vec::new(),
        shims: Vec::new(),
    };
    let backend = match Backend::new(wanted.clone()) {
        Ok(backend) => backend,
        Err(error) => {
            report.lines.push(Line::new("tls", Verdict::Failed, error.to_string()));
            return report;
        }
    };
    let identity = Identity { key: wanted.api_key.clone().or_else(|| key.cloned()), ..Identity::default() };
    if !reached(&backend, &mut report.lines).await || !greeted(&backend, &mut report.lines).await {
        return report;
    }
    let known = known(&backend, &identity, &mut report.lines).await;
    if let Some(known) = known {
        report.lines.push(socket(&known));
        report.kinds = kinds(&backend, &identity, wanted.channel).await;
        if report.kinds.is_empty() {
            report.lines.push(
                Line::new("kinds", Verdict::Failed, "The backend did not say which streams it has.")
                    .advising("Try again when no sync runs on it, or give it longer (limits.probe)."),
            );
        }
    }
    report.shims = shims(config, &backend).await;
    report
}

/// Whether one of its addresses can be connected to.
async fn reached(backend: &Backend, lines: &mut Vec<Line>) -> bool {
    let addresses = match backend.addresses().await {
        Ok(addresses) if !addresses.is_empty() => addresses,
        found => {
            let why = found.err().map_or_else(|| "no address".to_owned(), |error| error.to_string());
            let found = format!("{} stands for no address ({why}).", backend.url().host());
            let line = Line::new("name", Verdict::Failed, found);
            lines.push(line.advising("Mend the name in backend.url, or the resolver of this machine."));
            return false;
        }
    };
    let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    lines.push(Line::new("name", Verdict::Ok, shown.join(", ")));
    let (mut is_reached, mut certificate) = (false, None);
    for address in addresses {
        let check = if address.is_ipv4() { "connect v4" } else { "connect v6" };
        match backend.greet(address).await {
            Ok(shown) => {
                is_reached = true;
                certificate = certificate.or(shown);
                lines.push(Line::new(check, Verdict::Ok, address.to_string()));
            }
            Err(ConnectError::Tls { why, .. }) => {
                lines.push(Line::new(check, Verdict::Ok, address.to_string()));
                lines.push(Line::new("tls", Verdict::Failed, why));
            }
            Err(error) => {
                let line = Line::new(check, Verdict::Failed, error.to_string());
                lines.push(
                    line.advising("Is the backend started, and does a firewall let the bridge through?"),
                );
            }
        }
    }
    if is_reached {
        // One of several is enough: the bridge takes whichever answers.
        for line in lines.iter_mut().filter(|line| line.verdict == Verdict::Failed) {
            line.verdict = Verdict::Warning;
        }
    }
    if let Some(certificate) = certificate {
        lines.push(of_certificate(&certificate));
    }
    is_reached
}

fn of_certificate(certificate: &Certificate) -> Line {
    let Certificate { subject, issuer, names, not_after, fingerprint, .. } = certificate;
    let ends = humantime::format_rfc3339_seconds(*not_after);
    let found =
        format!("{subject}, of {issuer}, for {}, until {ends}, SHA-256 {fingerprint}", names.join(", "));
    let left = not_after.duration_since(SystemTime::now()).unwrap_or_default();
    if left < SOON {
        let line = Line::new("tls", Verdict::Warning, found);
        return line.advising("The certificate ends soon, or has: renew it.");
    }
    Line::new("tls", Verdict::Ok, found)
}

/// Whether it says that it is a ProxBox backend.
async fn greeted(backend: &Backend, lines: &mut Vec<Line>) -> bool {
    #[derive(Deserialize)]
    struct Root {
        message: String,
    }

    let (status, body) = match backend.get("/", &Identity::default()).await {
        Ok(answer) => answer,
        Err(why) => {
            let line = Line::new("/", Verdict::Failed, why);
            lines.push(line.advising("Something takes connections there and does not answer HTTP."));
            return false;
        }
    };
    match serde_json::from_slice::<Root>(&body) {
        Ok(root) if status.is_success() && root.message.starts_with("Proxbox Backend") => {
            lines.push(Line::new("/", Verdict::Ok, plain(&root.message, SHOWN).into_owned()));
        }
        _ => {
            let said = String::from_utf8_lossy(&body);
            let found = format!("{status}: {}", plain(&said, SHOWN));
            let line = Line::new("/", Verdict::Warning, found);
            lines.push(
                line.advising("This does not look like a ProxBox backend: is backend.url the right one?"),
            );
        }
    }
    true
}

/// What it can do, as far as that is needed for a plan; the key is tried here, once.
async fn known(backend: &Backend, identity: &Identity, lines: &mut Vec<Line>) -> Option<Capabilities> {
    let endpoint = Endpoint::of(Kind::Devices);
    let socket = Choice::Only(Channel::Websocket);
    let known = match backend.capabilities(endpoint, socket, identity, 1).await {
        Ok(known) => known,
        Err(refusal) if refusal.status == 401 || refusal.status == 429 => {
            lines
                .push(Line::new("key", Verdict::Failed, plain(&refusal.text(), SHOWN).into_owned()).advising(
                "Put the key that is registered with the backend into backend.api_key_file, or pass it with \
                     --key-file.",
            ));
            return None;
        }
        Err(refusal) => {
            lines.push(Line::new("version", Verdict::Failed, plain(&refusal.text(), SHOWN).into_owned()));
            return None;
        }
    };
    match known.release {
        Some(release) => lines.push(Line::new("version", Verdict::Ok, release.to_string())),
        None if identity.key.is_none() => {
            lines.push(
                Line::new(
                    "key",
                    Verdict::Skipped,
                    "There is no key to check with, and this backend wants one.",
                )
                .advising("Pass the plugin's key with --key-file FILE. Clients send their own in any case."),
            );
            return None;
        }
        None => {
            lines.push(Line::new("version", Verdict::Note, "The backend does not say its release.").advising(
                "A checkout that was never installed calls itself 0.0.0; the bridge looks at its streams.",
            ))
        }
    }
    match (known.wants_key(), &identity.key) {
        (Some(false), None) => lines.push(Line::new("key", Verdict::Ok, "This release takes no key.")),
        (Some(false), Some(_)) => {
            lines.push(Line::new(
                "key",
                Verdict::Note,
                "This release takes no key; the one that is given does no harm.",
            ));
        }
        (_, Some(_)) => lines.push(Line::new("key", Verdict::Ok, "The key is accepted.")),
        (_, None) => {}
    }
    Some(known)
}

/// How its `/ws` is spoken to, as its release tells: opening it would make old releases write to NetBox.
fn socket(known: &Capabilities) -> Line {
    match (known.socket, known.dialect()) {
        (Socket::Denied, _) => Line::new(
            "/ws",
            Verdict::Note,
            "switched off by the backend's execution policy",
        )
        .advising(
            "Its streams do not need it. To use it, start the backend with PROXBOX_EXECUTION_MODE=legacy.",
        ),
        (Socket::Presumed, Some(dialect)) => {
            Line::new("/ws", Verdict::Ok, format!("dialect {}", dialect.as_str()))
        }
        (Socket::Presumed, None) => {
            Line::new("/ws", Verdict::Note, "a dialect that the bridge cannot drive, or an unknown one")
        }
    }
}

async fn kinds(backend: &Backend, identity: &Identity, choice: Choice) -> Vec<KindLine> {
    let Some(known) = backend.all_capabilities(identity).await else { return Vec::new() };
    let line = |kind: Kind| match plan(Endpoint::of(kind), &known, choice) {
        Ok(plan) => {
            let mut channels: Vec<&'static str> = Vec::new();
            for leg in &plan.legs {
                if channels.last() != Some(&leg.channel.as_str()) {
                    channels.push(leg.channel.as_str());
                }
            }
            let skipped: Vec<&str> = plan.skipped.iter().map(|kind| kind.row().title).collect();
            let note = (!skipped.is_empty()).then(|| format!("without {}", skipped.join(", ")));
            KindLine { kind: kind.as_str(), channels, note }
        }
        Err(_) => {
            let note = Some("this backend has no way to do it".to_owned());
            KindLine { kind: kind.as_str(), channels: Vec::new(), note }
        }
    };
    Kind::all().map(line).collect()
}

async fn shims(config: &Config, backend: &Backend) -> Vec<Shim> {
    let shims = &config.shims;
    let mut found = Vec::new();
    let paths = [
        ("health", "shims.health", shims.health, "/health"),
        ("auth", "shims.auth", shims.auth, "/auth/bootstrap-status"),
    ];
    for (name, key, is_on, path) in paths {
        let (on, why) = match backend.lacks(path).await {
            _ if !is_on => (false, format!("{key} is off")),
            Ok(true) => (true, format!("the backend has no {path}")),
            Ok(false) => (false, format!("the backend has {path}")),
            Err(why) => (false, why),
        };
        found.push(Shim { name, on, why });
    }
    let why = if shims.aliases { "no backend has these paths" } else { "shims.aliases is off" };
    found.push(Shim { name: "aliases", on: shims.aliases, why: why.to_owned() });
    found
}
