//! The keys that plugins register for backends without authentication.
//!
//! Such a backend accepts requests from anyone, and the bridge does not change that. Newer plugins must be able to
//! register and check a key before they start a sync.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::core::domain::credential::{ApiKey, hexadecimal};
use crate::core::http::url::BackendUrl;
use crate::core::text::plain;
use crate::private::{StateFile, Unreadable};

/// The file in `data_dir`.
pub(super) const FILE: &str = "registered-keys.json";
/// The remedy for an unreadable file.
const REMEDY: &str = "mend it, or take it away and register again";
/// The maximum length of a label, in characters.
const MAX_LABEL: usize = 100;

/// One key for each backend, by its URL.
#[derive(Debug)]
pub(crate) struct Keyring(StateFile<BTreeMap<String, RegisteredKey>>);

/// A registered key, as a hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RegisteredKey {
    /// The label from the registration.
    pub(super) label: String,
    /// When it was registered, in seconds since 1970.
    pub(super) created_at: f64,
    salt: String,
    hash: String,
}

impl Keyring {
    /// Opens the keys in `data_dir`. Without it there are no keys, and none can be registered.
    pub(crate) fn open(data_dir: Option<&Path>) -> Result<Self, Unreadable> {
        StateFile::open(data_dir, FILE, REMEDY).map(Self)
    }

    /// The key of the backend at `url`.
    pub(super) fn get(&self, url: &BackendUrl) -> Option<RegisteredKey> {
        self.0.get().get(&url.to_string()).cloned()
    }

    /// Registers `key` for the backend at `url`, unless it has one. If it cannot be written, it is not registered.
    pub(super) async fn register(&self, url: &BackendUrl, key: &ApiKey, label: &str) -> io::Result<bool> {
        let registered = RegisteredKey::new(key, label, now());
        let register = |keys: &mut BTreeMap<String, RegisteredKey>| {
            let entry = keys.entry(url.to_string());
            let is_new = matches!(entry, Entry::Vacant(_));
            entry.or_insert_with(|| registered.clone());
            is_new
        };
        self.0.change_durably(register).await
    }
}

impl RegisteredKey {
    /// The configured key, which takes the place of a registered one.
    pub(super) fn from_config(key: &ApiKey) -> Self {
        Self::new(key, "shims.api_key_file", 0.0)
    }

    fn new(key: &ApiKey, label: &str, created_at: f64) -> Self {
        let salt = Uuid::new_v4().simple().to_string();
        let hash = hash(&salt, key);
        let label = if label.trim().is_empty() { "registered" } else { label };
        Self { label: plain(label, MAX_LABEL).into_owned(), created_at, salt, hash }
    }

    /// Compares `key` in constant time.
    pub(super) fn matches(&self, key: &ApiKey) -> bool {
        hash(&self.salt, key).as_bytes().ct_eq(self.hash.as_bytes()).into()
    }
}

fn hash(salt: &str, key: &ApiKey) -> String {
    let digest = Sha256::new_with_prefix(salt).chain_update(key.expose()).finalize();
    hexadecimal(&digest)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_key_of_a_backend_stays_also_when_the_bridge_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let [url, other] = ["http://a", "http://b"].map(|url| url.parse::<BackendUrl>().unwrap());
        let [right, wrong] = ["r".repeat(32), "w".repeat(32)].map(|key| key.parse::<ApiKey>().unwrap());
        let keyring = Keyring::open(Some(folder.path())).unwrap();
        assert!(keyring.register(&url, &right, "plugin").await.unwrap());
        assert!(!keyring.register(&url, &wrong, "thief").await.unwrap());

        let again = Keyring::open(Some(folder.path())).unwrap();
        let kept = again.get(&url).unwrap();
        assert!(
            kept.matches(&right) && !kept.matches(&wrong) && kept.label == "plugin" && kept.created_at > 1e9
        );
        assert_eq!(again.get(&other), None);
        let file = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert!(!file.contains(right.expose()));
    }

    #[tokio::test]
    async fn a_key_that_cannot_be_written_is_not_registered() {
        let keyring = Keyring::open(Some(Path::new("/nowhere/at/all"))).unwrap();
        let url = "http://a".parse().unwrap();
        assert!(keyring.register(&url, &"r".repeat(32).parse().unwrap(), "").await.is_err());
        assert_eq!(keyring.get(&url), None);
    }
}
