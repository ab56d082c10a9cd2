//! `proxbox-bridge health`: checks whether a running bridge is ready.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::bridge::BridgeArgs;
use crate::client::{BridgeClient, BridgeError};
use crate::core::domain::kind::Kind;
use crate::core::text::string_enum::string_enum;

/// Check whether the bridge that runs with this configuration is ready. Exit code 0 if it is, 1 if not.
#[derive(Debug, clap::Args)]
#[command(mut_arg("backend", |backend| {
    backend.hide(false).value_name("NAME").help("With --fresh: check this backend alone").requires("fresh").conflicts_with("backends")
}))]
#[command(mut_arg("timeout", |timeout| timeout.default_value("5s")))]
#[command(after_help = "Examples:\n  \
    proxbox-bridge health --config /etc/proxbox-bridge/proxbox-bridge.toml --backends\n  \
    proxbox-bridge health --fresh full-update=26h --nagios")]
pub struct Args {
    #[command(flatten)]
    bridge: BridgeArgs,
    /// Also check whether its backends are reachable
    #[arg(long)]
    backends: bool,
    /// Also check that the last sync of the kind that completed is not older, as in full-update=26h. May be repeated
    #[arg(long, value_name = "KIND=AGE", value_parser = parse_fresh)]
    fresh: Vec<(Kind, Duration)>,
    /// Print one line with performance data, and exit as a plugin of Nagios: 0 OK, 1 WARNING (ready, with a problem),
    /// 2 CRITICAL, 3 UNKNOWN
    #[arg(long)]
    nagios: bool,
}

fn parse_fresh(text: &str) -> Result<(Kind, Duration), String> {
    let (kind, age) = text.split_once('=').ok_or("expected KIND=AGE, such as full-update=26h")?;
    let age = humantime::parse_duration(age).map_err(|error| error.to_string())?;
    let kind = Kind::from_name(kind).ok_or_else(|| {
        let kinds: Vec<&str> = Kind::all().map(Kind::as_str).collect();
        format!("no such kind; expected one of {}", kinds.join(", "))
    })?;
    Ok((kind, age))
}

string_enum! {
    /// The state of a plugin of Nagios. Its number is the exit code.
    pub enum NagiosState {
        /// The bridge is ready.
        Ok = "OK",
        /// The bridge is ready, and has a problem.
        Warning = "WARNING",
        /// The bridge is not ready or does not answer, or a check failed.
        Critical = "CRITICAL",
        /// The state could not be determined.
        Unknown = "UNKNOWN",
    }
}

/// The state of the bridge is not OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state of the bridge is {0}")]
pub struct NotOk(pub NagiosState);

/// Prints the answer of the bridge.
///
/// # Errors
///
/// An invalid configuration, no answer, or a bridge that is not ready.
pub async fn run(mut args: Args) -> anyhow::Result<()> {
    let backend = args.bridge.take_backend();
    let bridge = args.bridge.client_without_token();
    if args.nagios {
        let (state, text) = match bridge {
            Err(invalid) => (NagiosState::Unknown, invalid.to_string()),
            Ok(bridge) => match request(&bridge, &args, backend).await {
                Err(error) => (NagiosState::Critical, format!("{:#}", anyhow::Error::from(error))),
                Ok((status, body)) => evaluate(status, &body),
            },
        };
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        super::print(&format!("PROXBOX-BRIDGE {state} - {text}"))?;
        return if state == NagiosState::Ok { Ok(()) } else { Err(NotOk(state).into()) };
    }
    let (status, body) = request(&bridge?, &args, backend).await?;
    super::print(&String::from_utf8_lossy(&body))?;
    if status != StatusCode::OK {
        bail!("the bridge is not ready ({status})");
    }
    Ok(())
}

/// Prints the error of a command line `health … --nagios` as the state UNKNOWN, and returns its exit code. `None` for any
/// other command line.
pub fn report_usage(error: &clap::Error, mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let is_health = arguments.nth(1).is_some_and(|subcommand| subcommand == "health");
    let is_nagios = is_health && arguments.any(|argument| argument == "--nagios");
    let text = (is_nagios && error.use_stderr()).then(|| error.to_string())?;
    let text = text.lines().next().unwrap_or_default();
    let state = NagiosState::Unknown;
    // A closed pipe is not an error.
    let _ = super::print(&format!("PROXBOX-BRIDGE {state} - {text}"));
    Some(ExitCode::from(state as u8))
}

async fn request(
    bridge: &BridgeClient,
    args: &Args,
    backend: Option<String>,
) -> Result<(StatusCode, Bytes), BridgeError> {
    let escaped = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let limits = args.fresh.iter().map(|(kind, age)| {
        let age = humantime::format_duration(*age).to_string();
        format!("fresh={kind}:{}", escaped(&age))
    });
    let backend = match backend {
        Some(name) => Some(format!("backend={}", escaped(&name))),
        None => args.backends.then(|| "backend".to_owned()),
    };
    let query: Vec<String> = backend.into_iter().chain(limits).collect();
    let path = if query.is_empty() { "/readyz".to_owned() } else { format!("/readyz?{}", query.join("&")) };
    bridge.request(Method::GET, &path, HeaderMap::new()).await
}

/// What `--nagios` reads of `/readyz`.
#[derive(Deserialize)]
struct ReadyResponse {
    reasons: Vec<String>,
    #[serde(default)]
    freshness: Vec<FreshnessResponse>,
}

#[derive(Deserialize)]
struct FreshnessResponse {
    backend: String,
    kind: String,
    age_seconds: Option<u64>,
    limit_seconds: u64,
}

/// The state of the bridge, and its description with performance data.
fn evaluate(status: StatusCode, body: &[u8]) -> (NagiosState, String) {
    // A pipe begins the performance data, and a quote ends a label in it.
    let plain = |text: &str| text.replace(['|', '\''], " ");
    let Ok(ReadyResponse { reasons, freshness }) = serde_json::from_slice(body) else {
        let answer = String::from_utf8_lossy(body);
        return (NagiosState::Unknown, format!("unexpected answer ({status}): {}", plain(&answer)));
    };
    let state = match status {
        StatusCode::OK if reasons.is_empty() => NagiosState::Ok,
        StatusCode::OK => NagiosState::Warning,
        _ => NagiosState::Critical,
    };
    let is_ready = (state == NagiosState::Ok).then(|| "ready".to_owned());
    let ages = freshness.iter().filter(|_| is_ready.is_some()).filter_map(|fresh| {
        let age = humantime::format_duration(Duration::from_secs(fresh.age_seconds?));
        Some(plain(&format!("{} {} {age} ago", fresh.backend, fresh.kind)))
    });
    let ages: Vec<String> = ages.collect();
    let reasons = reasons.iter().map(|reason| plain(reason));
    let text = is_ready.iter().cloned().chain(reasons).chain(ages).collect::<Vec<_>>().join("; ");
    let data = freshness.iter().map(|fresh| {
        let age = fresh.age_seconds.map_or("U".to_owned(), |age| format!("{age}s"));
        format!(" '{} {}'={age};;{};0", plain(&fresh.backend), fresh.kind, fresh.limit_seconds)
    });
    let data: String = data.collect();
    (state, if data.is_empty() { text } else { format!("{text} |{data}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_for_nagios_has_the_state_the_reasons_and_the_ages() {
        let fresh =
            r#"{"backend": "l'b", "kind": "full-update", "age_seconds": 3720, "limit_seconds": 93600}"#;
        let stale = r#"{"backend": "b", "kind": "devices", "age_seconds": null, "limit_seconds": 60}"#;
        for (status, body, state, text) in [
            (200, r#"{"reasons": []}"#.to_owned(), NagiosState::Ok, "ready"),
            (
                200,
                format!(r#"{{"reasons": [], "freshness": [{fresh}]}}"#),
                NagiosState::Ok,
                "ready; l b full-update 1h 2m ago | 'l b full-update'=3720s;;93600;0",
            ),
            (200, r#"{"reasons": ["the | clock"]}"#.to_owned(), NagiosState::Warning, "the   clock"),
            (
                503,
                format!(r#"{{"reasons": ["no sync"], "freshness": [{fresh}, {stale}]}}"#),
                NagiosState::Critical,
                "no sync | 'l b full-update'=3720s;;93600;0 'b devices'=U;;60;0",
            ),
            (
                400,
                r#"{"message": "Bad"}"#.to_owned(),
                NagiosState::Unknown,
                "unexpected answer (400 Bad Request): {\"message\": \"Bad\"}",
            ),
        ] {
            let evaluated = evaluate(StatusCode::from_u16(status).unwrap(), body.as_bytes());
            assert_eq!(evaluated, (state, text.to_owned()), "{body}");
        }
    }
}
