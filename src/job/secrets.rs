//! The secrets that must not appear in anything stored or logged.

use std::collections::VecDeque;

use parking_lot::{Mutex, MutexGuard};
use secrecy::{ExposeSecret, SecretString};

use super::request::SyncRequest;
use crate::config::Config;
use crate::core::text::redact::{Redactor, is_among, is_long_enough, secrets_in_query};
use crate::telemetry;

/// The maximum number of former secrets kept: pushed to backends by clients, or configured earlier.
const MAX_SEEN: usize = 1024;

/// The secrets of the configuration, and those that clients pushed to backends. The log omits them too.
#[derive(Debug, Default)]
pub struct SecretStore(Mutex<KnownSecrets>);

#[derive(Default)]
struct KnownSecrets {
    configured: Vec<SecretString>,
    seen: VecDeque<SecretString>,
    redactor: Redactor,
}

impl SecretStore {
    /// Replaces the configured secrets. The former ones are kept, because backends may still repeat them.
    pub(super) fn configure(&self, config: &Config) {
        let mut inner = self.inner();
        let before =
            std::mem::replace(&mut inner.configured, config.secrets().map(SecretString::from).collect());
        inner.add(before);
    }

    /// Adds secrets that were sent to a backend.
    pub fn remember(&self, secrets: Vec<SecretString>) {
        let mut inner = self.inner();
        let is_new =
            |secret: &SecretString| is_long_enough(secret) && !is_among(inner.redactor.secrets(), secret);
        if secrets.iter().any(is_new) {
            inner.add(secrets);
        }
    }

    /// A redactor for all these secrets and those of `request`.
    pub(super) fn redactor_for(&self, request: &SyncRequest) -> Redactor {
        let key = request.identity.key.as_ref().map(|key| key.expose().into());
        let redactor = self.inner().redactor.clone();
        redactor.with(key.into_iter().chain(secrets_in_query(&request.query)))
    }

    fn inner(&self) -> MutexGuard<'_, KnownSecrets> {
        self.0.lock()
    }
}

impl KnownSecrets {
    fn add(&mut self, secrets: Vec<SecretString>) {
        for secret in secrets.into_iter().filter(is_long_enough) {
            self.seen.retain(|other| other.expose_secret() != secret.expose_secret());
            self.seen.push_back(secret);
        }
        self.seen.drain(..self.seen.len().saturating_sub(MAX_SEEN));
        self.redactor = Redactor::new(self.configured.iter().chain(&self.seen).cloned());
        telemetry::log::set_redactor(self.redactor.clone());
    }
}

impl std::fmt::Debug for KnownSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.redactor.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_pushed_secrets_are_hidden_as_are_kept_and_the_oldest_goes_first() {
        let secrets = SecretStore::default();
        let secret = |number: usize| format!("pushed-secret-{number:04}");
        secrets.remember((0..MAX_SEEN).map(|number| secret(number).into()).collect());
        let shown = |number| secrets.inner().redactor.text(&secret(number)).into_owned();
        assert!((0..MAX_SEEN).all(|number| shown(number) == "[hidden]"));
        secrets.remember(vec![secret(MAX_SEEN).into()]);
        assert_eq!(
            (shown(0), shown(1), shown(MAX_SEEN)),
            (secret(0), "[hidden]".to_owned(), "[hidden]".to_owned())
        );
    }
}
