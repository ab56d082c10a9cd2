//! A job in this process, for a backend without a bridge. It has no record, and nothing listens.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail};

use super::{JobResult, SyncError};
use crate::backend::{Backend, RequestIdentity};
use crate::client::{JobEvent, MAX_EVENT_BYTES, parse_events};
use crate::config::{BackendConfig, CONFIG_VARIABLE, Config, ConfigError, Flags, environment};
use crate::core::domain::credential::ApiKey;
use crate::core::domain::kind::{Kind, SyncEndpoint};
use crate::core::domain::refusal::RefusalBody;
use crate::core::http::query::Query;
use crate::core::http::url::BackendUrl;
use crate::core::text::detail::text_of_body;
use crate::core::wire::sse::SseParser;
use crate::job::{self, AttachOptions, Attached, EventSelection, Registry, SyncRequest, Watcher};
use crate::ledger::{Ledger, LedgerOptions, SystemClock};

/// The configuration, and in it the backend at `url`. A configured API key is sent to no other URL than its own.
fn configured(flags: &Flags, url: &BackendUrl) -> Result<(Config, BackendConfig), ConfigError> {
    let found = Config::load(&Flags { backend: None, ..flags.clone() }, environment());
    let mut has_several = false;
    if let Ok(config) = found {
        if let Some(backend) = config.backends.iter().find(|backend| backend.url == *url).cloned() {
            return Ok((config, backend));
        }
        has_several = config.backends.len() > 1;
    }
    // The settings of which of several backends apply to another URL is not known.
    let file = flags.config.clone().filter(|_| !has_several);
    let flags = Flags { config: file, backend: Some(url.to_string()), ..flags.clone() };
    let variables = environment().filter(|(name, _)| !has_several || name != CONFIG_VARIABLE);
    let config = Config::load(&flags, variables)?;
    let backend = BackendConfig { api_key: None, ..config.backends[0].clone() };
    Ok((config, backend))
}

/// A job in this process.
pub(super) struct LocalJob {
    registry: Arc<Registry>,
    watcher: Watcher,
    parser: SseParser,
    read: VecDeque<JobEvent>,
}

impl LocalJob {
    /// Starts the sync of `kind` on the backend at `url`.
    pub(super) async fn start(
        flags: &Flags,
        url: &BackendUrl,
        kind: Kind,
        query: &str,
        key: Option<ApiKey>,
    ) -> anyhow::Result<Self> {
        let (config, backend) = configured(flags, url)?;
        let config = Config { data_dir: None, backends: vec![backend.clone()], ..config };
        let backend = Arc::new(Backend::new(backend)?);
        let ledger = Ledger::open(LedgerOptions {
            directory: None,
            retention: job::retention(&config.limits),
            log_frames: config.jobs.log_frames,
            busy_timeout: Duration::ZERO,
            clock: Arc::new(SystemClock),
            notifications: Vec::new(),
        });
        let registry = Registry::new(Arc::new(config), ledger.await?);
        let query = Query::parse(query).map_err(|error| anyhow!("--query: {error}"))?;
        let request = SyncRequest {
            endpoint: SyncEndpoint::for_kind(kind),
            query: query.backend_query,
            selection: EventSelection {
                all_events: query.parameters.all_events,
                payloads: query.parameters.payloads,
            },
            over_socket: false,
            to_stream: false,
            identity: RequestIdentity {
                key: key.or_else(|| backend.config().api_key.clone()),
                ..Default::default()
            },
            address: None,
            actor: None,
            backend,
        };
        let Attached::Watching(watcher) = registry.attach(request, AttachOptions::default()).await? else {
            bail!("the sync did not start");
        };
        if let Err(refusal) = watcher.started().await {
            return Err(SyncError::Failed(match refusal.body {
                RefusalBody::Bridge { message, detail } => format!("{message} {detail}"),
                RefusalBody::Backend(body) => text_of_body(&body).unwrap_or_default(),
            })
            .into());
        }
        Ok(Self { registry, watcher, parser: SseParser::new(MAX_EVENT_BYTES), read: VecDeque::new() })
    }

    /// The next event; `None` after the last one. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<JobEvent> {
        loop {
            if let Some(event) = self.read.pop_front() {
                return Some(event);
            }
            for logged in self.watcher.cursor.next().await?.frames {
                self.read.extend(parse_events(&mut self.parser, &logged.frame.with_payload()));
            }
        }
    }

    /// Cancels the job.
    pub(super) fn cancel(&self) {
        self.watcher.job.cancel(None);
    }

    /// How the job ended.
    pub(super) async fn result(&self) -> Option<JobResult> {
        self.registry.idle().await;
        let record = self.watcher.job.public_record();
        let end = record.end?;
        let error = end.failure.map(|failure| failure.detail).unwrap_or_default();
        Some(JobResult { outcome: end.outcome, error, counts: record.progress.counts })
    }
}
