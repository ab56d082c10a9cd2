//! The secrets that nothing of a job may hold when it is stored or logged.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::request::Request;
use crate::config::Config;
use crate::core::redact::{Redactor, SHORTEST, in_query};
use crate::telemetry;

/// How many secrets are kept that clients have pushed to backends, or that were configured before.
const SEEN: usize = 64;

/// The secrets of the configuration, and those that clients have pushed to backends. The log does not hold them either.
#[derive(Debug, Default)]
pub struct Secrets(Mutex<Known>);

#[derive(Default)]
struct Known {
    configured: Vec<String>,
    seen: VecDeque<String>,
    redactor: Redactor,
}

impl Secrets {
    /// The secrets of `config`, and those of the configuration before, which backends may still repeat.
    pub(super) fn configure(&self, config: &Config) {
        let mut known = self.known();
        let before = std::mem::replace(&mut known.configured, config.secrets().map(str::to_owned).collect());
        known.see(before);
    }

    /// Notes secrets that a backend has been given.
    pub fn remember(&self, secrets: Vec<String>) {
        let mut known = self.known();
        if secrets.iter().any(|secret| !known.redactor.secrets().contains(secret)) {
            known.see(secrets);
        }
    }

    /// What takes them out of a text, and the secrets of `request` too.
    pub(super) fn of(&self, request: &Request) -> Redactor {
        let key = request.identity.key.as_ref().map(|key| key.expose().to_owned());
        self.known().redactor.with(key.into_iter().chain(in_query(&request.query)))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn see(&mut self, secrets: Vec<String>) {
        for secret in secrets.into_iter().filter(|secret| secret.len() >= SHORTEST) {
            self.seen.retain(|known| *known != secret);
            self.seen.push_back(secret);
        }
        self.seen.drain(..self.seen.len().saturating_sub(SEEN));
        self.redactor = Redactor::new(self.configured.iter().chain(&self.seen).map(String::as_str));
        telemetry::log::hide(self.redactor.clone());
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.redactor.fmt(f)
    }
}
