//! Puts a configuration together from its sources.

use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use zeroize::Zeroizing;

use super::env::{self, CONFIG_VARIABLE, Setting};
use super::file::{self, ConfigFile};
use super::flags::Flags;
use super::notify::NotifyTarget;
use super::problem::{ConfigProblem, ValueOrigin};
use super::schema::Values;
use super::token::{AdminToken, TokenFile};
use super::value::ValueError;
use crate::core::domain::credential::ApiKey;

/// Reads a file.
pub(super) type Read<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// What set each key.
pub(super) type Origins = HashMap<&'static str, ValueOrigin>;

/// Values, and what set them.
pub(super) type Sourced = (Values, Origins);

/// What the sources set, each value checked by itself.
pub(super) struct Builder {
    /// The values of the whole bridge.
    pub(super) common: Values,
    /// The settings of each backend; there is at least one.
    backends: Vec<Vec<Setting>>,
    /// Where each backend begins in the file.
    pub(super) blocks: Vec<ValueOrigin>,
    /// The settings of each target of notifications, with its place.
    notify: Vec<(ValueOrigin, Vec<Setting>)>,
    /// What set each key of the whole bridge.
    origins: Origins,
    pub(super) problems: Vec<ConfigProblem>,
}

impl Builder {
    /// Reads all sources: a flag takes precedence over a variable, and a variable over the file.
    pub(super) fn new(
        flags: &Flags,
        env: impl IntoIterator<Item = (String, String)>,
        read: Read<'_>,
    ) -> Self {
        let env: Vec<(String, String)> = env.into_iter().collect();
        let ConfigFile { settings: mut found, blocks, notify } = read_file(flags, &env, read);
        let others = env::environment(&env).into_iter().chain(env::flags(flags));
        found.extend(others.map(|found| found.and_then(|setting| assign(setting, &blocks, &notify))));

        let mut backends = Vec::new();
        backends.resize_with(blocks.len().max(1), Vec::new);
        let notify = notify.into_iter().map(|origin| (origin, Vec::new())).collect();
        let (common, origins, problems) = (Values::default(), HashMap::new(), Vec::new());
        let mut builder = Self { common, backends, blocks, notify, origins, problems };
        for found in found {
            if let Err(problem) = found.and_then(|setting| builder.add(setting)) {
                builder.problems.push(problem);
            }
        }
        builder
    }

    fn add(&mut self, setting: Setting) -> Result<(), ConfigProblem> {
        match setting.block {
            // All values are checked in the order of the sources. Those of a backend are set over the common ones.
            Some(block) => {
                apply(&setting, &mut Values::default())?;
                if setting.key.path().0 != NOTIFY {
                    self.backends[block].push(setting);
                    return Ok(());
                }
                if self.notify.is_empty() {
                    // Variables make one without a table in the file.
                    self.notify.push((setting.origin.clone(), Vec::new()));
                }
                self.notify[block].1.push(setting);
            }
            None => {
                apply(&setting, &mut self.common)?;
                self.origins.insert(setting.key.name, setting.origin);
            }
        }
        Ok(())
    }

    /// The values of the whole bridge, those of each backend, and those of each target of notifications.
    pub(super) fn sourced(&self) -> (Sourced, Vec<Sourced>, Vec<Sourced>) {
        let Self { common, origins, backends, notify, .. } = self;
        let backends = backends.iter().map(|settings| apply_all(settings.clone(), common.clone()));
        let notify = notify.iter().map(|(_, settings)| apply_all(settings.clone(), Values::default()));
        ((common.clone(), origins.clone()), backends.collect(), notify.collect())
    }

    /// The values for each backend, with the API key of its file.
    pub(super) fn backends(&mut self, read: Read<'_>) -> Vec<(Values, Option<ApiKey>)> {
        let backends = std::mem::take(&mut self.backends);
        let built = backends.into_iter().map(|settings| {
            let (values, mut origins) = apply_all(settings, self.common.clone());
            let file = origins.remove(BACKEND_KEY).zip(values.backend.api_key_file.as_deref());
            let api_key = key_in_file(BACKEND_KEY, file, read, &mut self.problems);
            (values, api_key)
        });
        built.collect()
    }

    /// The targets of notifications, with their secrets.
    pub(super) fn notify(&mut self, read: Read<'_>) -> Vec<NotifyTarget> {
        let targets = std::mem::take(&mut self.notify);
        let built = targets.into_iter().map(|(origin, settings)| {
            let (values, mut origins) = apply_all(settings, Values::default());
            let keys = values.notify;
            let mut secret = |key, path: &Option<PathBuf>| {
                key_in_file(key, origins.remove(key).zip(path.as_deref()), read, &mut self.problems)
            };
            let (url, secret) = (secret(URL_FILE, &keys.url_file), secret(SECRET_FILE, &keys.secret_file));
            NotifyTarget { origin, keys, url, secret }
        });
        built.collect()
    }

    /// The tokens of `admin_token_file` and `admin_read_token_file`.
    pub(super) fn admin_tokens(&mut self, read: Read<'_>) -> Vec<AdminToken> {
        let bridge = &self.common.bridge;
        let files = [
            (ADMIN_TOKEN, &bridge.admin_token_file, "operator", false),
            (READ_TOKEN, &bridge.admin_read_token_file, "reader", true),
        ];
        let mut tokens: Vec<AdminToken> = Vec::new();
        for (key, file, default_name, is_read_only) in files {
            let file = self.origins.remove(key).zip(file.as_deref());
            let Some(TokenFile(found)) = key_in_file(key, file, read, &mut self.problems) else { continue };
            let mut conflict =
                |problem: &str| self.problems.push(ConfigProblem::Conflict(format!("{key}: {problem}")));
            if found.iter().any(|(_, secret)| secret.expose().len() < SHORTEST_TOKEN) {
                conflict(&format!(
                    "the token has fewer than {SHORTEST_TOKEN} characters; `openssl rand -hex 32` makes one"
                ));
            }
            for (name, secret) in found {
                if tokens.iter().any(|token| token.secret == secret) {
                    conflict("a token is there twice, or is one of admin_token_file");
                }
                let is_named = name.is_some();
                let name = name.unwrap_or_else(|| default_name.to_owned());
                tokens.push(AdminToken { name, is_named, is_read_only, secret });
            }
        }
        tokens
    }

    /// The key of `shims.api_key_file`.
    pub(super) fn shim_key(&mut self, read: Read<'_>) -> Option<ApiKey> {
        let file = self.origins.remove(SHIM_KEY).zip(self.common.shims.api_key_file.as_deref());
        key_in_file(SHIM_KEY, file, read, &mut self.problems)
    }
}

/// The shortest token for operators, in characters. A shorter one can be guessed.
const SHORTEST_TOKEN: usize = 16;

// The keys that name a file with a secret.
const BACKEND_KEY: &str = "backend.api_key_file";
const SHIM_KEY: &str = "shims.api_key_file";
const ADMIN_TOKEN: &str = "admin_token_file";
const READ_TOKEN: &str = "admin_read_token_file";
const URL_FILE: &str = "notify.url_file";
const SECRET_FILE: &str = "notify.secret_file";

/// The table of a target of notifications.
const NOTIFY: &str = "notify";

/// Reads the API key, or the tokens, in `file`, which `key` was set to.
fn key_in_file<T: FromStr<Err: Display>>(
    key: &'static str,
    file: Option<(ValueOrigin, &Path)>,
    read: Read<'_>,
    problems: &mut Vec<ConfigProblem>,
) -> Option<T> {
    let (origin, path) = file?;
    let parsed = match read(path) {
        // What is not UTF-8 is not ASCII either, and is refused as such.
        Ok(bytes) => {
            let bytes = Zeroizing::new(bytes);
            let text = String::from_utf8_lossy(&bytes);
            text.parse().map_err(|error| format!("{key}: no key in {path:?}: {error}"))
        }
        Err(error) => Err(format!("{key}: cannot read {path:?}: {error}")),
    };
    parsed.map_err(|message| problems.push(ConfigProblem::BadSetting { origin, message })).ok()
}

/// Assigns a setting of a variable or a flag to the backend or the target of notifications that it is for.
fn assign(
    setting: Setting,
    backends: &[ValueOrigin],
    notify: &[ValueOrigin],
) -> Result<Setting, ConfigProblem> {
    let table = setting.key.path().0;
    let blocks = match table {
        "backend" => backends,
        NOTIFY => notify,
        _ => return Ok(setting),
    };
    if blocks.len() > 1 {
        let message =
            format!("there are several [[{table}]] blocks: set {} in one of them", setting.key.name);
        return Err(ConfigProblem::BadSetting { origin: setting.origin, message });
    }
    Ok(Setting { block: Some(0), ..setting })
}

fn read_file(flags: &Flags, env: &[(String, String)], read: Read<'_>) -> ConfigFile {
    let variable = || env.iter().find(|(name, _)| name == CONFIG_VARIABLE);
    let (origin, path) = match (&flags.config, variable()) {
        (Some(path), _) => (ValueOrigin::Flag("--config"), PathBuf::from(path)),
        (None, Some((name, path))) => (ValueOrigin::Variable(name.clone()), PathBuf::from(path)),
        (None, None) => return ConfigFile::default(),
    };
    let text = read(&path).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    });
    match text {
        Ok(text) => file::read(&path, &text),
        Err(error) => {
            let message = format!("cannot read {path:?}: {error}");
            ConfigFile {
                settings: vec![Err(ConfigProblem::Unreadable { origin, message })],
                ..ConfigFile::default()
            }
        }
    }
}

/// Sets `settings`, which were checked, over `values`.
fn apply_all(settings: Vec<Setting>, mut values: Values) -> Sourced {
    let mut origins = Origins::new();
    for setting in settings {
        let applied = apply(&setting, &mut values);
        debug_assert!(applied.is_ok(), "{} was checked", setting.key.name);
        origins.insert(setting.key.name, setting.origin);
    }
    (values, origins)
}

fn apply(setting: &Setting, values: &mut Values) -> Result<(), ConfigProblem> {
    let Setting { key, origin, text, shown, .. } = setting;
    values.set(key, text).map_err(|error| match error {
        ValueError::NotAllowed => ConfigProblem::not_allowed(origin.clone(), key.name, &key.allowed(), shown),
        ValueError::Url(error) => ConfigProblem::BadValue {
            origin: origin.clone(),
            key: key.name,
            reason: format!("{}: {error}", key.allowed()),
        },
    })
}
