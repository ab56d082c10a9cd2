//! Detects the capabilities of the backend, and plans how to drive it.

use crate::backend::{KeyAttempt, ScopedQuery};
use crate::config::ShimsConfig;
use crate::core::compat::plugin::{Inventory, cannot_read};
use crate::core::compat::scope::{cannot_detect_end, harms_others, prunes, prunes_nothing};
use crate::core::compat::{Shim, ShimAction, options, overlooks_deleted};
use crate::core::domain::channel::{Channel, ChannelChoice};
use crate::core::domain::counting::CountSource;
use crate::core::domain::kind::{Kind, PluginStage};
use crate::core::domain::outcome::Cause;
use crate::core::domain::refusal::Refusal;
use crate::core::domain::release::Release;
use crate::core::run::capabilities::{Capabilities, FIRST_WITH_KEY};
use crate::core::run::normalizer::NormalizerOptions;
use crate::core::run::plan::{NoChannel, RunPlan, plan};
use crate::core::run::policy::UnsupportedPolicy;
use crate::core::run::session::{SessionLimits, SessionSetup};
use crate::core::upstream::dialect::Dialect;
use crate::job::clients::ClientId;
use crate::job::handle::{Job, StopSignal};
use crate::job::registry::Registry;
use crate::job::request::SyncRequest;
use crate::telemetry;

/// The plan of a job.
pub(super) enum Preparation {
    /// Drive the backend.
    Drive {
        /// The setup of the session.
        setup: Box<SessionSetup>,
        /// The release of the backend, if known.
        release: Option<Release>,
        /// The client's query, in the vocabulary of that release.
        query: String,
    },
    /// Refuse the job.
    Refuse(Refusal),
    /// Complete the job without work.
    Skip {
        /// The reason, unless the backend merely lacks this sync.
        why: Option<String>,
    },
    /// End the job.
    Stop(Cause),
}

/// Plans `job`. Its key is used here for the first time, which `key_attempt` stands for.
pub(super) async fn prepare(
    registry: &Registry,
    job: &Job,
    stopping: &mut StopSignal,
    request: &SyncRequest,
    key_attempt: &mut Option<KeyAttempt>,
) -> Preparation {
    tokio::select! {
        biased;
        cause = stopping.cause() => Preparation::Stop(cause),
        approach = choose_plan(registry, job, request, key_attempt) => approach.unwrap_or_else(Preparation::Refuse),
    }
}

async fn choose_plan(
    registry: &Registry,
    job: &Job,
    request: &SyncRequest,
    key_attempt: &mut Option<KeyAttempt>,
) -> Result<Preparation, Refusal> {
    let config = request.backend.config();
    let limits = &config.limits;
    let retry_after = limits.retry_after.as_secs();
    let (endpoint, identity) = (request.endpoint, &request.identity);
    // The backend may have been blocked while the job was queued.
    if let Some(why) = registry.resolve_blocked(&request.backend).await {
        return Err(Refusal::awaits_restart(&why, retry_after));
    }
    if let Some(client) = request.client() {
        *key_attempt = request.backend.admit(client, job.key.credential()).await?;
    }
    let choice = config.channel;
    let (choice, known) = match over_socket(job, request, choice, key_attempt).await? {
        Some(known) => (ChannelChoice::Only(Channel::Websocket), known),
        None => (choice, capabilities(job, request, choice, key_attempt).await?),
    };
    if known.wants_key() == Some(true) && identity.key.is_none() {
        return Err(Refusal::key_missing());
    }
    let client = ClientId::from_request(request, &job.key);
    let is_stage = request.to_stream && endpoint.vm.is_none();
    let is_part = is_stage && registry.clients.note_stage(client.clone(), endpoint.kind);
    let later_stage = is_part.then_some(endpoint.kind.row().plugin);
    let plan = match plan(endpoint, &known, choice) {
        Ok(plan) => plan,
        Err(_) if is_skipped(request, known.release, later_stage) => {
            return Ok(Preparation::Skip { why: None });
        }
        Err(unsupported) => return self::unsupported(request, unsupported).await,
    };
    let shims = &job.config.shims;
    // The plan of a client without a key does not need the release.
    let is_needed = !request.query.is_empty() || endpoint.kind == Kind::VirtualMachines;
    let release = match known.release {
        None if is_needed => request.backend.release(identity).await?,
        // Without the release, fewer of the backend's counts can be relied on.
        None if CountSource::depends_on_release(endpoint.kind) => {
            request.backend.release(identity).await.ok().flatten()
        }
        release => release,
    };
    let has_socket = plan.legs.iter().any(|leg| leg.channel == Channel::Websocket);
    let endless = cannot_detect_end(known.release, request.backend.proxmox.count());
    if let Some(why) = endless.filter(|_| has_socket) {
        return Err(Refusal::cannot_detect_end(&why));
    }
    let harm = plan.legs.iter().find_map(|leg| harms_others(leg.endpoint.kind, release));
    let query = match scope_query(request, release, harm, shims).await? {
        ScopedQuery::Unchanged => request.query.clone(),
        ScopedQuery::Rewritten(query) => query,
        ScopedQuery::Harmful(why) if is_skipped(request, release, later_stage) => {
            return Ok(Preparation::Skip { why: Some(why) });
        }
        ScopedQuery::Harmful(why) => return Err(Refusal::harms_others(&why)),
    };
    let mut notices = notices(request, release, &plan, shims, &registry.clients.missing(client.clone()))?;
    if prunes(&request.query) && !prunes(&query) {
        notices.push(prunes_nothing(release));
    }
    let mut sockets = plan.legs.iter().filter(|leg| leg.channel == Channel::Websocket);
    let has_machines = sockets.any(|leg| leg.kinds.contains(&Kind::VirtualMachines));
    let guests = match known.dialect().filter(|dialect| dialect.confirms_each() && has_machines) {
        // The backend sends no event for a guest that it cannot read.
        Some(_) => request.backend.guests(&query, identity).await,
        None => Vec::new(),
    };
    if has_socket && known.dialect() == Some(Dialect::V0_0_2) {
        request.backend.clear_cache(identity).await;
    }
    let setup = SessionSetup {
        endpoint,
        plan,
        options: options(job, request),
        limits: SessionLimits {
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
        notices: registry.clients.new_notices(client, notices),
        guests,
    };
    Ok(Preparation::Drive { setup: Box::new(setup), release, query })
}

/// Translates the Proxmox endpoints in the client's query for the backend.
async fn scope_query(
    request: &SyncRequest,
    release: Option<Release>,
    harm: Option<String>,
    shims: &ShimsConfig,
) -> Result<ScopedQuery, Refusal> {
    let SyncRequest { backend, query, identity, endpoint, .. } = request;
    let shim = Shim::Scope;
    if !shims.is_on(shim) {
        return Ok(ScopedQuery::Unchanged);
    }
    let scoped = backend.scope_query(query, release, identity, harm).await;
    let action = match &scoped {
        Ok(ScopedQuery::Unchanged) => None,
        Ok(ScopedQuery::Rewritten(_)) => Some(ShimAction::Translated),
        Ok(ScopedQuery::Harmful(_)) => Some(ShimAction::Refused),
        Err(refusal) => (refusal.cause == Cause::Unsupported).then_some(ShimAction::Refused),
    };
    if let Some(action) = action {
        telemetry::RequestShimmed { shim, action, path: &endpoint.stream_path() }.emit();
    }
    scoped
}

/// The notices for readers before the work begins.
fn notices(
    request: &SyncRequest,
    release: Option<Release>,
    plan: &RunPlan,
    shims: &ShimsConfig,
    missing: &[Inventory],
) -> Result<Vec<String>, Refusal> {
    let SyncRequest { query, endpoint, .. } = request;
    let mut notices: Vec<String> =
        cannot_read(missing, release).into_iter().chain(overlooks_deleted(release)).collect();
    let shim = Shim::Options;
    if !shims.is_on(shim) {
        return Ok(notices);
    }
    let path = endpoint.stream_path();
    if let Some(why) = options::loses_branch(query, plan, release) {
        telemetry::RequestShimmed { shim, action: ShimAction::Refused, path: &path }.emit();
        return Err(Refusal::loses_branch(&why));
    }
    if let Some(release) = release {
        // Options cannot be sent over /ws.
        let over_socket = plan.legs.iter().any(|leg| leg.channel == Channel::Websocket);
        let ignored = options::ignored(query, if over_socket { Release::default() } else { release });
        if let Some(notice) = options::notice(&ignored, release) {
            telemetry::RequestShimmed { shim, action: ShimAction::Completed, path: &path }.emit();
            notices.push(notice);
        }
    }
    Ok(notices)
}

/// Returns whether a sync that the backend does not support completes successfully. `later_stage` is set for the later
/// stages of a plugin job.
fn is_skipped(request: &SyncRequest, release: Option<Release>, later_stage: Option<PluginStage>) -> bool {
    match request.backend.config().unsupported {
        UnsupportedPolicy::Skip => true,
        UnsupportedPolicy::Refuse => false,
        // Later releases have every such stage: a missing one there means that the backend itself is unreachable.
        UnsupportedPolicy::Auto => {
            let is_old = release.is_some_and(|release| release < FIRST_WITH_KEY);
            is_old && later_stage == Some(PluginStage::Required)
        }
    }
}

/// Reads the required capabilities of the backend. An answer to the key ends its trial.
async fn capabilities(
    job: &Job,
    request: &SyncRequest,
    choice: ChannelChoice,
    key_attempt: &mut Option<KeyAttempt>,
) -> Result<Capabilities, Refusal> {
    let SyncRequest { backend, endpoint, identity, .. } = request;
    let (capabilities, is_accepted) = backend.capabilities_and_key(*endpoint, choice, identity).await?;
    if is_accepted {
        backend.gate.accept(job.key.credential());
        *key_attempt = None;
    }
    Ok(capabilities)
}

/// The known capabilities, if the client prefers the backend's `/ws` and it supports the sync.
async fn over_socket(
    job: &Job,
    request: &SyncRequest,
    choice: ChannelChoice,
    key_attempt: &mut Option<KeyAttempt>,
) -> Result<Option<Capabilities>, Refusal> {
    if !request.over_socket || choice != ChannelChoice::Auto {
        return Ok(None);
    }
    let socket = ChannelChoice::Only(Channel::Websocket);
    let capabilities = capabilities(job, request, socket, key_attempt).await?;
    // An unknown release may refuse the handshake when no other channel can be tried.
    let is_known = capabilities.dialect().is_some();
    Ok(plan(request.endpoint, &capabilities, socket).is_ok_and(|_| is_known).then_some(capabilities))
}

async fn unsupported(request: &SyncRequest, unsupported: NoChannel) -> Result<Preparation, Refusal> {
    let config = request.backend.config();
    // The refusal lists the available syncs, which takes more requests.
    let capabilities = request.backend.all_capabilities(&request.identity).await;
    let now =
        capabilities.and_then(|capabilities| plan(request.endpoint, &capabilities, config.channel).err());
    Err(Refusal::unsupported(now.unwrap_or(unsupported).to_string()))
}

/// The normalizer options of the operator and the client.
pub(super) fn options(job: &Job, request: &SyncRequest) -> NormalizerOptions {
    NormalizerOptions {
        object_failures: request.backend.config().object_failures.clone(),
        all_events: request.selection.all_events,
        payloads: request.selection.payloads,
        redactor: job.redactor.clone(),
    }
}
