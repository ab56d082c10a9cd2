//! The flags of every subcommand that talks to a running bridge.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::client::{AccessToken, BridgeClient, BridgeUrl};
use crate::config::{Config, ConfigError, Flags, TOKEN_VARIABLE, environment, first_token};
use crate::core::domain::credential::ApiKey;
use crate::core::http::url::InvalidBackendUrl;

/// The flags that find a running bridge, and the token for it.
///
/// Flags for a bridge that is to be started are accepted and not shown. A subcommand that uses one describes it with
/// `mut_arg`, such as `--backend` for the name of a backend.
#[derive(Debug, clap::Args)]
#[command(
    mut_arg("listen", |listen| listen.hide(true)),
    mut_arg("admin_token_file", |file| file.hide(true)),
    mut_arg("backend", |backend| backend.hide(true)),
    mut_arg("data_dir", |data_dir| data_dir.hide(true)),
    mut_arg("channel", |channel| channel.hide(true))
)]
pub(super) struct BridgeArgs {
    #[command(flatten)]
    pub(super) flags: Flags,
    /// URL of the admin listener of a bridge on another machine; the configuration is then not read
    #[arg(long, value_name = "URL", value_parser = parse_url, conflicts_with_all = ["config", "admin_listen"])]
    bridge: Option<BridgeUrl>,
    /// File with the token for the admin listener [default: that of admin_token_file, then the variable
    /// PROXBOX_BRIDGE_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Time limit for an answer
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

fn parse_url(text: &str) -> Result<BridgeUrl, String> {
    text.parse().map_err(|error| match error {
        InvalidBackendUrl::Credentials => "it contains a user name or password: use --token-file".to_owned(),
        error => error.to_string(),
    })
}

impl BridgeArgs {
    /// The name of a backend in `--backend`, which is no URL here.
    pub(super) fn take_backend(&mut self) -> Option<String> {
        self.flags.backend.take()
    }

    /// Whether the bridge is one that the configuration does not describe.
    pub(super) fn is_remote(&self) -> bool {
        self.bridge.is_some()
    }

    /// A client of the bridge, with the token for it. If there is none, the client may read where `admin_open_reads` is
    /// on, and a refusal says where the token was looked for.
    ///
    /// # Errors
    ///
    /// An invalid configuration, or a `--token-file` that cannot be used.
    pub(super) fn client(&self) -> anyhow::Result<BridgeClient> {
        let (url, configured) = self.find()?;
        let token = match &self.token_file {
            Some(path) => {
                let token = read_token(path).context("--token-file")?;
                AccessToken { token: Some(token), origin: format!("{path:?} (--token-file)") }
            }
            None => find_token(configured.as_deref(), std::env::var(TOKEN_VARIABLE).ok()),
        };
        Ok(BridgeClient::new(url, token, actor(), self.timeout))
    }

    /// A client for what needs no token. No file with a token is read.
    ///
    /// # Errors
    ///
    /// An invalid configuration.
    pub(super) fn client_without_token(&self) -> Result<BridgeClient, ConfigError> {
        let token = AccessToken { token: None, origin: "this request needs none".to_owned() };
        Ok(BridgeClient::new(self.find()?.0, token, None, self.timeout))
    }

    /// The bridge, and the file with its tokens. That of the configuration is not for another bridge.
    fn find(&self) -> Result<(BridgeUrl, Option<PathBuf>), ConfigError> {
        if let Some(url) = &self.bridge {
            return Ok((url.clone(), None));
        }
        let (address, file) = Config::admin_listener(&self.flags, environment())?;
        Ok((BridgeUrl::local(address), file))
    }
}

/// The first token in the file `configured`, or in `variable`, the value of [`TOKEN_VARIABLE`].
fn find_token(configured: Option<&Path>, variable: Option<String>) -> AccessToken {
    let in_file = match configured.map(|path| (path, read_token(path))) {
        Some((path, Ok(token))) => {
            return AccessToken { token: Some(token), origin: format!("{path:?} (admin_token_file)") };
        }
        Some((_, Err(error))) => format!("admin_token_file: {error:#}"),
        None => "admin_token_file is not set".to_owned(),
    };
    let in_variable = match variable.map(|text| first_token(&Zeroizing::new(text))) {
        Some(Ok(token)) => return AccessToken { token: Some(token), origin: TOKEN_VARIABLE.to_owned() },
        Some(Err(error)) => format!("{TOKEN_VARIABLE} has no token: {error}"),
        None => format!("{TOKEN_VARIABLE} is not set"),
    };
    AccessToken { token: None, origin: format!("{in_file}; {in_variable}; there is no --token-file") }
}

/// The first token in the file at `path`.
fn read_token(path: &Path) -> anyhow::Result<ApiKey> {
    let text = fs::read(path).map(Zeroizing::new).with_context(|| format!("cannot read {path:?}"))?;
    first_token(&String::from_utf8_lossy(&text)).map_err(|error| anyhow!("no token in {path:?}: {error}"))
}

/// The API key of a backend in the file of `--key-file`.
pub(super) fn read_key(path: &Path) -> anyhow::Result<ApiKey> {
    let text =
        fs::read(path).map(Zeroizing::new).with_context(|| format!("--key-file: cannot read {path:?}"))?;
    let text = String::from_utf8_lossy(&text);
    text.parse().map_err(|error| anyhow!("--key-file: not a key in {path:?}: {error}"))
}

/// The user of this process, as it is named in the records of jobs and in the audit log.
fn actor() -> Option<HeaderValue> {
    let names = ["SUDO_USER", "USER", "LOGNAME"];
    let name = names.iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()))?;
    HeaderValue::from_str(&name).ok()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        bridge: BridgeArgs,
    }

    fn parsed(args: &[&str]) -> Result<BridgeArgs, String> {
        let parsed = Command::try_parse_from([&["bridge"], args].concat());
        parsed.map(|command| command.bridge).map_err(|error| error.to_string())
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    fn exposed(found: &AccessToken) -> Option<&str> {
        found.token.as_ref().map(ApiKey::expose)
    }

    #[test]
    fn the_token_is_the_first_of_its_file_or_that_of_the_variable() {
        let several = file("anna:0123456789abcdef\nfedcba9876543210\n");
        let found = find_token(Some(several.path()), Some("of-the-variable".to_owned()));
        assert_eq!(exposed(&found), Some("0123456789abcdef"));
        assert!(found.origin.ends_with("(admin_token_file)"), "{}", found.origin);
        for configured in [None, Some(Path::new("/no/such/file"))] {
            let found = find_token(configured, Some("ci:of-the-variable".to_owned()));
            assert_eq!((exposed(&found), found.origin.as_str()), (Some("of-the-variable"), TOKEN_VARIABLE));
        }
    }

    #[test]
    fn a_missing_token_is_explained_without_what_was_read() {
        let bad = file("two words \n");
        for (configured, variable, parts) in [
            (None, None, ["admin_token_file is not set", "PROXBOX_BRIDGE_ADMIN_TOKEN is not set"]),
            (
                Some(Path::new("/no/such/file")),
                Some("schl\u{fc}ssel"),
                [
                    "cannot read \"/no/such/file\": No such file",
                    "PROXBOX_BRIDGE_ADMIN_TOKEN has no token: a key is",
                ],
            ),
            (
                Some(bad.path()),
                Some(""),
                ["no token in ", "PROXBOX_BRIDGE_ADMIN_TOKEN has no token: it is empty"],
            ),
        ] {
            let found = find_token(configured, variable.map(str::to_owned));
            assert_eq!(found.token, None);
            for part in parts.into_iter().chain(["there is no --token-file"]) {
                assert!(found.origin.contains(part), "{}", found.origin);
            }
            for secret in ["two words", "schl"] {
                assert!(!found.origin.contains(secret), "{}", found.origin);
            }
        }
    }

    #[test]
    fn the_token_of_the_configuration_is_not_for_another_bridge() {
        let token = file("0123456789abcdef");
        let token = token.path().to_str().unwrap();
        let local =
            parsed(&["--admin-listen", "0.0.0.0:9", "--admin-token-file", token]).unwrap().find().unwrap();
        assert_eq!(local, (BridgeUrl::local(([127, 0, 0, 1], 9).into()), Some(token.into())));
        let other = parsed(&["--bridge", "https://bridge.example/x/", "--admin-token-file", token]).unwrap();
        assert_eq!(other.find().unwrap(), ("https://bridge.example/x".parse().unwrap(), None));
    }

    #[test]
    fn a_url_of_a_bridge_has_neither_a_password_nor_a_query_nor_a_configuration() {
        for (args, why) in [
            (&["--bridge", "https://me:secret@bridge"][..], "use --token-file"),
            (&["--bridge", "https://bridge/?token=1"], "path or query"),
            (&["--bridge", "bridge:8801"], "no scheme"),
            (&["--bridge", "http://bridge", "--config", "x"], "cannot be used with"),
        ] {
            let error = parsed(args).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_token_file_that_cannot_be_used_is_an_error() {
        let error = parsed(&["--token-file", "/no/such/file"]).unwrap().client().unwrap_err();
        assert!(
            format!("{error:#}").starts_with("--token-file: cannot read \"/no/such/file\": No such file")
        );
    }
}
