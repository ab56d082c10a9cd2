//! `proxbox-bridge config`: shows the configuration.

use clap::Subcommand;

use crate::config::{EffectiveConfig, Flags, environment};

/// Show the configuration.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the value of each key, and its source: the default, the file and its line, a variable or a flag.
    ///
    /// The output is a configuration file. Files with secrets are not read, only named, and URLs of webhooks are cut. A
    /// bridge that runs has these values if it was started, or has reloaded its configuration, with the same file,
    /// variables and flags.
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge config show --config /etc/proxbox-bridge/proxbox-bridge.toml\n  \
    proxbox-bridge config show --json | jq '.bridge[\"limits.idle\"]'")]
struct ShowArgs {
    #[command(flatten)]
    flags: Flags,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the configuration.
///
/// # Errors
///
/// An invalid value, or an error of standard output.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let ConfigCommand::Show(ShowArgs { flags, json }) = &args.command;
    let config = EffectiveConfig::load(flags, environment())?;
    super::print(&if *json { serde_json::to_string_pretty(&config)? } else { config.to_string() })
}
