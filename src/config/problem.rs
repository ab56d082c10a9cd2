//! What can be wrong with a configuration.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::slot::written;
use super::url::NotABackend;
use crate::core::domain::credential::NotAKey;

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
    /// An address of a backend or of NetBox is not one.
    #[error("{origin}: {key} must be {allowed}: {source}")]
    BadUrl {
        /// Where the URL stands.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// What the key takes.
        allowed: String,
        /// Why it is not one.
        source: NotABackend,
    },
    /// A file with a key could not be read.
    #[error("{origin}: {key}: cannot read {path:?}: {source}")]
    UnreadableApiKey {
        /// What named the file.
        origin: Origin,
        /// The key that does.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file with a key does not hold one.
    #[error("{origin}: {key}: no key in {path:?}: {source}")]
    BadApiKey {
        /// What named the file.
        origin: Origin,
        /// The key that does.
        key: &'static str,
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
    /// A block of a backend does not say where it is.
    #[error("{origin}: this backend has no url: write url = \"http://HOST[:PORT]\" below [[backend]]")]
    NoUrl {
        /// Where the block begins.
        origin: Origin,
    },
    /// A block of a backend has a key that is one of the whole bridge.
    #[error("{origin}: {key} is one for the whole bridge, not for a backend: set it in its own table")]
    NotOfBackend {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: &'static str,
    },
    /// A variable or a flag is about one backend, and the file has several.
    #[error("{origin}: there are several [[backend]] blocks: set {key} in one of them")]
    WhichBackend {
        /// The variable or the flag.
        origin: Origin,
        /// The key that it sets.
        key: &'static str,
    },
    /// Two backends cannot be told apart.
    #[error("two backends have the same {key} ({value}): {way_out}")]
    SameBackend {
        /// What they share.
        key: &'static str,
        /// Its value.
        value: String,
        /// What to do.
        way_out: &'static str,
    },
    /// More than one backend has nothing that its clients could be told by.
    #[error(
        "the backends {first} and {second} have neither hosts nor listen: at most one may, and gets what no \
         other is named for"
    )]
    NoRoute {
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// A backend has two ways to be told from others, and they exclude each other.
    #[error("the backend {name} has both listen and hosts: whoever comes to its own address needs no name")]
    TwoRoutes {
        /// The backend.
        name: String,
    },
    /// There is more than one answer to which certificates of a backend are taken.
    #[error("the backend {name} has more than one of {keys}: keep one")]
    ManyTrusts {
        /// The backend.
        name: String,
        /// The keys that exclude each other.
        keys: &'static str,
    },
    /// A backend or a NetBox that is spoken to without TLS has a key that is about its certificate.
    #[error("the backend {name} has {key}, and its {url} is http: write https in it, or take {key} away")]
    NoTls {
        /// The backend.
        name: String,
        /// The key.
        key: &'static str,
        /// The key that says where it is.
        url: &'static str,
    },
    /// A certificate is of no use without its key, nor a key without its certificate.
    #[error("{key} is not set: {with} goes together with it, or not at all")]
    HalfTls {
        /// What is missing.
        key: &'static str,
        /// What is there.
        with: &'static str,
    },
    /// Two listeners want the same port.
    #[error("{} ({}) and {} ({}) must not share an address and port", .one.0, .one.1, .other.0, .other.1)]
    SharedAddress {
        /// The one, and its key.
        one: (&'static str, SocketAddr),
        /// The other.
        other: (&'static str, SocketAddr),
    },
    /// Whoever reaches the address of the admin listener could do everything.
    #[error(
        "admin_listen is {address}, which is not a loopback address: set admin_token_file to a file with a \
         token, such as `openssl rand -hex 32` makes"
    )]
    OpenAdmin {
        /// The address.
        address: SocketAddr,
    },
    /// Whoever reaches the address of the NetBox listener could read and write what the backend may.
    #[error(
        "the backend {name} has netbox_listen {address}, which is not a loopback address: set netbox_allow to the \
         addresses of the backend"
    )]
    OpenNetboxListener {
        /// The backend.
        name: String,
        /// The address.
        address: SocketAddr,
    },
    /// The backend cannot be given the address of its NetBox listener.
    #[error(
        "the backend {name} has netbox_listen {address}, which is no address that it can be given: write the one by \
         which it reaches the bridge"
    )]
    AnyNetboxListener {
        /// The backend.
        name: String,
        /// The address.
        address: SocketAddr,
    },
    /// The backend would speak TLS to a NetBox listener that does not.
    #[error(
        "the backend {name} has netbox_listen {address} and no netbox_certificate, and backends speak TLS to the port 443: \
         set netbox_certificate and netbox_key, or take another port"
    )]
    PlainNetboxListener {
        /// The backend.
        name: String,
        /// The address.
        address: SocketAddr,
    },
    /// A key is about the NetBox listener of a backend that has none.
    #[error("the backend {name} has {key} and no netbox_listen: set netbox_listen, or take {key} away")]
    NoNetboxListener {
        /// The backend.
        name: String,
        /// The key.
        key: &'static str,
    },
    /// The token of operators is too short.
    #[error(
        "admin_token_file: the token has fewer than {least} characters; `openssl rand -hex 32` makes one"
    )]
    ShortToken {
        /// The length of the shortest.
        least: usize,
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
            Self::BadValue { key, .. } | Self::BadUrl { key, .. } => Some(key),
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
