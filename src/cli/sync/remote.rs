//! The job of a running bridge.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method};
use serde::Deserialize;

use super::JobResult;
use crate::client::{BridgeClient, BridgeError, JobEvents};
use crate::core::domain::counts::{Count, Counts};
use crate::core::domain::credential::ApiKey;
use crate::core::domain::kind::Kind;
use crate::core::domain::object::Object;
use crate::core::domain::outcome::Outcome;

const API_KEY: HeaderName = HeaderName::from_static("x-proxbox-api-key");

/// The job of a running bridge.
pub(super) struct RemoteJob {
    client: BridgeClient,
    pub(super) id: String,
    /// The job, as the bridge answered.
    pub(super) object: String,
    /// Whether the job did not run before.
    pub(super) is_own: bool,
    user: Option<String>,
    created: String,
    pub(super) events: JobEvents,
}

/// What is read of a job.
#[derive(Deserialize)]
struct JobObject {
    id: String,
    user: Option<String>,
    created: String,
    attaches: u64,
    outcome: Option<String>,
    error: String,
    data: JobData,
}

#[derive(Deserialize)]
struct JobData {
    counts: BTreeMap<String, Count>,
}

impl RemoteJob {
    /// Starts the sync of `kind`, or attaches to the running one.
    pub(super) async fn start(
        client: BridgeClient,
        kind: Kind,
        query: &str,
        key: Option<ApiKey>,
        retry_for: Duration,
    ) -> anyhow::Result<Self> {
        let headers = key.map(|key| Ok((API_KEY, key.header()?))).transpose();
        let headers: HeaderMap = headers.map_err(|error: http::Error| error)?.into_iter().collect();
        let target = format!("{}{}{query}", kind.queue_path(), if query.is_empty() { "" } else { "?" });
        let object = client.call(Method::POST, &target, headers).await?;
        let JobObject { id, user, created, attaches, .. } = serde_json::from_slice(&object)?;
        let all_events = query.split('&').find(|part| *part == "bridge.events=all").unwrap_or_default();
        let events = JobEvents::new(client.clone(), &id, all_events, retry_for);
        let object = String::from_utf8_lossy(&object).into_owned();
        // A new job has its first client alone.
        Ok(Self { client, id, object, is_own: attaches == 0, user, created, events })
    }

    /// What is known of the job before its first event.
    pub(super) fn greeting(&self) -> String {
        let Self { id, is_own, user, created, .. } = self;
        match user {
            _ if *is_own => format!("Started job {id}."),
            Some(user) => format!("Attached to job {id}, which {user} started at {created}."),
            None => format!("Attached to job {id}, which was started at {created}."),
        }
    }

    /// Cancels the job.
    pub(super) fn cancel(&self) -> impl Future<Output = Result<(), BridgeError>> + Send + use<> {
        let (client, target) = (self.client.clone(), format!("/jobs/{}", self.id));
        async move { client.call(Method::DELETE, &target, HeaderMap::new()).await.map(drop) }
    }

    /// How the job ended, if the bridge knows that.
    pub(super) async fn result(&self) -> Option<JobResult> {
        let job: JobObject = self.client.get(&format!("/jobs/{}", self.id)).await.ok()?;
        let outcome = Outcome::from_name(&job.outcome?)?;
        let counts = job.data.counts.into_iter();
        let counts = counts.filter_map(|(object, count)| Some((Object::from_name(&object)?, count)));
        Some(JobResult { outcome, error: job.error, counts: Counts(counts.collect()) })
    }
}
