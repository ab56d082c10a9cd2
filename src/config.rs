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
mod netbox;
mod problem;
mod shims;
mod slot;
mod sources;
mod table;
mod url;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use backend::Backend;
pub use flags::Flags;
pub use jobs::{Jobs, OnDisconnect, WithoutLedger};
pub use limits::Limits;
pub use netbox::NetboxListener;
pub use problem::{Error, Origin, Problem};
pub use shims::Shims;
pub use sources::{CONFIG_VARIABLE, LOG_VARIABLE};
pub use table::{Key, keys};
pub use url::{BackendUrl, NotABackend};

use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::core::domain::credential::ApiKey;
use crate::tls::{ServerFiles, Trust};
use draft::Draft;
use file::File;
use slot::Refusal;
use sources::Setting;

/// The configuration of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The address on which clients are served.
    pub listen: SocketAddr,
    /// The address of the admin listener, which has the live page, the jobs API, `/metrics`, `/livez` and
    /// `/readyz`.
    pub admin_listen: SocketAddr,
    /// What operators prove themselves with. There is one where that address is not a loopback address.
    pub admin_token: Option<ApiKey>,
    /// Whether reading needs no token on a loopback address.
    pub admin_open_reads: bool,
    /// Whether `/metrics` needs no token on any address.
    pub admin_open_metrics: bool,
    /// The directory of the ledger, the durable record of jobs, made if it is missing; without it the record
    /// is kept in memory and lost when the bridge ends.
    pub data_dir: Option<PathBuf>,
    /// The proxies in front of the bridge whose word on their clients is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The files with which clients are served over TLS, if they are.
    pub tls: Option<ServerFiles>,
    /// The backends, at least one: how each is reached and what its answers are taken for.
    pub backends: Vec<Backend>,
    /// What the bridge makes up for where a backend lacks it.
    pub shims: Shims,
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
        let Settings { mut common, of_blocks, blocks, files, mut problems } =
            Settings::read(flags, env, &read);
        let [shim_key, token] = files;
        let shim_key = shim_key.zip(common.shim_key_file.take());
        common.shims.api_key = in_key_file(SHIM_KEY, shim_key, &read, &mut problems);
        let token = token.zip(common.admin_token_file.clone());
        common.admin_token = in_key_file(ADMIN_TOKEN, token, &read, &mut problems);
        let drafts: Vec<Draft> = of_blocks
            .into_iter()
            .map(|settings| with_block(&common, settings, &read, &mut problems))
            .collect();
        problems.extend(between::problems(&common, &drafts, &blocks, &problems));
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        Ok(Self::of(common, drafts))
    }

    /// The address of the admin listener alone, for somebody who needs no backend, and may not read the files with
    /// secrets.
    ///
    /// # Errors
    /// Everything that is wrong with the settings, each by itself.
    pub fn admin_listen(
        flags: &Flags,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<SocketAddr, Error> {
        let Settings { common, problems, .. } = Settings::read(flags, env, &|path| std::fs::read(path));
        if problems.is_empty() { Ok(common.admin_listen) } else { Err(Error::Invalid(problems)) }
    }

    /// The keys and tokens in it, which must not be stored or logged.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let of_backends = self.backends.iter().map(|backend| &backend.api_key);
        let keys = of_backends.chain([&self.admin_token, &self.shims.api_key]);
        keys.flatten().map(ApiKey::expose)
    }

    fn of(common: Draft, drafts: Vec<Draft>) -> Self {
        let backends = drafts.into_iter().filter_map(backend).collect();
        let Draft { listen, admin_listen, admin_token, admin_open_reads, admin_open_metrics, .. } = common;
        let Draft { data_dir, trusted_proxies, shims, jobs, limits, .. } = common;
        let tls = common.certificate.zip(common.key);
        let client_ca = common.client_ca;
        let tls = tls.map(|(certificate, key)| ServerFiles { certificate, key, client_ca });
        Self {
            listen,
            admin_listen,
            admin_token,
            admin_open_reads,
            admin_open_metrics,
            data_dir,
            trusted_proxies,
            tls,
            backends,
            shims,
            jobs,
            limits,
        }
    }
}

/// What file, environment and flags say, each setting checked by itself.
struct Settings {
    common: Draft,
    /// The settings of each block of a backend; there is at least one.
    of_blocks: Vec<Vec<Setting>>,
    /// Where each block begins.
    blocks: Vec<Origin>,
    /// What named the files with the key of the shims and with the token of operators.
    files: [Option<Origin>; 2],
    problems: Vec<Problem>,
}

impl Settings {
    fn read(flags: &Flags, env: impl IntoIterator<Item = (String, String)>, read: Read<'_>) -> Self {
        let env: Vec<(String, String)> = env.into_iter().collect();
        let File { mut found, blocks } = in_file(flags, &env, read);
        let from_outside = sources::environment(&env).into_iter().chain(sources::flags(flags));
        found.extend(from_outside.map(|found| found.and_then(|setting| of_block(setting, &blocks))));

        let mut common = Draft::default();
        let mut problems = Vec::new();
        let [mut shim_key, mut token] = [None, None];
        let mut of_blocks: Vec<Vec<Setting>> = Vec::new();
        of_blocks.resize_with(blocks.len().max(1), Vec::new);
        for found in found {
            let applied = found.and_then(|setting| match setting.block {
                // What is not allowed is told in the order of the sources, whatever it is about.
                Some(_) => apply(setting, &mut Draft::default()),
                None => apply(setting, &mut common),
            });
            match applied {
                Ok(setting) if setting.key.name == SHIM_KEY => shim_key = Some(setting.origin),
                Ok(setting) if setting.key.name == ADMIN_TOKEN => token = Some(setting.origin),
                Ok(setting) => {
                    if let Some(settings) = setting.block.and_then(|block| of_blocks.get_mut(block)) {
                        settings.push(setting);
                    }
                }
                Err(problem) => problems.push(problem),
            }
        }
        Self { common, of_blocks, blocks, files: [shim_key, token], problems }
    }
}

/// The backend of `draft`. One without an address was found to be a problem.
fn backend(draft: Draft) -> Option<Backend> {
    let url = draft.url?;
    let trust = match (draft.ca_file, draft.pin, draft.insecure) {
        (Some(file), ..) => Trust::Authority(file),
        (_, Some(pin), _) => Trust::Pinned(pin),
        (_, _, true) => Trust::Insecure,
        _ => Trust::System,
    };
    Some(Backend {
        endpoint_ids: draft.endpoint_ids,
        name: draft.name.unwrap_or_else(|| url.authority()),
        url,
        listen: draft.own_listen,
        hosts: draft.hosts,
        trust,
        client_certificate: draft.backend_certificate.zip(draft.backend_key),
        channel: draft.channel,
        unsupported: draft.unsupported,
        object_failures: draft.object_failures,
        api_key: draft.api_key,
        concurrency: draft.concurrency,
        queue: draft.queue,
        netbox: NetboxListener::new(draft.netbox),
        limits: draft.limits,
    })
}

/// What `common` and the settings of one block say together.
fn with_block(common: &Draft, settings: Vec<Setting>, read: Read<'_>, problems: &mut Vec<Problem>) -> Draft {
    let mut draft = common.clone();
    let mut key_origin = None;
    for setting in settings {
        // Each of them was taken by a draft before.
        if let Ok(setting) = apply(setting, &mut draft)
            && setting.key.name == BACKEND_KEY
        {
            key_origin = Some(setting.origin);
        }
    }
    let file = key_origin.zip(draft.api_key_file.take());
    draft.api_key = in_key_file(BACKEND_KEY, file, read, problems);
    draft
}

/// The keys that name a file with a secret.
const BACKEND_KEY: &str = "backend.api_key_file";
const SHIM_KEY: &str = "shims.api_key_file";
const ADMIN_TOKEN: &str = "admin_token_file";

/// The API key in `file`, if `key` names one.
fn in_key_file(
    key: &'static str,
    file: Option<(Origin, PathBuf)>,
    read: Read<'_>,
    problems: &mut Vec<Problem>,
) -> Option<ApiKey> {
    let (origin, path) = file?;
    api_key(key, origin, path, read).map_err(|problem| problems.push(problem)).ok()
}

/// `setting`, which is of a variable or a flag, with the block that it is about.
fn of_block(setting: Setting, blocks: &[Origin]) -> Result<Setting, Problem> {
    if setting.key.place().0 != "backend" {
        return Ok(setting);
    }
    if blocks.len() > 1 {
        return Err(Problem::WhichBackend { origin: setting.origin, key: setting.key.name });
    }
    Ok(Setting { block: Some(0), ..setting })
}

/// The variables of the process, for [`Config::load`]. What is not Unicode is replaced, where
/// [`std::env::vars`] panics: the variables of others are not the bridge's business.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

type Read<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

fn in_file(flags: &Flags, env: &[(String, String)], read: Read<'_>) -> File {
    let variable = || env.iter().find(|(name, _)| name == CONFIG_VARIABLE);
    let (origin, path) = match (&flags.config, variable()) {
        (Some(path), _) => (Origin::Flag("--config"), PathBuf::from(path)),
        (None, Some((name, path))) => (Origin::Variable(name.clone()), PathBuf::from(path)),
        (None, None) => return File::default(),
    };
    let text = read(&path).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    });
    match text {
        Ok(text) => file::read(&path, &text),
        Err(source) => {
            File { found: vec![Err(Problem::Unreadable { origin, path, source })], blocks: Vec::new() }
        }
    }
}

fn apply(setting: Setting, draft: &mut Draft) -> Result<Setting, Problem> {
    let Err(refusal) = setting.key.slot.set(draft, &setting.text) else { return Ok(setting) };
    let Setting { key, origin, shown: value, .. } = setting;
    let allowed = key.allowed();
    Err(match refusal {
        Refusal::Url(source) => Problem::BadUrl { origin, key: key.name, allowed, source },
        Refusal::NotAllowed => Problem::BadValue { origin, key: key.name, allowed, value },
    })
}

/// Reads an API key from the file at `path`, which `key` was set to at `origin`.
fn api_key(key: &'static str, origin: Origin, path: PathBuf, read: Read<'_>) -> Result<ApiKey, Problem> {
    let bytes = match read(&path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(source) => return Err(Problem::UnreadableApiKey { origin, key, path, source }),
    };
    // What is not UTF-8 is not ASCII either, and is refused as such.
    let text = String::from_utf8_lossy(&bytes);
    text.parse().map_err(|source| Problem::BadApiKey { origin, key, path, source })
}
