//! What can be wrong with a configuration.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::slot::written;
use super::url::NotABackend;
use crate::core::credential::NotAKey;

/// Why there is no configuration. Its text is one line per problem; a process that cannot go on for it
/// exits with 78 (`EX_CONFIG`).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Everything that was found wrong, at least one thing: first what stands in the file, in the order of its lines, then
    /// variables, flags, and what is wrong between keys.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

impl Error {
    /// Everything that was found wrong, in the order in which it is shown.
    pub fn problems(&self) -> &[Problem] {
        let Self::Invalid(problems) = self;
        problems
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the file.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// In the environment variable of this name.
    Variable(String),
    /// In this flag: `--backend`.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One thing that is wrong. Its text is one line and names where, what and the way out.
///
/// Values of unknown keys and URLs are not repeated: either may hold a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file could not be read, or is not UTF-8.
    #[error("{origin}: cannot read {path:?}: {source}")]
    Unreadable {
        /// What named the file.
        origin: Origin,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{origin}: not valid TOML: {message}")]
    Syntax {
        /// Where reading it stopped.
        origin: Origin,
        /// What the parser says, on one line.
        message: String,
    },
    /// The file has a key that does not exist.
    #[error("{origin}: unknown key `{}` {}{}", key.escape_debug(), in_table(table), did_you_mean(hint.as_deref()))]
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
        /// Its table, empty for the top level.
        table: &'static str,
        /// What may have been meant, ready to be shown.
        hint: Option<String>,
    },
    /// There is a variable of the bridge that does not exist.
    #[error("{}: unknown variable{}", name.escape_debug(), did_you_mean(hint.as_deref()))]
    UnknownVariable {
        /// Its name.
        name: String,
        /// What may have been meant, ready to be shown.
        hint: Option<String>,
    },
    /// A value is not what its key takes.
    #[error("{origin}: {key} must be {allowed}, not {value}")]
    BadValue {
        /// Where the value stands.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// What the key takes.
        allowed: String,
        /// What it was given, on one line.
        value: String,
    },
    /// The address of the backend is not one.
    #[error("{origin}: backend.url must be {allowed}: {source}")]
    BadUrl {
        /// Where the URL stands.
        origin: Origin,
        /// What the key takes.
        allowed: String,
        /// Why it is not one.
        source: NotABackend,
    },
    /// The file with the key of the backend could not be read.
    #[error("{origin}: backend.api_key_file: cannot read {path:?}: {source}")]
    UnreadableApiKey {
        /// What named the file.
        origin: Origin,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file with the key of the backend does not hold one.
    #[error("{origin}: backend.api_key_file: no key in {path:?}: {source}")]
    BadApiKey {
        /// What named the file.
        origin: Origin,
        /// The file.
        path: PathBuf,
        /// Why.
        source: NotAKey,
    },
    /// Nothing says where the backend is.
    #[error(
        "backend.url is not set: give --backend http://HOST[:PORT], set PROXBOX_BRIDGE_BACKEND_URL, or write \
         url in the table [backend] of the configuration file"
    )]
    NoBackend,
    /// Both listeners want the same port.
    #[error("listen ({listen}) and admin_listen ({admin_listen}) must not share an address and port")]
    SharedAddress {
        /// The one.
        listen: SocketAddr,
        /// The other.
        admin_listen: SocketAddr,
    },
    /// Recordings are wanted and there is no directory for them.
    #[error("jobs.recording is on and data_dir is not set: recordings are kept in data_dir/recordings")]
    NowhereToRecord,
    /// The record of a job would go before the frames that are kept with it.
    #[error(
        "limits.retention ({}) must not be shorter than limits.log_retention ({})",
        written(*.retention),
        written(*.log_retention)
    )]
    RetentionTooShort {
        /// How long the record would be kept.
        retention: Duration,
        /// How long its frames would be.
        log_retention: Duration,
    },
}

impl Problem {
    /// The key whose value is wrong; the name of a table where that is no table.
    pub(super) fn key(&self) -> Option<&'static str> {
        match self {
            Self::BadValue { key, .. } => Some(key),
            Self::BadUrl { .. } => Some("backend.url"),
            _ => None,
        }
    }
}

fn in_table(table: &str) -> String {
    if table.is_empty() { "at the top level".to_owned() } else { format!("in [{table}]") }
}

fn did_you_mean(hint: Option<&str>) -> String {
    hint.map(|hint| format!("; did you mean {hint}?")).unwrap_or_default()
}
