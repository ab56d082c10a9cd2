//! The configuration in force: the value of each key and its source, without secrets.
//!
//! Secrets are in files, whose names are shown. URLs that may contain one are cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::ser::{Serialize, SerializeMap, Serializer};
use toml::Value as TomlValue;

use super::builder::{Builder, Sourced};
use super::flags::Flags;
use super::key::ConfigKey;
use super::problem::{ConfigError, ValueOrigin};
use super::schema::keys;
use crate::core::http::url::HttpUrl;

/// The configuration in force.
///
/// Its text is a configuration file with the source of each value. Its JSON has one object for the whole bridge, one for
/// each backend and one for each target of notifications, whose fields are the keys.
#[derive(Debug, serde::Serialize)]
pub struct EffectiveConfig {
    bridge: EffectiveTable,
    /// The keys of the table `[backend]`, and the limits that it sets for itself.
    backends: Vec<EffectiveTable>,
    notify: Vec<EffectiveTable>,
}

/// The keys of the bridge, of one backend, or of one target of notifications.
#[derive(Debug)]
struct EffectiveTable(Vec<EffectiveValue>);

/// A key, with its value and its source.
#[derive(Debug)]
struct EffectiveValue {
    key: &'static ConfigKey,
    /// The value as a variable would set it, without secrets. `None` if it is not set.
    value: Option<String>,
    /// What set it. `None` for the default.
    origin: Option<ValueOrigin>,
}

/// The keys that name a file with a secret.
const SECRET_FILES: [&str; 10] = [
    "admin_token_file", "admin_read_token_file", "tls.key", "backend.client_key", "backend.api_key_file",
    "backend.netbox_key", "backend.netbox_client_key", "shims.api_key_file", "notify.url_file",
    "notify.secret_file",
];

const BACKEND: &str = "backend";
const NOTIFY: &str = "notify";

impl EffectiveConfig {
    /// Reads the configuration, without the files with secrets that it names.
    ///
    /// # Errors
    /// All problems of single values. Contradictions between values are not reported.
    pub fn load(flags: &Flags, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let builder = Builder::new(flags, env, &|path| std::fs::read(path));
        if builder.problems.is_empty() { Ok(Self::new(&builder)) } else { Err(ConfigError(builder.problems)) }
    }

    pub(super) fn new(builder: &Builder) -> Self {
        let (bridge, backends, notify) = builder.sourced();
        let is_of_bridge = |key: &ConfigKey| ![BACKEND, NOTIFY].contains(&key.path().0);
        let of_backend = |sourced: &Sourced| {
            EffectiveTable::new(sourced, |key| {
                key.path().0 == BACKEND || (is_of_bridge(key) && sourced.1.contains_key(key.name))
            })
        };
        Self {
            bridge: EffectiveTable::new(&bridge, is_of_bridge),
            backends: backends.iter().map(of_backend).collect(),
            notify: notify
                .iter()
                .map(|sourced| EffectiveTable::new(sourced, |key| key.path().0 == NOTIFY))
                .collect(),
        }
    }

    /// The values without their sources, to be compared with those of another configuration.
    pub(super) fn settings(&self) -> Settings {
        let mut settings = BTreeMap::new();
        let mut add = |owner: Option<String>, table: &EffectiveTable| {
            let values = table.0.iter().filter_map(|value| Some((value.key.name, value.value.clone()?)));
            settings.extend(values.map(|(key, value)| ((owner.clone(), key), value)));
        };
        add(None, &self.bridge);
        for table in self.backends.iter().chain(&self.notify) {
            let names = ["backend.name", "backend.url", "notify.name", "notify.url", "notify.url_file"];
            add(names.into_iter().find_map(|name| table.get(name)).map(str::to_owned), table);
        }
        Settings(settings)
    }

    /// The files with secrets, each with the key that names it.
    pub fn secret_files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let tables = [&self.bridge].into_iter().chain(&self.backends).chain(&self.notify);
        let values = tables.flat_map(|table| &table.0).filter(|value| SECRET_FILES.contains(&value.key.name));
        values.filter_map(|value| Some((value.key.name, Path::new(value.value.as_deref()?))))
    }
}

/// The values of a configuration, without secrets: by the name or the URL of the backend or of the target that they are
/// of, and by their keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<(Option<String>, &'static str), String>);

impl fmt::Debug for Settings {
    /// Without the values, which the fields of the configuration show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Settings").finish_non_exhaustive()
    }
}

/// A value that differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SettingChange {
    /// The key.
    pub key: &'static str,
    /// The backend or the target of notifications that it is of.
    pub owner: Option<String>,
    /// The value before. `None` if it was not set.
    pub before: Option<String>,
    /// The new value. `None` if it is not set.
    pub after: Option<String>,
}

impl Settings {
    /// The values that differ in `newer`. A backend or a target that is there only in one of them is one difference.
    pub(super) fn changes(&self, newer: &Self) -> Vec<SettingChange> {
        let owners =
            |Self(settings): &Self| settings.keys().map(|(owner, _)| owner.clone()).collect::<BTreeSet<_>>();
        let (before_owners, after_owners) = (owners(self), owners(newer));
        let is_whole = |owner: &Option<String>| before_owners.contains(owner) && after_owners.contains(owner);
        let keys: BTreeSet<_> = self.0.keys().chain(newer.0.keys()).collect();
        let changes = keys.into_iter().filter_map(|key| {
            let (before, after) = (self.0.get(key), newer.0.get(key));
            let (owner, key) = key;
            let is_shown = is_whole(owner) || ["backend.url", "notify.form"].contains(key);
            (before != after && is_shown).then(|| SettingChange {
                key,
                owner: owner.clone(),
                before: before.cloned(),
                after: after.cloned(),
            })
        });
        changes.collect()
    }
}

impl EffectiveTable {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|value| value.key.name == name)?.value.as_deref()
    }

    fn new((values, origins): &Sourced, is_wanted: impl Fn(&ConfigKey) -> bool) -> Self {
        let values = keys().filter(|key| is_wanted(key)).map(|key| EffectiveValue {
            key,
            value: values.get(key.name).map(|value| without_secrets(key.name, value)),
            origin: origins.get(key.name).cloned(),
        });
        Self(values.collect())
    }

    /// Writes the keys of each table below the header that `header` makes of its name.
    fn write(&self, f: &mut fmt::Formatter<'_>, header: impl Fn(&str) -> String) -> fmt::Result {
        let mut table = "";
        for value in &self.0 {
            let (name, _) = value.key.path();
            if name != table {
                write!(f, "\n{}\n", header(name))?;
                table = name;
            }
            writeln!(f, "{value}")?;
        }
        Ok(())
    }
}

/// The value of the key `name` without what may be a secret in it. The webhook of a chat has its token in its path.
fn without_secrets(name: &str, value: String) -> String {
    match name {
        "notify.url" => match value.parse::<HttpUrl>() {
            Ok(url) if url.target() == "/" => url.origin().to_string(),
            Ok(url) => format!("{}/…", url.origin()),
            Err(_) => "…".to_owned(),
        },
        "admin_url" => match value.split_once('?') {
            Some((url, _)) => format!("{url}?…"),
            None => value,
        },
        _ => value,
    }
}

impl fmt::Display for EffectiveConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bridge.write(f, |table| format!("[{table}]"))?;
        for backend in &self.backends {
            backend.write(f, |table| match table {
                BACKEND => format!("[[{BACKEND}]]"),
                table => format!("[{BACKEND}.{table}]"),
            })?;
        }
        self.notify.iter().try_for_each(|target| target.write(f, |table| format!("[[{table}]]")))
    }
}

/// One line of a configuration file.
impl fmt::Display for EffectiveValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, origin } = self;
        let (_, name) = key.path();
        match value {
            None => write!(f, "# {name} is not set")?,
            Some(list) if key.is_list => {
                let parts = list.split(", ").map(|part| TomlValue::from(part).to_string());
                write!(f, "{name} = [{}]", parts.collect::<Vec<_>>().join(", "))?;
            }
            Some(text) => write!(f, "{name} = {}", TomlValue::from(text.as_str()))?,
        }
        match origin {
            Some(origin) => write!(f, "  # {origin}"),
            None if value.is_some() => f.write_str("  # default"),
            None => Ok(()),
        }
    }
}

impl Serialize for EffectiveTable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|value| (value.key.name, value)))
    }
}

impl Serialize for EffectiveValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { value, origin, .. } = self;
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("value", value)?;
        map.serialize_entry(
            "source",
            match origin {
                None => "default",
                Some(ValueOrigin::File { .. }) => "file",
                Some(ValueOrigin::Variable(_)) => "variable",
                Some(ValueOrigin::Flag(_)) => "flag",
            },
        )?;
        map.serialize_entry("origin", &origin.as_ref().map(ToString::to_string))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_file_with_a_secret_is_listed() {
        let is_secret = |key: &&ConfigKey| {
            let name = key.path().1;
            key.allowed() == "a path"
                && !name.ends_with("ca_file")
                && (name.ends_with("_file") || name.ends_with("key"))
        };
        let mut secret: Vec<&str> = keys().filter(is_secret).map(|key| key.name).collect();
        let mut listed = SECRET_FILES;
        secret.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed.as_slice(), secret);
    }
}
