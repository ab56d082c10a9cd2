//! Cross-field validation.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::jobs::JobRecording;
use super::key::{ConfigKey, Table};
use super::netbox::NetboxKeys;
use super::problem::{ConfigProblem, ValueOrigin};
use super::schema::Values;
use super::value::written;
use crate::core::compat::netbox::TLS_PORT;
use crate::core::http::url::BackendUrl;

/// Validates the values of the whole bridge and those of each backend, which begin at `blocks`, against each other.
/// Nothing is reported that follows from the `known` problems.
pub(super) fn validate(
    common: &Values,
    backends: &[Values],
    blocks: &[ValueOrigin],
    known: &[ConfigProblem],
) -> Vec<ConfigProblem> {
    let mut validator = Validator { common, known, found: Vec::new() };
    validator.urls(backends, blocks);
    validator.addresses(backends);
    validator.bridge();
    for backend in backends {
        validator.backend(backend);
        validator.netbox(backend);
    }
    if !validator.refused(&["backend.hosts", "backend.listen", "backend.name"]) {
        validator.routes(backends);
    }
    validator.found
}

struct Validator<'a> {
    common: &'a Values,
    known: &'a [ConfigProblem],
    found: Vec<ConfigProblem>,
}

impl Validator<'_> {
    fn conflict(&mut self, message: String) {
        self.found.push(ConfigProblem::Conflict(message));
    }

    /// Whether the value of one of `keys` was refused.
    fn refused(&self, keys: &[&str]) -> bool {
        self.known.iter().filter_map(ConfigProblem::refused_key).any(|key| keys.contains(&key))
    }

    /// Whether one of `keys` may be set in a file that could not be read, or was refused.
    fn may_be_set(&self, keys: &[&str]) -> bool {
        let is_unread = |problem: &ConfigProblem| matches!(problem, ConfigProblem::Unreadable { .. });
        self.known.iter().any(is_unread) || self.refused(keys)
    }

    /// Every backend has a URL.
    fn urls(&mut self, backends: &[Values], blocks: &[ValueOrigin]) {
        if self.may_be_set(&["backend.url", "backend"]) {
            return;
        }
        for (index, _) in backends.iter().enumerate().filter(|(_, values)| values.backend.url.is_none()) {
            let problem = match blocks.get(index) {
                Some(origin) if blocks.len() > 1 => ConfigProblem::BadSetting {
                    origin: origin.clone(),
                    message: "this backend has no url: write url = \"http://HOST[:PORT]\" below [[backend]]".to_owned(),
                },
                _ => ConfigProblem::Conflict(
                    "backend.url is not set: give --backend http://HOST[:PORT], set PROXBOX_BRIDGE_BACKEND_URL, or \
                     write url in the table [backend] of the configuration file"
                        .to_owned(),
                ),
            };
            self.found.push(problem);
        }
    }

    /// No two listeners share an address: the system would refuse to bind the second one.
    fn addresses(&mut self, backends: &[Values]) {
        if self.refused(&["listen", "admin_listen", "backend.listen", "backend.netbox_listen"]) {
            return;
        }
        let bridge = &self.common.bridge;
        let mut all = vec![("listen", bridge.listen), ("admin_listen", bridge.admin_listen)];
        for Values { backend, netbox, .. } in backends {
            all.extend(backend.listen.map(|address| ("backend.listen", address)));
            all.extend(netbox.listen.map(|address| ("backend.netbox_listen", address)));
        }
        for (index, (one_key, one)) in all.iter().enumerate() {
            // What a listener is for is found by its configured address, port 0 too.
            let is_same = |key: &str, other: SocketAddr| {
                *one_key == "backend.netbox_listen" && key == *one_key && *one == other
            };
            let shared = |(key, other): &&(&str, SocketAddr)| overlap(*one, *other) || is_same(key, *other);
            for (other_key, other) in all.iter().skip(index + 1).filter(shared) {
                self.conflict(format!(
                    "{one_key} ({one}) and {other_key} ({other}) must not share an address and port"
                ));
            }
        }
    }

    fn bridge(&mut self) {
        let Values { bridge, tls, jobs, limits, .. } = self.common;
        // Recordings are files. The ledger can do without a directory.
        if jobs.recording != JobRecording::Off && bridge.data_dir.is_none() && !self.may_be_set(&["data_dir"])
        {
            self.conflict(format!(
                "jobs.recording is {} and data_dir is not set: recordings are kept in data_dir/recordings",
                jobs.recording
            ));
        }
        // The last frames of a job are deleted with its record.
        let (retention, log_retention) = (limits.retention, limits.log_retention);
        if retention < log_retention && !self.refused(&["limits.retention", "limits.log_retention"]) {
            let (retention, log_retention) = (written(retention), written(log_retention));
            self.conflict(format!(
                "limits.retention ({retention}) must not be shorter than limits.log_retention ({log_retention})"
            ));
        }
        if !self.may_be_set(&["tls.certificate", "tls.key"]) {
            match (&tls.certificate, &tls.key, &tls.client_ca) {
                (None, None, Some(_)) => self.missing("tls.certificate", "tls.client_ca"),
                (certificate, key, _) => self.pair("tls.", certificate, key),
            }
        }
        let address = bridge.admin_listen;
        let has_token = bridge.admin_token_file.is_some() || bridge.admin_read_token_file.is_some();
        let is_open = !address.ip().to_canonical().is_loopback() && !has_token;
        if is_open && !self.may_be_set(&["admin_listen", "admin_token_file", "admin_read_token_file"]) {
            self.conflict(format!(
                "admin_listen is {address}, which is not a loopback address: set admin_token_file to a file with a \
                 token, such as `openssl rand -hex 32` makes"
            ));
        }
    }

    fn missing(&mut self, key: impl Display, with: impl Display) {
        self.conflict(format!("{key} is not set: {with} requires it"));
    }

    /// A certificate and its key are set together. `prefix` is that of their names.
    fn pair(&mut self, prefix: &str, certificate: &Option<PathBuf>, key: &Option<PathBuf>) {
        let [certificate_key, key_key] = ["certificate", "key"].map(|name| format!("{prefix}{name}"));
        match (certificate, key) {
            (None, Some(_)) => self.missing(certificate_key, key_key),
            (Some(_), None) => self.missing(key_key, certificate_key),
            _ => {}
        }
    }

    fn backend(&mut self, values: &Values) {
        let (backend, name) = (&values.backend, name(values));
        let trusts = [
            ("ca_file", backend.ca_file.is_some()),
            ("pin", backend.pin.is_some()),
            ("insecure", backend.insecure),
        ];
        if set(&trusts).count() > 1 {
            self.conflict(format!(
                "the backend {name} has more than one of ca_file, pin and insecure: keep one"
            ));
        }
        // Somebody who sets one of these expects TLS.
        let of_tls =
            [trusts[0], trusts[1], ("client_certificate", backend.client_certificate.is_some()), trusts[2]];
        self.without_tls(&name, &of_tls, "url", backend.url.as_ref());
        self.pair("backend.client_", &backend.client_certificate, &backend.client_key);
    }

    /// Reports the first of `keys`, which are of use only with TLS, where the URL that `url_key` sets is `http`.
    fn without_tls(
        &mut self,
        name: &str,
        keys: &[(&'static str, bool)],
        url_key: &str,
        url: Option<&BackendUrl>,
    ) {
        if let (Some(key), Some(false)) = (set(keys).next(), url.map(BackendUrl::is_tls)) {
            self.conflict(format!(
                "the backend {name} has {key}, and its {url_key} is http: use https, or remove {key}"
            ));
        }
    }

    fn netbox(&mut self, values: &Values) {
        let (netbox, name) = (&values.netbox, name(values));
        match netbox.listen {
            Some(address) if is_unreachable(address.ip().to_canonical()) => self.conflict(format!(
                "the backend {name} has netbox_listen {address}, to which the backend cannot connect: set the address \
                 at which it reaches the bridge"
            )),
            Some(address)
                if !address.ip().to_canonical().is_loopback()
                    && netbox.allow.is_empty()
                    && !self.refused(&["backend.netbox_allow"]) =>
            {
                self.conflict(format!(
                    "the backend {name} has netbox_listen {address}, which is not a loopback address: set \
                     netbox_allow to the addresses of the backend"
                ));
            }
            Some(address)
                if address.port() == TLS_PORT
                    && netbox.certificate.is_none()
                    && !self.refused(&["backend.netbox_certificate"]) =>
            {
                self.conflict(format!(
                    "the backend {name} has netbox_listen {address} and no netbox_certificate, and backends use TLS on \
                     port 443: set netbox_certificate and netbox_key, or use another port"
                ));
            }
            None if !self.refused(&["backend.netbox_listen"]) => {
                let given = NetboxKeys::KEYS.iter().find(|key| netbox.get(key.name).is_some());
                if let Some((_, key)) = given.map(ConfigKey::path) {
                    self.conflict(format!(
                        "the backend {name} has {key} and no netbox_listen: set netbox_listen, or remove {key}"
                    ));
                }
            }
            _ => {}
        }
        if netbox.ca_file.is_some() && netbox.pin.is_some() {
            let keys = "netbox_ca_file and netbox_pin";
            self.conflict(format!("the backend {name} has more than one of {keys}: keep one"));
        }
        let of_tls = [
            ("netbox_ca_file", netbox.ca_file.is_some()),
            ("netbox_pin", netbox.pin.is_some()),
            ("netbox_client_certificate", netbox.client_certificate.is_some()),
        ];
        // The URL that the plugin pushes is validated when it does.
        self.without_tls(&name, &of_tls, "netbox_url", netbox.url.as_ref());
        self.pair("backend.netbox_", &netbox.certificate, &netbox.key);
        self.pair("backend.netbox_client_", &netbox.client_certificate, &netbox.client_key);
    }

    /// Every request is for one backend, and every backend has a name of its own.
    fn routes(&mut self, backends: &[Values]) {
        let before = self.found.len();
        let is_addressed = |values: &&Values| values.backend.listen.is_some();
        let is_named = |values: &&Values| !values.backend.hosts.is_empty();
        for values in backends.iter().filter(is_addressed).filter(is_named) {
            let name = name(values);
            self.conflict(format!(
                "the backend {name} has both listen and hosts: keep one; requests to its own address are not routed \
                 by host"
            ));
        }
        let mut open = backends.iter().filter(|values| !is_addressed(values) && !is_named(values)).map(name);
        if let (Some(first), Some(second)) = (open.next(), open.next()) {
            self.conflict(format!(
                "the backends {first} and {second} have neither hosts nor listen: only one backend may have neither, \
                 and it gets the requests that match no other"
            ));
        }
        let hosts = backends.iter().flat_map(|values| values.backend.hosts.clone());
        self.unique("host", hosts.collect(), "a request must match one of them");
        let urls = backends.iter().filter_map(|values| values.backend.url.as_ref());
        self.unique("url", urls.map(ToString::to_string).collect(), "write one block with the hosts of both");
        if self.found.len() == before {
            let names = backends.iter().filter(|values| values.backend.url.is_some()).map(name);
            self.unique("name", names.collect(), "give one of them another name");
        }
    }

    /// Reports the first of `values` that is there twice.
    fn unique(&mut self, key: &str, values: Vec<String>, advice: &str) {
        let twice = values.iter().enumerate().find(|(index, value)| values[..*index].contains(value));
        if let Some((_, value)) = twice {
            self.conflict(format!("two backends have the same {key} ({value}): {advice}"));
        }
    }
}

/// Whether no URL leads to `address`: it is unspecified, or link-local in IPv6, which exists on every network.
fn is_unreachable(address: IpAddr) -> bool {
    let is_link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    address.is_unspecified() || is_link_local
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    let wildcard = same_family && (one.ip().is_unspecified() || other.ip().is_unspecified());
    let same_port = one.port() != 0 && one.port() == other.port();
    same_port && (wildcard || one.ip() == other.ip())
}

/// The names of the keys that are set.
fn set<'a>(keys: &'a [(&'static str, bool)]) -> impl Iterator<Item = &'static str> + 'a {
    keys.iter().filter(|(_, is_set)| *is_set).map(|(key, _)| *key)
}

/// The name of a backend in messages.
pub(super) fn name(values: &Values) -> String {
    let url = values.backend.url.as_ref().map(|url| url.authority());
    values.backend.name.clone().or(url).unwrap_or_else(|| "without url".to_owned())
}
