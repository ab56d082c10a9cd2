//! Learning what the backend can do, and choosing how to drive it.

use std::time::Duration;

use crate::backend::Known;
use crate::config::Unsupported as WhenUnsupported;
use crate::core::capabilities::Capabilities;
use crate::core::channel::{Channel, Choice};
use crate::core::normalizer::Options;
use crate::core::outcome::Cause;
use crate::core::plan::{Unsupported, plan};
use crate::core::refusal::Refusal;
use crate::core::release::Release;
use crate::core::session::{Limits, Setup};
use crate::job::handle::{Job, Stopping};
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
pub(super) async fn approach(job: &Job, stopping: &mut Stopping, request: &Request) -> Approach {
    tokio::select! {
        biased;
        cause = stopping.cause() => Approach::Stop(cause),
        approach = choose(job, request) => approach.unwrap_or_else(Approach::Refuse),
    }
}

async fn choose(job: &Job, request: &Request) -> Result<Approach, Refusal> {
    let config = request.backend.config();
    let limits = &config.limits;
    let retry_after = limits.retry_after.as_secs();
    let (endpoint, identity) = (request.endpoint, &request.identity);
    if let Some(known) = request.backend.shield.knows(request.client(), job.key.credential()) {
        return Err(held_back(identity.key.is_some(), &known));
    }
    let choice = config.channel;
    let (choice, known) = match over_socket(request, choice).await? {
        Some(known) => (Choice::Only(Channel::Websocket), known),
        None => (choice, request.backend.capabilities(endpoint, choice, identity, retry_after).await?),
    };
    if known.wants_key() == Some(true) && identity.key.is_none() {
        return Err(Refusal::key_missing());
    }
    let plan = match plan(endpoint, &known, choice) {
        Ok(plan) => plan,
        Err(unsupported) => return self::unsupported(request, unsupported).await,
    };
    let setup = Setup {
        endpoint,
        plan,
        options: options(request),
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

/// What is known of the backend, if the client prefers its `/ws` and that can do it.
async fn over_socket(request: &Request, choice: Choice) -> Result<Option<Capabilities>, Refusal> {
    if !request.over_socket || choice != Choice::Auto {
        return Ok(None);
    }
    let socket = Choice::Only(Channel::Websocket);
    let retry_after = request.backend.limits().retry_after.as_secs();
    let asked = request.backend.capabilities(request.endpoint, socket, &request.identity, retry_after);
    let known = asked.await?;
    // A release that is not known may refuse the handshake, when it is too late for anything else.
    let is_known = known.dialect().is_some();
    Ok(plan(request.endpoint, &known, socket).is_ok_and(|_| is_known).then_some(known))
}

/// The answer to a client that the backend would not answer well.
pub fn held_back(has_key: bool, known: &Known) -> Refusal {
    // Whole seconds, and not too early.
    let whole = |time: &Duration| time.as_secs() + u64::from(time.subsec_nanos() > 0);
    match known {
        Known::Refused { again } => Refusal::refused_before(has_key, whole(again)),
        Known::Limited { again } => Refusal::told_to_wait(whole(again)),
    }
}

async fn unsupported(request: &Request, unsupported: Unsupported) -> Result<Approach, Refusal> {
    let config = request.backend.config();
    if config.unsupported == WhenUnsupported::Skip {
        return Ok(Approach::Skip);
    }
    // The client is told what there is instead, and that takes more questions.
    let known = request.backend.all_capabilities(&request.identity).await;
    let now = known.and_then(|known| plan(request.endpoint, &known, config.channel).err());
    Err(Refusal::unsupported(request.endpoint.kind, now.unwrap_or(unsupported).to_string()))
}

/// What the operator and the client want of the stream.
pub(super) fn options(request: &Request) -> Options {
    Options {
        object_failures: request.backend.config().object_failures,
        all_events: request.all_events,
        payloads: request.payloads,
    }
}
