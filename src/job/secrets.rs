//! The secrets that nothing of a job may hold when it is stored or logged.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use secrecy::{ExposeSecret, SecretString};

use super::request::Request;
use crate::config::Config;
use crate::core::text::redact::{Redactor, in_query, is_among, is_sought};
use crate::telemetry;

/// How many secrets are kept that clients have pushed to backends, or that were configured before.
const SEEN: usize = 1024;

/// The secrets of the configuration, and those that clients have pushed to backends. The log does not hold them either.
#[derive(Debug, Default)]
pub struct Secrets(Mutex<Known>);

#[derive(Default)]
struct Known {
    configured: Vec<SecretString>,
    seen: VecDeque<SecretString>,
    redactor: Redactor,
}

impl Secrets {
    /// The secrets of `config`, and those of the configuration before, which backends may still repeat.
    pub(super) fn configure(&self, config: &Config) {
        let mut known = self.known();
        let before =
            std::mem::replace(&mut known.configured, config.secrets().map(SecretString::from).collect());
        known.see(before);
    }

    /// Notes secrets that a backend has been given.
    pub fn remember(&self, secrets: Vec<SecretString>) {
        let mut known = self.known();
        let is_new = |secret: &SecretString| is_sought(secret) && !is_among(known.redactor.secrets(), secret);
        if secrets.iter().any(is_new) {
            known.see(secrets);
        }
    }

    /// What takes them out of a text, and the secrets of `request` too.
    pub(super) fn of(&self, request: &Request) -> Redactor {
        let key = request.identity.key.as_ref().map(|key| key.expose().into());
        let known = self.known().redactor.clone();
        known.with(key.into_iter().chain(in_query(&request.query)))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn see(&mut self, secrets: Vec<SecretString>) {
        for secret in secrets.into_iter().filter(is_sought) {
            self.seen.retain(|known| known.expose_secret() != secret.expose_secret());
            self.seen.push_back(secret);
        }
        self.seen.drain(..self.seen.len().saturating_sub(SEEN));
        self.redactor = Redactor::new(self.configured.iter().chain(&self.seen).cloned());
        telemetry::log::hide(self.redactor.clone());
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.redactor.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_pushed_secrets_are_hidden_as_are_kept_and_the_oldest_goes_first() {
        let secrets = Secrets::default();
        let secret = |number: usize| format!("pushed-secret-{number:04}");
        secrets.remember((0..SEEN).map(|number| secret(number).into()).collect());
        let shown = |number| secrets.known().redactor.text(&secret(number)).into_owned();
        assert!((0..SEEN).all(|number| shown(number) == "[hidden]"));
        secrets.remember(vec![secret(SEEN).into()]);
        assert_eq!(
            (shown(0), shown(1), shown(SEEN)),
            (secret(0), "[hidden]".to_owned(), "[hidden]".to_owned())
        );
    }
}
