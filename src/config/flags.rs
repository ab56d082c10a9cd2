//! The flags that set keys.

/// The flags of every command that needs a configuration.
///
/// Values stay text here, so that the message for a bad one is the same whatever its source.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Configuration file, in TOML [env: PROXBOX_BRIDGE_CONFIG].
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Address that serves clients [default: 127.0.0.1:8800].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Address of the admin listener [default: 127.0.0.1:8801].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<String>,
    /// File with the token for operators, required for everything on the admin listener but its health.
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<String>,
    /// URL of the backend: `http://HOST[:PORT]`.
    #[arg(long, value_name = "URL")]
    pub backend: Option<String>,
    /// Directory of the ledger, the durable record of jobs, created if it is missing; without it the record is kept in
    /// memory and lost when the bridge ends.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// How the backend is driven: auto, native, websocket or json [default: auto].
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<String>,
}

impl Flags {
    /// The value of `flag`, one that a key names.
    pub(super) fn value(&self, flag: &str) -> Option<&str> {
        let value = match flag {
            "--listen" => &self.listen,
            "--admin-listen" => &self.admin_listen,
            "--admin-token-file" => &self.admin_token_file,
            "--backend" => &self.backend,
            "--data-dir" => &self.data_dir,
            "--channel" => &self.channel,
            _ => &None,
        };
        value.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::super::keys;
    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        flags: Flags,
    }

    #[test]
    fn every_flag_but_the_one_for_the_file_sets_a_key() {
        let of_keys: Vec<&str> = keys().filter_map(|key| key.flag).collect();
        for flag in &of_keys {
            let command = Command::try_parse_from(["bridge", flag, "here"]).ok().unwrap();
            assert_eq!(command.flags.value(flag), Some("here"), "{flag}");
        }
        let all = Command::command().get_arguments().filter_map(|flag| flag.get_long()).count();
        assert_eq!(of_keys.len() + 1, all);
    }

    #[test]
    fn help_states_the_defaults() {
        let help = Command::command().render_long_help().to_string();
        for key in keys().filter(|key| key.flag.is_some()) {
            let Some(default) = key.default() else { continue };
            assert!(help.contains(&format!("[default: {default}]")), "{}", key.name);
        }
    }
}
