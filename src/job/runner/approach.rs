//! Learning what the backend can do, and choosing how to drive it.

use crate::config::Unsupported as WhenUnsupported;
use crate::core::normalizer::Options;
use crate::core::outcome::Cause;
use crate::core::plan::{Unsupported, plan};
use crate::core::refusal::Refusal;
use crate::core::release::Release;
use crate::core::session::{Limits, Setup};
use crate::job::handle::{Job, Stopping};
use crate::job::registry::Registry;
use crate::job::request::Request;

/// How a job is to be done.
pub(super) enum Approach {
    /// Like this, on a backend of this release.
    Drive(Box<Setup>, Option<Release>),
    /// Not at all.
    Refuse(Refusal),
    /// Not at all, and that is fine.
    Skip,
    /// Not any more.
    Stop(Cause),
}

/// Chooses how to do `job`.
pub(super) async fn approach(
    registry: &Registry,
    job: &Job,
    stopping: &mut Stopping,
    request: &Request,
) -> Approach {
    tokio::select! {
        biased;
        cause = stopping.cause() => Approach::Stop(cause),
        approach = choose(registry, job, request) => approach.unwrap_or_else(Approach::Refuse),
    }
}

async fn choose(registry: &Registry, job: &Job, request: &Request) -> Result<Approach, Refusal> {
    let config = &registry.config;
    let limits = &config.limits;
    let retry_after = limits.retry_after.as_secs();
    let (endpoint, identity) = (request.endpoint, &request.identity);
    let choice = config.backend.channel;
    let known = request.backend.capabilities(endpoint, choice, identity, retry_after).await?;
    if known.wants_key() == Some(true) && identity.key.is_none() {
        return Err(Refusal::key_missing());
    }
    let plan = match plan(endpoint, &known, choice) {
        Ok(plan) => plan,
        Err(unsupported) => return self::unsupported(registry, request, unsupported).await,
    };
    let setup = Setup {
        endpoint,
        plan,
        options: options(registry, request),
        limits: Limits {
            accept_wait: limits.accept_wait,
            response_head: limits.response_head,
            idle: limits.idle,
            total: limits.total,
            settle: limits.settle,
            retry_after,
            event_bytes: limits.event_bytes,
        },
        dialect: known.dialect(),
        credential: identity.key.clone(),
        run_id: job.id.to_string(),
    };
    Ok(Approach::Drive(Box::new(setup), known.release))
}

async fn unsupported(
    registry: &Registry,
    request: &Request,
    unsupported: Unsupported,
) -> Result<Approach, Refusal> {
    let config = &registry.config.backend;
    if config.unsupported == WhenUnsupported::Skip {
        return Ok(Approach::Skip);
    }
    // The client is told what there is instead, and that takes more questions.
    let known = request.backend.all_capabilities(&request.identity).await;
    let now = known.and_then(|known| plan(request.endpoint, &known, config.channel).err());
    Err(Refusal::unsupported(request.endpoint.kind, now.unwrap_or(unsupported).to_string()))
}

/// What the operator and the client want of the stream.
pub(super) fn options(registry: &Registry, request: &Request) -> Options {
    Options {
        object_failures: registry.config.backend.object_failures,
        all_events: request.all_events,
        payloads: request.payloads,
    }
}
