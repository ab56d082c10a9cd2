//! The address of NetBox: the NetBox endpoints that the plugin pushes. Backends get the address of their listener instead.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;
use http::uri::Scheme;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::backend::Backend;
use crate::config;
use crate::core::compat::netbox::{TLS_PORT, v2_token};
use crate::core::compat::rows::{can_update_netbox, change_rows, host_in_url, leads_to_listener, plain_host};
use crate::core::domain::credential::hexadecimal;
use crate::core::domain::release::Release;
use crate::core::http::url::BackendUrl;
use crate::core::secret::SecretJson;
use crate::private::{StateFile, Unreadable};
use crate::telemetry;
use crate::tls::Trust;

/// The file in `data_dir`.
const FILE: &str = "netbox-endpoints.json";
/// The remedy for an unreadable file.
const REMEDY: &str = "delete it, and the plugin pushes them again";
/// The stored fields of an endpoint: those that the plugin compares. No token is stored.
const STORED_FIELDS: [&str; 6] = ["name", "ip_address", "domain", "port", "verify_ssl", "token_version"];
/// The number of replaced tokens that are remembered.
const MAX_REPLACED: usize = 8;

/// The NetBox endpoints that the plugin has pushed, by the URL of the backend.
#[derive(Debug)]
pub(crate) struct NetboxEndpoints(Arc<StateFile<BTreeMap<String, PushedEndpoint>>>);

/// The NetBox endpoint that the plugin has pushed to one backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PushedEndpoint {
    row: Map<String, Value>,
    /// The SHA-256 of the current token.
    token: String,
    /// Whether NetBox has accepted the token. A token that it has not accepted may come from any client, because releases
    /// without authentication accept every push.
    #[serde(default)]
    is_accepted: bool,
    /// The SHA-256 of the previous tokens that NetBox accepted. A backend that reads its token at startup still sends one
    /// of them.
    replaced: Vec<String>,
}

/// A token of a backend in a request to NetBox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackendToken {
    /// The token that was pushed last.
    Current,
    /// A token that was pushed before. A backend that reads its token at startup continues to send it.
    Replaced,
}

impl NetboxEndpoints {
    /// Opens the endpoints in `data_dir`.
    pub(super) fn open(data_dir: Option<&Path>) -> Result<Self, Unreadable> {
        StateFile::open(data_dir, FILE, REMEDY).map(Arc::new).map(Self)
    }

    /// Drops the endpoints that were pushed to other backends than those at `urls`, also from the file.
    pub(super) async fn retain(&self, urls: &HashSet<String>) {
        self.change(|pushed| pushed.retain(|url, _| urls.contains(url))).await;
    }

    /// The configuration for connections to the NetBox of `backend`, with the limits of the backend, or why NetBox cannot
    /// be reached.
    pub(crate) fn target(&self, backend: &config::BackendConfig) -> Result<config::BackendConfig, String> {
        target(backend, self.0.get().get(&backend.url.to_string()))
    }

    /// Stores the endpoint that the plugin pushes to `backend`; `token` is the hash of its token. If the address or the
    /// token changes, the Proxmox endpoints of the backend are dropped: their secrets belong to the previous NetBox, and
    /// any client that can reach the bridge can push another one. The plugin pushes the Proxmox endpoints right afterwards.
    pub(super) async fn push(&self, backend: &Backend, pushed: &Value, token: &str) {
        let store = |all: &mut BTreeMap<_, PushedEndpoint>| {
            let endpoint = all.entry(backend.url().to_string()).or_default();
            let before = endpoint.clone();
            endpoint.apply(pushed, token);
            let [was, is] = [&before, endpoint].map(|endpoint| target(backend.config(), Some(endpoint)));
            if before.token != token || was != is {
                backend.proxmox.clear();
            }
        };
        self.change(store).await;
    }

    /// Replaces the address of the listener, `address`, in `rows` of the backend by the pushed endpoint, which the plugin
    /// expects. Returns whether any row changed.
    pub(crate) fn restore(&self, backend: &Backend, address: SocketAddr, rows: &mut Value) -> bool {
        let pushed = self.0.get();
        let Some(pushed) = pushed.get(&backend.url().to_string()) else { return false };
        change_rows(rows, |row| {
            let is_at_listener = leads_to_listener(row, address);
            if is_at_listener {
                row.extend(pushed.row.clone());
            }
            is_at_listener
        })
    }

    /// Which token of `backend` is in `authorization`; `None` if it was not pushed to the backend.
    pub(super) fn match_token(&self, backend: &Backend, authorization: &HeaderValue) -> Option<BackendToken> {
        let (_, sent) = authorization.to_str().ok()?.split_once(' ')?;
        let sent = token_hash(sent.trim());
        let pushed = self.0.get();
        let pushed = pushed.get(&backend.url().to_string())?;
        if pushed.token == sent {
            return Some(BackendToken::Current);
        }
        pushed.replaced.contains(&sent).then_some(BackendToken::Replaced)
    }

    /// Records that NetBox has accepted the current token of `backend` in a request for `path`. If that came in the
    /// session that writes, the backend was restarted, and its replaced tokens are dropped. The file is written in the
    /// background.
    pub(super) fn token_accepted(&self, backend: &Backend, path: &str) {
        let url = backend.url().to_string();
        let writes = super::writes_to_netbox(path);
        let is_new = |pushed: &PushedEndpoint| !pushed.is_accepted || (writes && !pushed.replaced.is_empty());
        if !self.0.get().get(&url).is_some_and(is_new) {
            return;
        }
        let accept = |all: &mut BTreeMap<String, PushedEndpoint>| {
            if let Some(pushed) = all.get_mut(&url) {
                pushed.is_accepted = true;
                if writes {
                    pushed.replaced.clear();
                }
            }
        };
        if let ((), true) = self.0.change_in_memory(accept) {
            let pushed = Arc::clone(&self.0);
            tokio::spawn(async move {
                if let Err(error) = pushed.save().await {
                    telemetry::StateNotWritten { file: FILE, error: &error }.emit();
                }
            });
        }
    }

    async fn change(&self, change: impl FnOnce(&mut BTreeMap<String, PushedEndpoint>)) {
        if let ((), Err(error)) = self.0.change(change).await {
            telemetry::StateNotWritten { file: FILE, error: &error }.emit();
        }
    }
}

/// The configuration for connections to the NetBox of `backend`, for which the plugin has `pushed` an endpoint.
fn target(
    backend: &config::BackendConfig,
    pushed: Option<&PushedEndpoint>,
) -> Result<config::BackendConfig, String> {
    let netbox = backend.netbox.as_ref().ok_or("This backend has no NetBox listener.")?;
    let (url, verifies) = match (&netbox.url, pushed) {
        (Some(url), _) => (url.clone(), true),
        (None, Some(pushed)) => pushed.url()?,
        (None, None) => {
            Err("The bridge does not know yet where NetBox is: start a sync in NetBox, so that the plugin \
                             pushes its NetBox endpoint, or set backend.netbox_url.")?
        }
    };
    if let Some(key) = netbox.tls_key().filter(|_| !url.is_tls()) {
        return Err(format!(
            "{key} is set, but the NetBox endpoint that the plugin has pushed, {url}, does not use TLS: set its port to \
             the HTTPS port and enable verify_ssl, set backend.netbox_url to the https URL, or remove {key}."
        ));
    }
    let default_trust = if verifies { Trust::System } else { Trust::Insecure };
    Ok(backend.netbox_upstream(netbox, url, default_trust))
}

/// Checks that the NetBox of `backend` could be reached with the endpoint `pushed`. The error says what to do.
pub(crate) fn check_pushed(backend: &config::BackendConfig, pushed: &Value) -> Result<(), String> {
    let mut endpoint = PushedEndpoint::default();
    endpoint.apply(pushed, "");
    target(backend, Some(&endpoint)).map(drop)
}

impl PushedEndpoint {
    fn apply(&mut self, pushed: &Value, token: &str) {
        let fields =
            STORED_FIELDS.iter().filter_map(|name| Some(((*name).to_owned(), pushed.get(name)?.clone())));
        self.row = fields.collect();
        if self.token != token {
            self.replaced.retain(|replaced| replaced != token);
            if std::mem::take(&mut self.is_accepted) {
                self.replaced.push(std::mem::take(&mut self.token));
            }
            let excess = self.replaced.len().saturating_sub(MAX_REPLACED);
            self.replaced.drain(..excess);
            self.token = token.to_owned();
        }
    }

    /// The URL that backends derive from the row, and whether its certificate is verified.
    fn url(&self) -> Result<(BackendUrl, bool), String> {
        let text = |name: &str| self.row.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let host = text("domain").or_else(|| text("ip_address")?.split('/').next());
        let port = self.row.get("port").and_then(Value::as_u64).unwrap_or(u64::from(TLS_PORT));
        let verifies = self.row.get("verify_ssl").and_then(Value::as_bool).unwrap_or(true);
        let scheme = if verifies || port == u64::from(TLS_PORT) { "https" } else { "http" };
        let host = host.unwrap_or_default();
        let host =
            if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        let url = format!("{scheme}://{host}:{port}");
        let invalid =
            |error| format!("The NetBox endpoint that the plugin has pushed has no usable address: {error}.");
        Ok((url.parse().map_err(invalid)?, verifies))
    }
}

/// The row for a backend of `release` in place of `pushed`: it leads to the listener at `listen`. For releases,
/// `verify_ssl` also decides whether to use TLS; for 0.0.2 it decides nothing else.
pub(crate) fn at_listener(
    pushed: &SecretJson,
    listen: SocketAddr,
    scheme: &Scheme,
    release: Release,
) -> SecretJson {
    let mut row = pushed.clone();
    // Releases put the domain into their URL as it is, and 0.0.2 the address.
    let in_url = host_in_url(listen);
    let address = if can_update_netbox(release) { plain_host(listen) } else { in_url.clone() };
    row["ip_address"] = json!(address);
    row["domain"] = json!(in_url);
    row["port"] = json!(listen.port());
    row["verify_ssl"] = json!(*scheme == Scheme::HTTPS);
    row
}

/// The token of a pushed row, in the form of [`v2_token`].
pub(crate) fn token(pushed: &Value) -> SecretString {
    let secret = pushed["token"].as_str().unwrap_or_default();
    match pushed["token_key"].as_str().filter(|key| !key.is_empty()) {
        Some(key) if pushed["token_version"] == "v2" => v2_token(key, secret),
        _ => secret.into(),
    }
}

/// The SHA-256 of `token`.
pub(super) fn token_hash(token: &str) -> String {
    hexadecimal(&Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn pushed(row: Value) -> PushedEndpoint {
        let mut pushed = PushedEndpoint::default();
        pushed.apply(&row, "hash");
        pushed
    }

    #[test]
    fn the_pushed_row_says_where_netbox_is() {
        for (domain, ip_address, port, verify_ssl, url) in [
            (json!("nb.example"), "10.0.0.1/24", 443, true, "https://nb.example"),
            (json!(""), "10.0.0.1/24", 8000, false, "http://10.0.0.1:8000"),
            (Value::Null, "2001:db8::1", 443, false, "https://[2001:db8::1]"),
            (json!("[2001:db8::1]"), "10.0.0.1", 443, true, "https://[2001:db8::1]"),
        ] {
            let row = json!({
                "domain": domain, "ip_address": ip_address, "port": port, "verify_ssl": verify_ssl,
            });
            let (found, verifies) = pushed(row).url().unwrap();
            assert_eq!((found.to_string().as_str(), verifies), (url, verify_ssl));
        }
        assert!(pushed(json!({ "port": 443 })).url().unwrap_err().contains("no usable address"));
    }

    #[test]
    fn a_token_that_was_replaced_is_remembered_by_its_hash_and_no_token_is_kept() {
        let mut endpoint = PushedEndpoint::default();
        let row = json!({ "name": "nb", "token": "s3cret", "token_version": "v1", "domain": "nb.example" });
        endpoint.apply(&row, "never accepted");
        endpoint.apply(&row, "one");
        endpoint.is_accepted = true;
        endpoint.apply(&row, "two");
        endpoint.apply(&row, "two");
        assert_eq!((endpoint.token.as_str(), endpoint.replaced.clone()), ("two", vec!["one".to_owned()]));
        endpoint.is_accepted = true;
        endpoint.apply(&row, "one");
        assert_eq!((endpoint.token.as_str(), endpoint.replaced.clone()), ("one", vec!["two".to_owned()]));
        assert!(!serde_json::to_string(&endpoint).unwrap().contains("s3cret"));
    }

    #[test]
    fn the_backend_is_given_the_listener_and_its_token() {
        let row = json!({ "name": "nb", "domain": "nb.example", "ip_address": "10.0.0.1", "port": 443, "verify_ssl": true,
                          "token_version": "v2", "token_key": "abc", "token": "def" });
        let row = SecretJson::from(row);
        let new = Release::new(0, 0, 3);
        let given = at_listener(&row, "127.0.0.1:8801".parse().unwrap(), &Scheme::HTTP, new);
        assert_eq!(
            (&given["domain"], &given["port"], &given["verify_ssl"]),
            (&json!("127.0.0.1"), &json!(8801), &json!(false))
        );
        assert_eq!((&given["name"], &given["token"]), (&row["name"], &row["token"]));
        for (listen, release, host, domain) in [
            ("[::1]:8801", new, "::1", "[::1]"),
            ("[::1]:8801", Release::new(0, 0, 2), "[::1]", "[::1]"),
            ("[::ffff:192.0.2.1]:8801", new, "192.0.2.1", "192.0.2.1"),
        ] {
            let given = at_listener(&row, listen.parse().unwrap(), &Scheme::HTTPS, release);
            assert_eq!((&given["ip_address"], &given["domain"]), (&json!(host), &json!(domain)));
            assert_eq!(given["verify_ssl"], true);
        }
        assert_eq!(token(&row).expose_secret(), "nbt_abc.def");
        let v1 = json!({ "token_version": "v1", "token": "def", "token_key": null });
        assert_eq!(token(&v1).expose_secret(), "def");
    }
}
