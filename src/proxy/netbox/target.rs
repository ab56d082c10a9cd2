//! Where NetBox is: the endpoint that the plugin pushes, which the backend is not given.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::locked;
use crate::backend::Backend;
use crate::config::{self, BackendUrl};
use crate::core::compat::netbox::{TLS_PORT, v2_token};
use crate::core::compat::rows::{can_update_netbox, change_rows, host_in_url, leads_to_listener, plain_host};
use crate::core::domain::credential::hexadecimal;
use crate::core::domain::release::Release;
use crate::core::secret::{SecretJson, header};
use crate::private::{StateFile, Unreadable};
use crate::telemetry;
use crate::tls::Trust;

/// The file in `data_dir`.
const FILE: &str = "netbox-endpoints.json";
/// What to do about one that cannot be read.
const REMEDY: &str = "delete it, and the plugin pushes them again";
/// What is kept of an endpoint: what the plugin compares, and no token.
const STORED_FIELDS: [&str; 6] = ["name", "ip_address", "domain", "port", "verify_ssl", "token_version"];
/// How many tokens that were replaced are remembered.
const MAX_REPLACED: usize = 8;

/// The NetBox endpoints that the plugin has pushed, by the URL of the backend.
#[derive(Debug)]
pub(crate) struct NetboxEndpoints {
    pushed: Arc<StateFile<BTreeMap<String, PushedEndpoint>>>,
    /// The tokens in force. They are in memory alone.
    tokens: Mutex<HashMap<String, SecretString>>,
}

/// The NetBox endpoint that the plugin has pushed to one backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PushedEndpoint {
    row: Map<String, Value>,
    /// The SHA-256 of the token in force.
    token: String,
    /// Whether NetBox has accepted it. Only then can a backend have read it: anybody can push a token to a release without
    /// authentication.
    #[serde(default)]
    is_accepted: bool,
    /// The SHA-256 of those before it that NetBox accepted. A backend that reads its token at its start sends the one of then.
    replaced: Vec<String>,
}

/// A token of a backend in a request to NetBox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackendToken {
    /// The token that was pushed last.
    Current,
    /// A token that was pushed before. A backend that reads its token when it starts goes on sending that one.
    Replaced,
}

impl NetboxEndpoints {
    /// Those that are kept in `data_dir`; without it, none.
    ///
    /// # Errors
    ///
    /// Why the file could not be read.
    pub(super) fn open(data_dir: Option<&Path>) -> Result<Self, Unreadable> {
        let pushed = Arc::new(StateFile::open(data_dir, FILE, REMEDY)?);
        Ok(Self { pushed, tokens: Mutex::default() })
    }

    /// Drops the tokens that were pushed to other backends than those at `urls`.
    pub(super) fn retain_tokens(&self, urls: &HashSet<String>) {
        locked(&self.tokens).retain(|url, _| urls.contains(url));
    }

    /// Drops the endpoints that were pushed to other backends than those at `urls`, in the file too.
    pub(super) async fn retain_pushed(&self, urls: &HashSet<String>) {
        self.change(|pushed| pushed.retain(|url, _| urls.contains(url))).await;
    }

    /// How the NetBox of a backend is reached: as an upstream of the same limits.
    ///
    /// # Errors
    ///
    /// What is missing for that.
    pub(crate) fn target(&self, backend: &config::Backend) -> Result<config::Backend, String> {
        target(backend, self.pushed.get().get(&backend.url.to_string()))
    }

    /// Keeps what the plugin pushes to `backend`. A push that changes where NetBox is, or its token, drops the Proxmox
    /// endpoints of the backend: their secrets are for the NetBox before, and whoever can reach the bridge can push another
    /// one. The plugin pushes them again behind this.
    pub(crate) async fn push(&self, backend: &Backend, pushed: &Value) {
        let key = backend.url().to_string();
        let text = token(pushed);
        let token = fingerprint(text.expose_secret());
        locked(&self.tokens).insert(key.clone(), text);
        let take = |all: &mut BTreeMap<_, PushedEndpoint>| {
            let endpoint = all.entry(key).or_default();
            let before = endpoint.clone();
            endpoint.apply(pushed, &token);
            let [was, is] = [&before, endpoint].map(|endpoint| target(backend.config(), Some(endpoint)));
            if before.token != token || was != is {
                backend.proxmox.clear();
            }
        };
        self.change(take).await;
    }

    /// Makes those `rows` of the backend that lead to its listener at `address` what the plugin is to see: the NetBox
    /// that it has pushed. Returns whether there are any.
    pub(crate) fn show(&self, backend: &Backend, address: SocketAddr, rows: &mut Value) -> bool {
        let pushed = self.pushed.get();
        let Some(pushed) = pushed.get(&backend.url().to_string()) else { return false };
        change_rows(rows, |row| {
            let is_at_listener = leads_to_listener(row, address);
            if is_at_listener {
                row.extend(pushed.row.clone());
            }
            is_at_listener
        })
    }

    /// Which token of `backend` is in `authorization`; `None` if it is not one that was pushed to the backend.
    pub(super) fn match_token(&self, backend: &Backend, authorization: &HeaderValue) -> Option<BackendToken> {
        let sent = token_hash(authorization)?;
        let pushed = self.pushed.get();
        let pushed = pushed.get(&backend.url().to_string())?;
        if pushed.token == sent {
            return Some(BackendToken::Current);
        }
        pushed.replaced.contains(&sent).then_some(BackendToken::Replaced)
    }

    /// NetBox has accepted the token in force of `backend`. If `writes`, the session that writes has sent it: the backend
    /// was restarted, and the tokens before it are forgotten. The file is written after this.
    pub(super) fn token_accepted(&self, backend: &Backend, writes: bool) {
        let is_news =
            |pushed: &PushedEndpoint| !pushed.is_accepted || (writes && !pushed.replaced.is_empty());
        if !self.pushed.get().get(&backend.url().to_string()).is_some_and(is_news) {
            return;
        }
        let note = |all: &mut BTreeMap<String, PushedEndpoint>| {
            if let Some(pushed) = all.get_mut(&backend.url().to_string()) {
                pushed.is_accepted = true;
                if writes {
                    pushed.replaced.clear();
                }
            }
        };
        if let ((), true) = self.pushed.change_in_memory(note) {
            let pushed = Arc::clone(&self.pushed);
            tokio::spawn(async move {
                if let Err(error) = pushed.save().await {
                    telemetry::StateNotWritten { file: FILE, error: &error }.emit();
                }
            });
        }
    }

    async fn change(&self, change: impl FnOnce(&mut BTreeMap<String, PushedEndpoint>)) {
        if let ((), Err(error)) = self.pushed.change(change).await {
            telemetry::StateNotWritten { file: FILE, error: &error }.emit();
        }
    }

    /// `Authorization` with the token that was pushed to `backend` last, if it was pushed since the bridge started.
    pub(super) fn current_token(&self, backend: &Backend) -> Option<HeaderValue> {
        let tokens = locked(&self.tokens);
        header(&["Token ", tokens.get(&backend.url().to_string())?.expose_secret()]).ok()
    }
}

/// How the NetBox of a backend is reached, to which the plugin has `pushed` this.
fn target(backend: &config::Backend, pushed: Option<&PushedEndpoint>) -> Result<config::Backend, String> {
    let Some(netbox) = &backend.netbox else {
        return Err("This backend has no NetBox listener.".to_owned());
    };
    let (url, verifies) = match (&netbox.url, pushed) {
        (Some(url), _) => (url.clone(), true),
        (None, Some(pushed)) => pushed.url()?,
        (None, None) => {
            let reason = "The bridge does not know yet where NetBox is: start a sync in NetBox, whose plugin tells it, \
                          or set backend.netbox_url.";
            return Err(reason.to_owned());
        }
    };
    if let Some(key) = netbox.tls_key().filter(|_| !url.is_tls()) {
        return Err(format!(
            "{key} is set, and the NetBox endpoint that the plugin has pushed is {url}, which has no certificate: give \
             the endpoint in NetBox its port of https and verify_ssl, set backend.netbox_url to the https address, or \
             take {key} away."
        ));
    }
    let default_trust = if verifies { Trust::System } else { Trust::Insecure };
    Ok(backend.netbox_upstream(netbox, url, default_trust))
}

/// Whether the NetBox of `backend` can be asked where the plugin says that it is with `pushed`.
///
/// # Errors
///
/// Why not, and what to do.
pub(crate) fn check_pushed(backend: &config::Backend, pushed: &Value) -> Result<(), String> {
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

    /// Where it is, as backends understand such a row, and whether its certificate is verified.
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
        let url = url.parse().map_err(|error| {
            format!("The NetBox endpoint that the plugin has pushed has no usable address: {error}.")
        });
        Ok((url?, verifies))
    }
}

/// What a backend of `release` is given in the place of `pushed`: the listener at `listen`. Releases take `verify_ssl` for
/// whether to speak TLS, too, and 0.0.2 for that alone.
pub(crate) fn at_listener(
    pushed: &SecretJson,
    listen: SocketAddr,
    speaks_tls: bool,
    release: Release,
) -> SecretJson {
    let mut row = pushed.clone();
    // Releases write their URL with the domain as it is, 0.0.2 with the address.
    let in_url = host_in_url(listen);
    let address = if can_update_netbox(release) { plain_host(listen) } else { in_url.clone() };
    row["ip_address"] = json!(address);
    row["domain"] = json!(in_url);
    row["port"] = json!(listen.port());
    row["verify_ssl"] = json!(speaks_tls);
    row
}

/// The token of a pushed row in one text, as [`v2_token`] has it.
pub(crate) fn token(pushed: &Value) -> SecretString {
    let secret = pushed["token"].as_str().unwrap_or_default();
    match pushed["token_key"].as_str().filter(|key| !key.is_empty()) {
        Some(key) if pushed["token_version"] == "v2" => v2_token(key, secret),
        _ => secret.into(),
    }
}

/// The hash of the token in an `Authorization`.
fn token_hash(authorization: &HeaderValue) -> Option<String> {
    let (_, token) = authorization.to_str().ok()?.split_once(' ')?;
    Some(fingerprint(token.trim()))
}

fn fingerprint(token: &str) -> String {
    hexadecimal(&Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(row: Value) -> PushedEndpoint {
        let mut pushed = PushedEndpoint::default();
        pushed.apply(&row, "hash");
        pushed
    }

    #[test]
    fn the_pushed_row_says_where_netbox_is() {
        for (row, url) in [
            (
                json!({ "domain": "nb.example", "ip_address": "10.0.0.1/24", "port": 443, "verify_ssl": true }),
                "https://nb.example",
            ),
            (
                json!({ "domain": "", "ip_address": "10.0.0.1/24", "port": 8000, "verify_ssl": false }),
                "http://10.0.0.1:8000",
            ),
            (
                json!({ "domain": null, "ip_address": "2001:db8::1", "port": 443, "verify_ssl": false }),
                "https://[2001:db8::1]",
            ),
            (
                json!({ "domain": "[2001:db8::1]", "ip_address": "10.0.0.1", "port": 443, "verify_ssl": true }),
                "https://[2001:db8::1]",
            ),
        ] {
            let (found, verifies) = pushed(row.clone()).url().unwrap();
            assert_eq!(found.to_string(), url);
            assert_eq!(json!(verifies), row["verify_ssl"]);
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
        let given = at_listener(&row, "127.0.0.1:8801".parse().unwrap(), false, new);
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
            let given = at_listener(&row, listen.parse().unwrap(), true, release);
            assert_eq!((&given["ip_address"], &given["domain"]), (&json!(host), &json!(domain)));
            assert_eq!(given["verify_ssl"], true);
        }
        assert_eq!(token(&row).expose_secret(), "nbt_abc.def");
        let v1 = json!({ "token_version": "v1", "token": "def", "token_key": null });
        assert_eq!(token(&v1).expose_secret(), "def");
    }
}
