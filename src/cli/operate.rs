//! `proxbox-bridge reload` and `proxbox-bridge log`: the configuration and the log filter of a running bridge.

use std::fmt::Write as _;

use http::{HeaderMap, Method};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::bridge::BridgeArgs;
use super::print;

/// Make a running bridge read its configuration again.
///
/// Either the whole new configuration applies to new requests and jobs, or nothing changes, and the reason is printed:
/// what is wrong, or which change needs a restart.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge reload\n  \
    proxbox-bridge check --offline --config bridge.toml && proxbox-bridge reload --config bridge.toml\n\n\
    Exit codes: 0 reloaded; 1 nothing changed, or the bridge was not reached; 64 invalid command line; 78 invalid \
    configuration of this command.")]
pub struct ReloadArgs {
    #[command(flatten)]
    bridge: BridgeArgs,

    /// Print the JSON of the admin API
    #[arg(long)]
    json: bool,
}

/// Print or set the log filter of a running bridge.
///
/// The filter is that of PROXBOX_BRIDGE_LOG: a level such as debug, or directives such as info,proxbox_bridge::job=trace. A
/// restart restores the one that the bridge was started with.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge log\n  \
    proxbox-bridge log debug\n  \
    proxbox-bridge log info,proxbox_bridge::job=trace")]
pub struct LogArgs {
    /// The new filter [default: print the current one]
    filter: Option<String>,

    #[command(flatten)]
    bridge: BridgeArgs,
}

/// Reloads the configuration.
///
/// # Errors
///
/// The bridge was not reached, or did not reload.
pub async fn reload(args: &ReloadArgs) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Reloaded {
        message: String,
        detail: String,
        // Older bridges do not list them.
        #[serde(default)]
        changed: Vec<Change>,
    }
    #[derive(Deserialize)]
    struct Change {
        key: String,
        owner: Option<String>,
        before: Option<String>,
        after: Option<String>,
    }

    let body = args.bridge.client()?.call(Method::POST, "/reload", HeaderMap::new()).await?;
    if args.json {
        return print(&String::from_utf8_lossy(&body));
    }
    let Reloaded { message, detail, changed } = serde_json::from_slice(&body)?;
    let mut text = format!("{message} {detail}");
    for Change { key, owner, before, after } in changed {
        let owner = owner.map(|owner| format!(" of {owner}")).unwrap_or_default();
        let [before, after] = [before, after].map(|value| value.unwrap_or_else(|| "not set".to_owned()));
        // Writing to a string does not fail.
        let _ = write!(text, "\n{key}{owner}: {before} → {after}");
    }
    print(&text)
}

/// Prints the log filter, or sets it and prints both.
///
/// # Errors
///
/// The bridge was not reached, or refused the filter.
pub async fn log(args: &LogArgs) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct LogFilter {
        filter: String,
        before: Option<String>,
    }

    let client = args.bridge.client()?;
    let (method, target) = match &args.filter {
        Some(filter) => {
            (Method::PUT, format!("/log?filter={}", utf8_percent_encode(filter, NON_ALPHANUMERIC)))
        }
        None => (Method::GET, "/log".to_owned()),
    };
    let body = client.call(method, &target, HeaderMap::new()).await?;
    let LogFilter { filter, before } = serde_json::from_slice(&body)?;
    print(&match before {
        Some(before) => format!("{filter} (before: {before})"),
        None => filter,
    })
}
