//! The targets of notifications.

use std::path::PathBuf;
use std::time::Duration;

use super::key::keys;
use super::problem::{ConfigProblem, ValueOrigin};
use super::value::{Durations, Names, days, secs};
use crate::core::domain::credential::ApiKey;
use crate::core::domain::kind::Kind;
use crate::core::domain::notification::{NotificationEvent, NotificationForm, signing_key};
use crate::core::http::url::{BackendUrl, HttpUrl};
use crate::tls::Trust;

const STALE: Durations = Durations { least: secs(1), most: days(366), is_whole: false };

keys! {
    struct NotifyKeys in "notify." {
        /// Name of the target in the log and in the ledger; by default, its form and its host. Notifications that are
        /// queued for a name are sent to its new URL.
        name: Option<String> = None;
        /// URL of the target; for `alertmanager`, that of its page.
        url: Option<HttpUrl> = None;
        /// File with the URL, on one line, where it is a secret.
        url_file: Option<PathBuf> = None;
        /// Form of the requests: `json` (CloudEvents 1.0, signed as Standard Webhooks are), `slack` (Mattermost and
        /// Rocket.Chat too), `ntfy`, or `alertmanager`. See [`notifications.md`](notifications.md).
        pub form: NotificationForm = NotificationForm::Json;
        /// File with a secret, on one line: for `json`, the one that requests are signed with (`whsec_…`); for `ntfy`
        /// and `alertmanager`, the token that is sent as `Authorization: Bearer`.
        secret_file: Option<PathBuf> = None;
        /// What to notify of: `failed` syncs, completed ones with failed objects (`objects_failed`), `interrupted` ones,
        /// the first completed one after a notification of these (`recovered`), and kinds that have not completed for
        /// `notify.stale_after` (`stale`).
        pub on: Vec<NotificationEvent> = vec![
            NotificationEvent::Failed, NotificationEvent::Interrupted, NotificationEvent::Recovered
        ];
        /// Kinds of syncs to notify of; by default, all. `stale` watches kinds that are not listed here from their first
        /// completed sync on.
        pub kinds: Vec<Kind> = Vec::new();
        /// Names of the backends to notify of; by default, all.
        backends: Names = Names::default();
        /// How long a kind may be without a completed sync on a backend, for `stale`.
        pub stale_after: Option<Duration> = None, within STALE;
        /// File with the CA certificates that the target's certificate is verified against, as PEM, instead of those of
        /// the system.
        ca_file: Option<PathBuf> = None;
        /// Allows targets at loopback and link-local addresses, and at those of metadata services of clouds.
        pub allow_local: bool = false;
    }

    /// A table `[[notify]]`.
    pub struct NotifyConfig from keys:
        fn new(url: HttpUrl, secret: Option<ApiKey>, backends: Option<Vec<BackendUrl>>, keys: NotifyKeys)
    {
        /// Its name.
        name: String = keys.name.unwrap_or_else(|| default_name(keys.form, url.origin()));
        /// Whether the URL is a secret.
        has_secret_url: bool = keys.url_file.is_some();
        /// Its URL.
        url: HttpUrl = url;
        /// The secret of `notify.secret_file`.
        secret: Option<ApiKey> = secret;
        /// Which certificates are accepted from it.
        trust: Trust = keys.ca_file.map_or(Trust::System, Trust::Authority);
        /// The URLs of the backends to notify of. `None` for all.
        backends: Option<Vec<BackendUrl>> = backends;
    }
}

impl NotifyConfig {
    /// The texts that must not be stored or logged.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let target = Some(self.url.target()).filter(|target| self.has_secret_url && *target != "/");
        self.secret.as_ref().map(ApiKey::expose).into_iter().chain(target)
    }
}

/// A table `[[notify]]` as it was read.
pub(super) struct NotifyTarget {
    /// Where it begins.
    pub(super) origin: ValueOrigin,
    pub(super) keys: NotifyKeys,
    /// The content of `url_file`.
    pub(super) url: Option<ApiKey>,
    /// The content of `secret_file`.
    pub(super) secret: Option<ApiKey>,
}

/// Validates the targets, and makes them. `backends` are the configured ones, by name. Nothing is reported that follows
/// from other `problems`.
pub(super) fn targets(
    targets: Vec<NotifyTarget>,
    backends: &[(String, BackendUrl)],
    problems: &mut Vec<ConfigProblem>,
) -> Vec<NotifyConfig> {
    let is_refused = |key| problems.iter().any(|problem| problem.refused_key() == Some(key));
    let is_url_refused = is_refused("notify.url") || is_refused("notify.url_file");
    let [are_names_refused, is_on_refused, is_limit_refused] =
        ["backend.name", "notify.on", "notify.stale_after"].map(is_refused);
    let mut made: Vec<NotifyConfig> = Vec::new();
    for NotifyTarget { origin, keys, url, secret } in targets {
        let mut report = |message: String| {
            problems.push(ConfigProblem::BadSetting { origin: origin.clone(), message });
        };
        let mut urls = Vec::new();
        for name in &keys.backends.0 {
            match backends.iter().find(|(known, _)| known == name) {
                Some((_, url)) => urls.push(url.clone()),
                None if are_names_refused => {}
                None => {
                    let known: Vec<&str> = backends.iter().map(|(name, _)| name.as_str()).collect();
                    let known = known.join(", ");
                    report(format!("notify.backends: no backend has the name {name}; configured: {known}"));
                }
            }
        }
        let urls = (!keys.backends.0.is_empty()).then_some(urls);
        let is_stale = keys.on.contains(&NotificationEvent::Stale);
        if is_stale && keys.stale_after.is_none() && !is_limit_refused {
            report(
                "notify.on has stale and notify.stale_after is not set: write stale_after = \"26h\""
                    .to_owned(),
            );
        }
        if !is_stale && keys.stale_after.is_some() && !is_on_refused {
            report(
                "notify.stale_after is set and notify.on has no stale: add it, or remove stale_after"
                    .to_owned(),
            );
        }
        match (keys.form, &secret) {
            (NotificationForm::Json, Some(secret)) => {
                if let Err(error) = signing_key(secret.expose()) {
                    report(format!(
                        "notify.secret_file: {error}; `echo whsec_$(openssl rand -base64 32)` makes one"
                    ));
                }
            }
            (NotificationForm::Slack, Some(_)) => {
                report(
                    "notify.secret_file is set, and the form slack has no use for it: remove it".to_owned(),
                );
            }
            _ => {}
        }
        let url = match (&keys.url, &keys.url_file, url) {
            (Some(_), Some(_), _) => Err("notify.url and notify.url_file are both set: keep one".to_owned()),
            (Some(url), None, _) => Ok(url.clone()),
            (None, _, Some(text)) => text
                .expose()
                .parse()
                .map_err(|error| format!("notify.url_file: not a URL of a target: {error}")),
            // The file cannot be read, which is reported.
            (None, Some(_), None) => continue,
            (None, None, None) if is_url_refused => continue,
            (None, None, None) => {
                Err("this target has no URL: write url or url_file below [[notify]]".to_owned())
            }
        };
        let target = match url {
            Ok(url) => NotifyConfig::new(url, secret, urls, keys),
            Err(message) => {
                report(message);
                continue;
            }
        };
        if made.iter().any(|other| other.name == target.name) {
            let name = &target.name;
            report(format!("two targets of notifications are called {name}: set notify.name in one of them"));
        }
        made.push(target);
    }
    made
}

fn default_name(form: NotificationForm, origin: &BackendUrl) -> String {
    format!("{form}:{}", origin.authority())
}
