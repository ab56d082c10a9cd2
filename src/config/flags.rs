//! The flags that set keys.

/// The flags of every command that needs a configuration.
///
/// Values stay raw here, so that a bad one is reported in the same words whatever its source.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Configuration file, in TOML [env: PROXBOX_BRIDGE_CONFIG].
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Address on which clients are served [default: 127.0.0.1:8800].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Address of the admin listener [default: 127.0.0.1:8801].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<String>,
    /// File with the token of operators, which everything on the admin listener needs but its health.
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<String>,
    /// Where the backend is: `http://HOST[:PORT]`.
    #[arg(long, value_name = "URL")]
    pub backend: Option<String>,
    /// Directory of the ledger, the durable record of jobs, made if it is missing; without it the record is
    /// kept in memory and lost when the bridge ends.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// How the backend is driven: auto, native, websocket or json [default: auto].
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<String>,
}

struct Row {
    key: &'static str,
    flag: &'static str,
    value: fn(&Flags) -> Option<&str>,
}

static TABLE: [Row; 6] = [
    Row { key: "listen", flag: "--listen", value: |flags| flags.listen.as_deref() },
    Row { key: "admin_listen", flag: "--admin-listen", value: |flags| flags.admin_listen.as_deref() },
    Row {
        key: "admin_token_file",
        flag: "--admin-token-file",
        value: |flags| flags.admin_token_file.as_deref(),
    },
    Row { key: "data_dir", flag: "--data-dir", value: |flags| flags.data_dir.as_deref() },
    Row { key: "backend.url", flag: "--backend", value: |flags| flags.backend.as_deref() },
    Row { key: "backend.channel", flag: "--channel", value: |flags| flags.channel.as_deref() },
];

/// The flag that sets the key of this name.
pub(super) fn of(key: &str) -> Option<&'static str> {
    TABLE.iter().find(|row| row.key == key).map(|row| row.flag)
}

/// The value that the flags give to the key of this name.
pub(super) fn value<'a>(flags: &'a Flags, key: &str) -> Option<&'a str> {
    TABLE.iter().find(|row| row.key == key).and_then(|row| (row.value)(flags))
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
    fn every_row_names_a_key_and_a_flag_that_fills_it() {
        for row in &TABLE {
            assert!(keys().any(|key| key.name == row.key), "{}", row.key);
            let command = Command::try_parse_from(["bridge", row.flag, "here"]).ok().unwrap();
            assert_eq!((row.value)(&command.flags), Some("here"), "{}", row.flag);
        }
    }

    #[test]
    fn help_tells_the_defaults_of_the_table() {
        let help = Command::command().render_long_help().to_string();
        for row in &TABLE {
            let key = keys().find(|key| key.name == row.key).unwrap();
            let Some(default) = key.default else { continue };
            assert!(help.contains(&format!("[default: {default}]")), "{}", row.flag);
        }
    }
}
