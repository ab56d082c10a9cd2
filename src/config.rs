//! The configuration: file, environment and flags, validated as one [`Config`].
//!
//! A flag takes precedence over a variable, a variable over the file, and the file over the default. Each key is one
//! entry in a table of this module and its children, with default, range and description; [`keys()`] lists them all,
//! and `deploy/configuration.md` is generated from them. Names that are not listed are refused in the file and among the
//! variables that begin with `PROXBOX_BRIDGE_`, except those that Kubernetes sets for a service of that name. All
//! errors are reported at once, each with file and line.

mod backend;
mod base_path;
mod builder;
mod effective;
mod env;
mod file;
mod flags;
mod jobs;
mod key;
mod limits;
mod netbox;
mod notify;
mod problem;
mod schema;
mod shims;
mod token;
mod validate;
mod value;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

pub use backend::BackendConfig;
pub use base_path::BasePath;
pub use effective::{EffectiveConfig, SettingChange, Settings};
pub use env::{CONFIG_VARIABLE, LOG_VARIABLE, TOKEN_VARIABLE};
pub use flags::Flags;
pub use jobs::{JobRecording, Jobs, OnDisconnect, WithoutLedger};
pub use key::ConfigKey;
pub use limits::Limits;
pub use netbox::NetboxListener;
pub use notify::NotifyConfig;
pub use problem::{ConfigError, ConfigProblem, ValueOrigin};
pub use schema::keys;
pub use shims::ShimsConfig;
pub use token::{AdminToken, first_token};
pub use value::written;

use crate::core::domain::credential::ApiKey;
use crate::core::http::url::{BackendUrl, HttpUrl};
use crate::core::text::log_format::LogFormat;
use crate::tls::ServerFiles;
use builder::Builder;
use key::keys;
use schema::Values;

keys! {
    struct BridgeKeys in "" {
        /// Address that serves clients.
        pub listen: SocketAddr = loopback(8800), flag "--listen";
        /// Address of the admin listener, with the live page, the jobs API, `/metrics`, `/livez` and `/readyz`. One
        /// that is not a loopback address requires `admin_token_file`.
        pub admin_listen: SocketAddr = loopback(8801), flag "--admin-listen";
        /// File with the tokens for operators, one on each line, of 16 characters or more; `openssl rand -hex 32` makes
        /// one. A line `NAME:TOKEN` names the token in the audit log and in the records of jobs. Everything on the admin
        /// listener requires a token, except `/livez` and `/readyz`.
        admin_token_file: Option<PathBuf> = None, flag "--admin-token-file";
        /// File with tokens that allow reading alone, such as that of Prometheus, in the same format.
        admin_read_token_file: Option<PathBuf> = None;
        /// Allows reading without a token for clients that connect to a loopback address of the admin listener by such
        /// an address or as localhost. Everyone who reaches it through a proxy, a tunnel or a container port can then
        /// read.
        pub admin_open_reads: bool = false;
        /// Allows `/metrics` without a token on any address.
        pub admin_open_metrics: bool = false;
        /// Path under which a proxy serves the admin listener, such as `/proxbox-bridge/`: the base of redirects and
        /// the path of the session cookie. The proxy may remove it from requests or leave it there.
        pub admin_base_path: BasePath = BasePath::default();
        /// Directory of the ledger, the durable record of jobs, created if it is missing. Without it the record is kept
        /// in memory and lost when the bridge ends.
        pub data_dir: Option<PathBuf> = None, flag "--data-dir", needs restart;
        /// Format of the log: `text`, `json` (one flat object a line) or `logfmt`. By default, text on a terminal, and
        /// JSON otherwise.
        log_format: Option<LogFormat> = None, needs restart;
        /// Proxies in front of the bridge whose `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host` are
        /// trusted. Those of other clients are replaced.
        pub trusted_proxies: Vec<IpNet> = Vec::new();
        /// Origins whose pages may start syncs, such as that of NetBox. If it is set, and on a backend with
        /// `backend.api_key_file` always, sync streams and `/ws` refuse the pages of all other sites, and browsers that
        /// reach the bridge by a name that contains a dot and is neither in this list nor in `backend.hosts`.
        pub allowed_origins: Vec<BackendUrl> = Vec::new();
        /// URL at which operators reach the page of the admin listener, for the links in notifications.
        pub admin_url: Option<HttpUrl> = None;
    }

    /// The configuration of a bridge.
    pub struct Config from values.bridge:
        fn new(
            values: Values, admin_tokens: Vec<AdminToken>, shim_key: Option<ApiKey>, backends: Vec<BackendConfig>,
            notify: Vec<NotifyConfig>
        )
    {
        /// The keys whose change needs a restart, with their values.
        needing_restart: Vec<(&'static str, String)> = values.needing_restart();
        /// The values of all keys, without secrets.
        settings: Settings = Settings::default();
        /// The tokens of the admin listener. There is one if that has another address than a loopback address.
        admin_tokens: Vec<AdminToken> = admin_tokens;
        /// The files for TLS with clients, if it is used.
        tls: Option<ServerFiles> = values.tls.files();
        /// The backends, at least one.
        backends: Vec<BackendConfig> = backends;
        /// The targets of notifications.
        notify: Vec<NotifyConfig> = notify;
        /// What the bridge does where a backend lacks something.
        shims: ShimsConfig = ShimsConfig::new(&values.shims, shim_key);
        /// Jobs without clients, jobs that cannot be recorded, and what is kept of a job.
        jobs: Jobs = values.jobs;
        /// The limits.
        limits: Limits = values.limits;
    }
}

keys! {
    /// The table `[tls]`.
    pub(super) struct TlsKeys in "tls." {
        /// File with the certificate of the bridge, and its intermediates, as PEM: clients are served over TLS. It is
        /// read again when it changes.
        certificate: Option<PathBuf> = None;
        /// File with the private key of that certificate, as PEM.
        key: Option<PathBuf> = None;
        /// File with the CA certificates that client certificates are verified against, as PEM: clients must present
        /// one.
        client_ca: Option<PathBuf> = None;
    }
}

impl TlsKeys {
    fn files(self) -> Option<ServerFiles> {
        let Self { certificate, key, client_ca } = self;
        let (certificate, key) = certificate.zip(key)?;
        Some(ServerFiles { certificate, key, client_ca })
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Config {
    /// Reads the configuration, and the files with keys that it names.
    ///
    /// # Errors
    /// All problems, at once.
    pub fn load(flags: &Flags, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        Self::parse(flags, env, |path| std::fs::read(path))
    }

    /// [`Config::load`] with `read` instead of the file system.
    ///
    /// # Errors
    /// All problems, at once.
    pub fn parse(
        flags: &Flags,
        env: impl IntoIterator<Item = (String, String)>,
        read: impl Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Self, ConfigError> {
        let mut builder = Builder::new(flags, env, &read);
        let settings = EffectiveConfig::new(&builder).settings();
        let shim_key = builder.shim_key(&read);
        let admin_tokens = builder.admin_tokens(&read);
        let (backends, keys): (Vec<Values>, Vec<_>) = builder.backends(&read).into_iter().unzip();
        let notify = builder.notify(&read);
        let Builder { common, blocks, mut problems, .. } = builder;
        problems.extend(validate::validate(&common, &backends, &blocks, &problems));
        let named =
            backends.iter().filter_map(|values| Some((validate::name(values), values.backend.url.clone()?)));
        let notify = notify::targets(notify, &named.collect::<Vec<_>>(), &mut problems);
        if !problems.is_empty() {
            return Err(ConfigError(problems));
        }
        let backends = backends.into_iter().zip(keys).filter_map(|(values, key)| {
            let Values { backend, netbox, limits, .. } = values;
            Some(BackendConfig::new(backend.url.clone()?, backend, netbox, limits, key))
        });
        Ok(Self { settings, ..Self::new(common, admin_tokens, shim_key, backends.collect(), notify) })
    }

    /// The format of the log alone, for a log that starts before the whole configuration is read. A problem is reported
    /// with that.
    pub fn log_format(flags: &Flags, env: impl IntoIterator<Item = (String, String)>) -> Option<LogFormat> {
        Builder::new(flags, env, &|path| std::fs::read(path)).common.bridge.log_format
    }

    /// The address of the admin listener and the file with its tokens alone, for a command that needs no backend and may
    /// not read the files with secrets.
    ///
    /// # Errors
    /// All problems of single values.
    pub fn admin_listener(
        flags: &Flags,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(SocketAddr, Option<PathBuf>), ConfigError> {
        let Builder { common, problems, .. } = Builder::new(flags, env, &|path| std::fs::read(path));
        let BridgeKeys { admin_listen, admin_token_file, .. } = common.bridge;
        if problems.is_empty() { Ok((admin_listen, admin_token_file)) } else { Err(ConfigError(problems)) }
    }

    /// The configuration without backends, tokens and targets of notifications, for a command that reads the ledger where
    /// no backend is configured. It reads no file with a secret.
    ///
    /// # Errors
    /// All problems of single values.
    pub fn without_backends(
        flags: &Flags,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let Builder { common, problems, .. } = Builder::new(flags, env, &|path| std::fs::read(path));
        if !problems.is_empty() {
            return Err(ConfigError(problems));
        }
        Ok(Self::new(common, Vec::new(), None, Vec::new(), Vec::new()))
    }

    /// The name of the backend with this URL.
    pub fn backend_name(&self, url: &BackendUrl) -> Option<&str> {
        self.backends.iter().find(|backend| backend.url == *url).map(|backend| backend.name.as_str())
    }

    /// The first key whose value in `newer` needs a restart, with its value here and there.
    pub fn restart_needed<'a>(&'a self, newer: &'a Self) -> Option<(&'static str, &'a str, &'a str)> {
        let pairs = self.needing_restart.iter().zip(&newer.needing_restart);
        pairs
            .map(|((key, before), (_, after))| (*key, before.as_str(), after.as_str()))
            .find(|of| of.1 != of.2)
    }

    /// The values that differ in `newer`, without secrets. The content of files is not compared.
    pub fn changes(&self, newer: &Self) -> Vec<SettingChange> {
        self.settings.changes(&newer.settings)
    }

    /// The keys and tokens, which must not be stored or logged.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let of_backends = self.backends.iter().map(|backend| &backend.api_key);
        let keys = of_backends.chain([&self.shims.api_key]).flatten();
        let tokens = self.admin_tokens.iter().map(|token| &token.secret);
        let of_targets = self.notify.iter().flat_map(NotifyConfig::secrets);
        keys.chain(tokens).map(ApiKey::expose).chain(of_targets)
    }
}

/// The variables of the process, for [`Config::load`]. What is not Unicode is replaced, where [`std::env::vars`]
/// panics: other programs' variables are no concern of the bridge.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}
