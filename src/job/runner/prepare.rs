//! Learning what the backend can do, and choosing how to drive it.

use std::time::Duration;

use crate::backend::{Known, Scoped, Trial};
use crate::config::Shims;
use crate::core::compat::plugin::{Inventory, cannot_read};
use crate::core::compat::scope::{cannot_tell_end, harms_others, prunes, prunes_nothing};
use crate::core::compat::{Action, Shim, options, overlooks_deleted};
use crate::core::domain::channel::{Channel, Choice};
use crate::core::domain::counting::Counting;
use crate::core::domain::kind::{Kind, PluginStage};
use crate::core::domain::outcome::Cause;
use crate::core::domain::refusal::Refusal;
use crate::core::domain::release::Release;
use crate::core::run::capabilities::{Capabilities, FIRST_WITH_KEY};
use crate::core::run::normalizer::Options;
use crate::core::run::plan::{Plan, Unsupported, plan};
use crate::core::run::policy::Unsupported as WhenUnsupported;
use crate::core::run::session::{Limits, Setup};
use crate::core::upstream::dialect::Dialect;
use crate::job::clients::ClientId;
use crate::job::handle::{Job, Stopping};
use crate::job::registry::Registry;
use crate::job::request::Request;
use crate::telemetry;

/// How a job is to be done.
pub(super) enum Approach {
    /// Like this.
    Drive {
        /// How.
        setup: Box<Setup>,
        /// The backend's release, if it is known.
        release: Option<Release>,
        /// The client's query, in the words of that release.
        query: String,
    },
    /// Not at all.
    Refuse(Refusal),
    /// Not at all, and that is fine.
    Skip {
        /// Why, if it is not that the backend has no such sync.
        why: Option<String>,
    },
    /// Not any more.
    Stop(Cause),
}

/// Chooses how to do `job`. Its key is tried for the first time here, and `trial` stands for that.
pub(super) async fn approach(
    registry: &Registry,
    job: &Job,
    stopping: &mut Stopping,
    request: &Request,
    trial: &mut Option<Trial>,
) -> Approach {
    tokio::select! {
        biased;
        cause = stopping.cause() => Approach::Stop(cause),
        approach = choose(registry, job, request, trial) => approach.unwrap_or_else(Approach::Refuse),
    }
}

async fn choose(
    registry: &Registry,
    job: &Job,
    request: &Request,
    trial: &mut Option<Trial>,
) -> Result<Approach, Refusal> {
    let config = request.backend.config();
    let limits = &config.limits;
    let retry_after = limits.retry_after.as_secs();
    let (endpoint, identity) = (request.endpoint, &request.identity);
    // It may have come to that while the job waited.
    if let Some(why) = registry.look_up_held(&request.backend).await {
        return Err(Refusal::awaits_restart(&why, retry_after));
    }
    if let Some(client) = request.client() {
        let admitted = request.backend.admit(client, job.key.credential()).await;
        *trial = admitted.map_err(|known| held_back(identity.key.is_some(), &known))?;
    }
    let choice = config.channel;
    let (choice, known) = match over_socket(job, request, choice, trial).await? {
        Some(known) => (Choice::Only(Channel::Websocket), known),
        None => (choice, capabilities(job, request, choice, trial).await?),
    };
    if known.wants_key() == Some(true) && identity.key.is_none() {
        return Err(Refusal::key_missing());
    }
    let client = ClientId::of(request, &job.key);
    let is_stage = request.to_stream && endpoint.vm.is_none();
    let is_part = is_stage && registry.clients.runs(client.clone(), endpoint.kind);
    let plan = match plan(endpoint, &known, choice) {
        Ok(plan) => plan,
        Err(_) if is_skipped(request, known.release, is_part) => return Ok(Approach::Skip { why: None }),
        Err(unsupported) => return self::unsupported(request, unsupported).await,
    };
    let shims = &job.config.shims;
    // Of a client without a key, the plan does not need it.
    let is_needed = !request.query.is_empty() || endpoint.kind == Kind::VirtualMachines;
    let release = match known.release {
        None if is_needed => request.backend.release(identity).await?,
        // Without it, less of what the backend counts is believed.
        None if Counting::depends_on_release(endpoint.kind) => {
            request.backend.release(identity).await.ok().flatten()
        }
        release => release,
    };
    let has_socket = plan.legs.iter().any(|leg| leg.channel == Channel::Websocket);
    let endless = cannot_tell_end(known.release, request.backend.proxmox.count());
    if let Some(why) = endless.filter(|_| has_socket) {
        return Err(Refusal::cannot_tell_end(&why));
    }
    let harm = plan.legs.iter().find_map(|leg| harms_others(leg.endpoint.kind, release));
    let query = match (scoped(request, release, harm.is_some(), shims).await?, harm) {
        (Scoped::AsGiven, _) => request.query.clone(),
        (Scoped::Changed(query), _) => query,
        (Scoped::Harmful, why) if is_skipped(request, release, is_part) => return Ok(Approach::Skip { why }),
        (Scoped::Harmful, why) => return Err(Refusal::harms_others(&why.unwrap_or_default())),
    };
    let mut notices = notices(request, release, &plan, shims, &registry.clients.missing(client.clone()))?;
    if prunes(&request.query) && !prunes(&query) {
        notices.push(prunes_nothing(release));
    }
    let mut sockets = plan.legs.iter().filter(|leg| leg.channel == Channel::Websocket);
    let has_machines = sockets.any(|leg| leg.kinds.contains(&Kind::VirtualMachines));
    let guests = match known.dialect().filter(|dialect| dialect.confirms_each() && has_machines) {
        // It says nothing of those that it cannot read.
        Some(_) => request.backend.guests(&query, identity).await,
        None => Vec::new(),
    };
    if has_socket && known.dialect() == Some(Dialect::V0_0_2) {
        request.backend.clear_cache(identity).await;
    }
    let setup = Setup {
        endpoint,
        plan,
        options: options(job, request),
        limits: Limits {
            accept_wait: limits.accept_wait,
            response_head: limits.response_head,
            idle: limits.idle,
            total: limits.total,
            settle: limits.settle,
            settle_total: limits.settle_total,
            retry_after,
            event_bytes: limits.event_bytes,
        },
        release,
        dialect: known.dialect(),
        credential: identity.key.clone(),
        run_id: job.id.to_string(),
        notices: registry.clients.untold(client, notices),
        guests,
    };
    Ok(Approach::Drive { setup: Box::new(setup), release, query })
}

/// The client's query, with the Proxmox endpoints that it names as the backend understands them.
async fn scoped(
    request: &Request,
    release: Option<Release>,
    is_harmful: bool,
    shims: &Shims,
) -> Result<Scoped, Refusal> {
    let Request { backend, query, identity, endpoint, .. } = request;
    let shim = Shim::Scope;
    if !shims.is_on(shim) {
        return Ok(Scoped::AsGiven);
    }
    let scoped = backend.scoped(query, release, identity, is_harmful).await;
    let action = match &scoped {
        Ok(Scoped::AsGiven) => None,
        Ok(Scoped::Changed(_)) => Some(Action::Translated),
        Ok(Scoped::Harmful) => Some(Action::Refused),
        Err(refusal) => (refusal.cause == Cause::Unsupported).then_some(Action::Refused),
    };
    if let Some(action) = action {
        telemetry::Shimmed { shim, action, path: &endpoint.stream_path() }.emit();
    }
    scoped
}

/// What readers are told before the work begins.
fn notices(
    request: &Request,
    release: Option<Release>,
    plan: &Plan,
    shims: &Shims,
    missing: &[Inventory],
) -> Result<Vec<String>, Refusal> {
    let Request { query, endpoint, .. } = request;
    let mut notices: Vec<String> =
        cannot_read(missing, release).into_iter().chain(overlooks_deleted(release)).collect();
    let shim = Shim::Options;
    if !shims.is_on(shim) {
        return Ok(notices);
    }
    let path = endpoint.stream_path();
    if let Some(why) = options::loses_branch(query, plan, release) {
        telemetry::Shimmed { shim, action: Action::Refused, path: &path }.emit();
        return Err(Refusal::loses_branch(&why));
    }
    if let Some(release) = release {
        // No option reaches a backend over /ws.
        let over_socket = plan.legs.iter().any(|leg| leg.channel == Channel::Websocket);
        let ignored = options::ignored(query, if over_socket { Release::default() } else { release });
        if let Some(notice) = options::notice(&ignored, release) {
            telemetry::Shimmed { shim, action: Action::Completed, path: &path }.emit();
            notices.push(notice);
        }
    }
    Ok(notices)
}

/// Whether a sync that the backend cannot run ends well. `is_part` says that it is a later stage of one job.
fn is_skipped(request: &Request, release: Option<Release>, is_part: bool) -> bool {
    match request.backend.config().unsupported {
        WhenUnsupported::Skip => true,
        WhenUnsupported::Refuse => false,
        // Younger ones have every such stage: what seems to be missing there is the backend itself.
        WhenUnsupported::Auto => {
            let is_old = release.is_some_and(|release| release < FIRST_WITH_KEY);
            is_part && is_old && request.endpoint.kind.row().plugin == PluginStage::Required
        }
    }
}

/// What must be known of the backend. If it has answered with the key, the trial of that is over.
async fn capabilities(
    job: &Job,
    request: &Request,
    choice: Choice,
    trial: &mut Option<Trial>,
) -> Result<Capabilities, Refusal> {
    let Request { backend, endpoint, identity, .. } = request;
    let retry_after = backend.limits().retry_after.as_secs();
    let learned = backend.capabilities_and_key(*endpoint, choice, identity, retry_after).await;
    let (known, is_accepted) = learned?;
    if is_accepted {
        backend.shield.accept(job.key.credential());
        *trial = None;
    }
    Ok(known)
}

/// What is known of the backend, if the client prefers its `/ws` and that can do it.
async fn over_socket(
    job: &Job,
    request: &Request,
    choice: Choice,
    trial: &mut Option<Trial>,
) -> Result<Option<Capabilities>, Refusal> {
    if !request.over_socket || choice != Choice::Auto {
        return Ok(None);
    }
    let socket = Choice::Only(Channel::Websocket);
    let known = capabilities(job, request, socket, trial).await?;
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
        Known::Unanswered { after } => {
            Refusal::key_unanswered(&humantime::format_duration(*after).to_string())
        }
        Known::WrongKeys { again } => Refusal::wrong_keys(whole(again)),
    }
}

async fn unsupported(request: &Request, unsupported: Unsupported) -> Result<Approach, Refusal> {
    let config = request.backend.config();
    // The client is told what there is instead, and that takes more questions.
    let known = request.backend.all_capabilities(&request.identity).await;
    let now = known.and_then(|known| plan(request.endpoint, &known, config.channel).err());
    Err(Refusal::unsupported(now.unwrap_or(unsupported).to_string()))
}

/// What the operator and the client want of the stream.
pub(super) fn options(job: &Job, request: &Request) -> Options {
    Options {
        object_failures: request.backend.config().object_failures.clone(),
        all_events: request.all_events,
        payloads: request.payloads,
        redactor: job.redactor.clone(),
    }
}
