//! The recordings of one release, and the selection of one for each request.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use http::Method;

use super::socket::{RecordedExchange, ReplaySocket};
use crate::core::domain::release::Release;
use crate::recording::{self, Protocol, RecordedKey, Recording};

/// The folders whose recordings are served by default.
const DEFAULT_FOLDERS: [&str; 5] = ["", "json", "meta", "sse", "ws"];

/// The release in recordings that began before it was detected. They belong to those of any release.
const UNKNOWN: &str = "unknown";

/// Why a library cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The folder, or a file in it, could not be read.
    #[error("cannot read {}; name the folder of one version, such as fixtures/recordings/0.0.11.post2", path.display())]
    Read {
        /// The folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file in the folder is not a valid recording.
    #[error(transparent)]
    Recording(#[from] recording::RecordingError),
    /// The folder has no recordings in the expected places.
    #[error(
        "no recordings in {}; name the folder of one version, with files NAME.ndjson in its folders ws, sse, json or meta",
        path.display()
    )]
    Nothing {
        /// The folder.
        path: PathBuf,
    },
    /// There is no recording with a selected name.
    #[error("no recording has the name {name}; available: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names of the recordings that are not served by default.
        known: String,
    },
    /// A recording has no request.
    #[error("the recording {0} has no request")]
    NoRequest(String),
    /// The recordings are of more than one release.
    #[error("the recordings are of several backends, {one} and {other}; name the folder of one version")]
    Backends {
        /// One of the releases.
        one: String,
        /// Another one.
        other: String,
    },
}

/// The recordings of one release of the backend.
#[derive(Clone, Debug)]
pub struct Library {
    version: String,
    release: Option<Release>,
    /// The selected ones first, then the default ones by name. The first match is served.
    exchanges: Vec<RecordedExchange>,
    sockets: BTreeMap<String, ReplaySocket>,
}

impl Library {
    /// Reads the recordings in the folder of one version.
    ///
    /// Those in `ws`, `sse`, `json`, `meta` and in the folder itself are served by default. Others are served if `uses`
    /// names them, such as `fail/ws-proxmox-down`, in place of the default one.
    ///
    /// # Errors
    /// The folder is missing or has no recordings, a file is not a valid recording, or no recording has a name in
    /// `uses`.
    pub fn load(dir: impl AsRef<Path>, uses: &[String]) -> Result<Self, LibraryError> {
        let dir = dir.as_ref();
        let names = names(dir)?;
        let is_usual =
            |name: &str| DEFAULT_FOLDERS.contains(&name.rsplit_once('/').map_or("", |(folder, _)| folder));
        let read = |name: &str| Recording::read(dir.join(format!("{name}.ndjson")));

        let mut recordings = Vec::new();
        for name in uses {
            let name = name.trim_end_matches(".ndjson");
            if !names.iter().any(|known| known == name) {
                let known: Vec<_> = names.iter().filter(|name| !is_usual(name)).map(String::as_str).collect();
                return Err(LibraryError::Unknown { name: name.to_owned(), known: known.join(", ") });
            }
            recordings.push((name.to_owned(), true, read(name)?));
        }
        for name in names.iter().filter(|name| is_usual(name)) {
            if !recordings.iter().any(|(used, _, _)| used == name) {
                recordings.push((name.clone(), false, read(name)?));
            }
        }
        if recordings.is_empty() {
            return Err(LibraryError::Nothing { path: dir.to_owned() });
        }
        let mut versions = recordings.iter().map(|(_, _, it)| it.header.backend.clone());
        let mut known = versions.by_ref().filter(|version| version != UNKNOWN);
        let version = known.next().unwrap_or_else(|| UNKNOWN.to_owned());
        if let Some(other) = known.find(|other| *other != version) {
            return Err(LibraryError::Backends { one: version, other });
        }
        Self::build(&version, recordings)
    }

    /// A library of these recordings. All are served; earlier ones take precedence.
    ///
    /// # Errors
    /// A recording has no request.
    pub fn from_recordings(version: &str, recordings: Vec<Recording>) -> Result<Self, LibraryError> {
        let named = recordings.into_iter().enumerate();
        Self::build(
            version,
            named.map(|(index, recording)| (format!("#{index}"), false, recording)).collect(),
        )
    }

    fn build(version: &str, recordings: Vec<(String, bool, Recording)>) -> Result<Self, LibraryError> {
        let mut exchanges = Vec::new();
        for (name, chosen, recording) in recordings {
            let Some((method, target)) = recording.request() else {
                return Err(LibraryError::NoRequest(name));
            };
            let path = target.split_once('?').map_or(target, |(path, _)| path).to_owned();
            exchanges.push(RecordedExchange { name, chosen, method: method.to_owned(), path, recording });
        }
        // A client that left early would stall later ones.
        exchanges.sort_by_key(|it| !it.chosen && it.is_unfinished());
        let release = version.parse().ok();
        let mut sockets = BTreeMap::new();
        for exchange in exchanges.iter().filter(|it| it.recording.header.protocol == Protocol::Websocket) {
            sockets
                .entry(exchange.path.clone())
                .or_insert_with(|| ReplaySocket::new(&exchange.path, release, &exchanges));
        }
        Ok(Self { version: version.to_owned(), release, exchanges, sockets })
    }

    /// The release of the recordings.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// One line for each request or command that is served, with the name of its recording.
    pub fn served(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for exchange in self.plain() {
            let what = format!("{} {}", exchange.method, exchange.path);
            if !lines.iter().any(|line| line.split(" <- ").next() == Some(&what)) {
                lines.push(format!("{what} <- {}", exchange.name));
            }
        }
        for (path, socket) in &self.sockets {
            match socket.handshake.status() {
                Some(101) => lines.push(format!("WebSocket {path}")),
                Some(status) => lines.push(format!("WebSocket {path} refused with {status}")),
                None => lines.push(format!("WebSocket {path} never answered")),
            }
            let command = |(command, name): (&str, &str)| format!("WebSocket {path} {command:?} <- {name}");
            lines.extend(socket.commands.served().map(command));
        }
        lines
    }

    /// Whether the backend requires a key: from 0.0.7 on, or if a recording has a refusal without one.
    pub(super) fn demands_keys(&self) -> bool {
        let young = self.release.is_some_and(|release| !release.is_up_to(Release::new(0, 0, 6)));
        let refused = |it: &RecordedExchange| {
            it.recording.header.key == RecordedKey::None && it.recording.status() == Some(401)
        };
        young || self.plain().any(refused)
    }

    /// Whether a WebSocket gets the reason why its key is refused, as before 0.0.23.post1.
    pub(super) fn explains_refusals(&self) -> bool {
        self.release.is_none_or(|release| release < Release::new(0, 0, 23).post(1))
    }

    /// The recording that answers a request for `target` with `key`, or with [`RecordedKey::None`]. One with the same
    /// query takes precedence.
    pub(super) fn exchange(&self, method: &Method, target: &str, key: RecordedKey) -> Option<&Recording> {
        let path = target.split('?').next().unwrap_or(target);
        let here = |it: &&RecordedExchange| it.method == method.as_str() && it.path == path;
        let fits = |it: &&RecordedExchange| match it.recording.header.key {
            RecordedKey::Wrong => it.chosen && key != RecordedKey::None,
            recorded => recorded == key,
        };
        // A recording without a key also serves requests with one, and the reverse, unless the answer is about the
        // key.
        let serves = |it: &&RecordedExchange| {
            it.recording.header.key != RecordedKey::Wrong && it.recording.status() != Some(401)
        };
        // Nothing but refusals of this key was recorded.
        let refuses = |it: &&RecordedExchange| {
            key != RecordedKey::None && it.recording.header.key == RecordedKey::Wrong
        };
        let find = |wanted: &dyn Fn(&&RecordedExchange) -> bool, chosen: bool| {
            let found = || self.plain().filter(|it| it.chosen == chosen && here(it) && wanted(it));
            let is_same = |it: &&RecordedExchange| it.recording.request().is_some_and(|(_, it)| it == target);
            found().find(is_same).or_else(|| found().next())
        };
        let found = find(&fits, true)
            .or_else(|| find(&serves, true))
            .or_else(|| find(&fits, false))
            .or_else(|| find(&serves, false))
            .or_else(|| find(&refuses, false))?;
        Some(&found.recording)
    }

    /// The recorded refusal of a request with `key`, which is wrong or [`RecordedKey::None`].
    pub(super) fn refusal(&self, method: &Method, path: &str, key: RecordedKey) -> Option<&Recording> {
        let wanted = if key == RecordedKey::None { RecordedKey::None } else { RecordedKey::Wrong };
        let found = self.plain().find(|it| {
            it.method == method.as_str()
                && it.path == path
                && it.recording.header.key == wanted
                && (it.chosen || wanted == RecordedKey::None)
        })?;
        Some(&found.recording)
    }

    /// Whether `GET` has a recorded answer other than 404.
    pub(super) fn has_path(&self, path: &str) -> bool {
        self.plain().any(|it| it.method == "GET" && it.path == path && it.recording.status() != Some(404))
    }

    /// The WebSocket of a path.
    pub(super) fn socket(&self, path: &str) -> Option<&ReplaySocket> {
        self.sockets.get(path)
    }

    fn plain(&self) -> impl Iterator<Item = &RecordedExchange> {
        self.exchanges.iter().filter(|it| it.recording.header.protocol == Protocol::Http)
    }
}

/// The names of all recordings in a folder and the folders in it, sorted.
fn names(dir: &Path) -> Result<Vec<String>, LibraryError> {
    let mut names = Vec::new();
    for path in entries(dir)? {
        if path.is_dir() {
            let folder = file_name(&path);
            names.extend(
                entries(&path)?.iter().filter_map(|path| name(path)).map(|name| format!("{folder}/{name}")),
            );
        } else {
            names.extend(name(&path));
        }
    }
    names.sort();
    Ok(names)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, LibraryError> {
    std::fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(|source| LibraryError::Read { path: dir.to_owned(), source })
}

fn name(path: &Path) -> Option<String> {
    file_name(path).strip_suffix(".ndjson").map(str::to_owned)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
