//! File, environment and flags, put together into one validated [`Config`].
//!
//! A flag counts more than a variable, a variable more than the file, the file more than the default.
//! What can be set, with its default, its bounds and its sentence, is one table: [`keys`]. Names that are
//! not in it are refused in the file and among the variables that begin with `PROXBOX_BRIDGE_`, except
//! for those that Kubernetes makes for a service of that name. Everything that is wrong is reported at
//! once.

mod backend;
mod between;
mod draft;
mod file;
mod flags;
mod jobs;
mod limits;
mod nearest;
mod problem;
mod slot;
mod sources;
mod table;
mod url;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use self::backend::{Backend, NotAWord, Unsupported};
pub use self::flags::Flags;
pub use self::jobs::{Jobs, OnDisconnect, WithoutLedger};
pub use self::limits::Limits;
pub use self::problem::{Error, Origin, Problem};
pub use self::sources::{CONFIG_VARIABLE, LOG_VARIABLE};
pub use self::table::{Key, keys};
pub use self::url::{BackendUrl, NotABackend};

use self::draft::Draft;
use self::slot::Refusal;
use self::sources::{Found, Setting};
use crate::core::credential::ApiKey;

/// The configuration of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The address on which clients are served.
    pub listen: SocketAddr,
    /// The address of the admin listener, which answers `/livez`, `/readyz`, `/metrics`, `POST /sync/…` and
    /// the jobs API.
    pub admin_listen: SocketAddr,
    /// The directory of the ledger, the durable record of jobs, made if it is missing; without it the record
    /// is kept in memory and lost when the bridge ends.
    pub data_dir: Option<PathBuf>,
    /// How the backend is reached and what its answers are taken for.
    pub backend: Backend,
    /// What becomes of jobs that nobody watches or that cannot be recorded, and what is kept of them.
    pub jobs: Jobs,
    /// Every limit.
    pub limits: Limits,
}

impl Config {
    /// Reads the configuration, and the files that it names, before anything is bound.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn load(flags: &Flags, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        Self::parse(flags, env, |path| std::fs::read(path))
    }

    /// [`Config::load`] with `read` in the place of the file system.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(
        flags: &Flags,
        env: impl IntoIterator<Item = (String, String)>,
        read: impl Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Self, Error> {
        let env: Vec<(String, String)> = env.into_iter().collect();
        let mut found = in_file(flags, &env, &read);
        found.extend(sources::environment(&env));
        found.extend(sources::flags(flags));

        let mut draft = Draft::default();
        let mut problems = Vec::new();
        let mut key_origin = None;
        for found in found {
            match found.and_then(|setting| apply(setting, &mut draft)) {
                Ok(setting) if setting.key.name == "backend.api_key_file" => {
                    key_origin = Some(setting.origin);
                }
                Ok(_) => {}
                Err(problem) => problems.push(problem),
            }
        }
        let key_file = key_origin.zip(draft.api_key_file.take());
        let api_key = key_file.map(|(origin, path)| api_key(origin, path, &read)).transpose().unwrap_or_else(
            |problem| {
                problems.push(problem);
                None
            },
        );
        problems.extend(between::problems(&draft, &problems));
        match draft.url.take() {
            Some(url) if problems.is_empty() => Ok(Self::of(draft, url, api_key)),
            _ => Err(Error::Invalid(problems)),
        }
    }

    fn of(draft: Draft, url: BackendUrl, api_key: Option<ApiKey>) -> Self {
        let Draft { listen, admin_listen, data_dir, jobs, limits, .. } = draft;
        let Draft { channel, unsupported, object_failures, concurrency, queue, .. } = draft;
        let backend = Backend { url, channel, unsupported, object_failures, api_key, concurrency, queue };
        Self { listen, admin_listen, data_dir, backend, jobs, limits }
    }
}

/// The variables of the process, for [`Config::load`]. What is not Unicode is replaced, where
/// [`std::env::vars`] panics: the variables of others are not the bridge's business.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

type Read<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

fn in_file(flags: &Flags, env: &[(String, String)], read: Read<'_>) -> Found {
    let variable = || env.iter().find(|(name, _)| name == CONFIG_VARIABLE);
    let (origin, path) = match (&flags.config, variable()) {
        (Some(path), _) => (Origin::Flag("--config"), PathBuf::from(path)),
        (None, Some((name, path))) => (Origin::Variable(name.clone()), PathBuf::from(path)),
        (None, None) => return Found::new(),
    };
    let text = read(&path).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    });
    match text {
        Ok(text) => file::read(&path, &text),
        Err(source) => vec![Err(Problem::Unreadable { origin, path, source })],
    }
}

fn apply(setting: Setting, draft: &mut Draft) -> Result<Setting, Problem> {
    let Err(refusal) = setting.key.slot.set(draft, &setting.text) else { return Ok(setting) };
    let Setting { key, origin, shown: value, .. } = setting;
    let allowed = key.allowed();
    Err(match refusal {
        Refusal::Url(source) => Problem::BadUrl { origin, allowed, source },
        Refusal::NotAllowed => Problem::BadValue { origin, key: key.name, allowed, value },
    })
}

/// Reads the key of the backend from the file at `path`, which was named at `origin`.
fn api_key(origin: Origin, path: PathBuf, read: Read<'_>) -> Result<ApiKey, Problem> {
    let bytes = match read(&path) {
        Ok(bytes) => bytes,
        Err(source) => return Err(Problem::UnreadableApiKey { origin, path, source }),
    };
    // What is not UTF-8 is not ASCII either, and is refused as such.
    let text = String::from_utf8_lossy(&bytes);
    text.parse().map_err(|source| Problem::BadApiKey { origin, path, source })
}
