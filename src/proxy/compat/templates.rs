//! The list of guests by which the plugin deletes VM templates (see [`crate::core::compat::resources`]).

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::ext::ReasonPhrase;

use super::upstream::{self, BackendRequest, send};
use super::{count_shim, with_shim_header};
use crate::core::compat::resources::{
    Guest, InvalidList, Resources, drops_template, mistakes_type, templates_of_node,
};
use crate::core::compat::scope::{parameters, without_parameter};
use crate::core::compat::{Shim, ShimAction, release_name};
use crate::core::domain::release::Release;
use crate::proxy::credentials::request_key;
use crate::proxy::request::RequestContext;
use crate::respond::{self, Body};

const PATH: &str = "/proxmox/cluster/resources";
/// How many requests for single guests run at once.
const MAX_CONCURRENT: usize = 8;

/// Returns whether the request reads guests.
pub(super) fn matches(method: &Method, path: &str, query: &str) -> bool {
    let kind = parameters(query).filter(|(name, _)| name == "type").last();
    method == Method::GET && path == PATH && kind.is_some_and(|(_, kind)| kind == "vm")
}

/// The corrected list, if `release` returns a wrong one. An unknown release may do so.
pub(super) async fn answer(
    context: &RequestContext,
    parts: &Parts,
    release: Option<Release>,
) -> Option<Response<Body>> {
    let drops = release.is_some_and(drops_template);
    let is_wrong = drops || release.is_none_or(mistakes_type);
    if !context.state.config.shims.is_on(Shim::Templates) || !is_wrong {
        return None;
    }
    let query = without_parameter(parts.uri.query().unwrap_or_default(), "type");
    let response = send(context, parts, BackendRequest::get(&target(PATH, &query))).await;
    if !response.status().is_success() {
        return Some(response);
    }
    let key = request_key(&parts.headers);
    context.proxy.app.registry.begins_job(&context.backend, key.as_ref(), context.forwarded.client);
    let (head, body) = match upstream::collect(context, response).await {
        Ok(whole) => whole,
        Err(broken) => return Some(broken),
    };
    let list = parse_list(&body);
    let completed = match list {
        Ok(list) if drops => complete_list(context, parts, &query, list).await,
        Ok(list) => list.validate().map(|()| list).map_err(CompletionError::InvalidList),
        Err(untrue) => Err(CompletionError::InvalidList(untrue)),
    };
    Some(match completed {
        Ok(list) => {
            let action = if drops { ShimAction::Completed } else { ShimAction::Translated };
            count_shim(Shim::Templates, action, PATH);
            with_shim_header(
                upstream::rebuild(head, Bytes::from(list.to_json().to_string())),
                Shim::Templates,
            )
        }
        Err(CompletionError::InvalidList(untrue)) => refusal_response(release, &untrue),
        Err(CompletionError::Busy(response)) => *response,
    })
}

fn parse_list(body: &[u8]) -> Result<Resources, InvalidList> {
    let mut list = Resources::parse(body)?;
    list.retain_guests()?;
    Ok(list)
}

/// Why a list could not be completed.
enum CompletionError {
    /// The backend does not provide the necessary data.
    InvalidList(InvalidList),
    /// The backend is temporarily unavailable. This is its response to one of the requests.
    Busy(Box<Response<Body>>),
}

/// Completes `list` with the data of the nodes for each guest.
async fn complete_list(
    context: &RequestContext,
    parts: &Parts,
    query: &str,
    mut list: Resources,
) -> Result<Resources, CompletionError> {
    let mut templates: BTreeMap<Guest, bool> = BTreeMap::new();
    for node in list.nodes() {
        let target = target(&format!("/proxmox/nodes/{}/qemu", segment(&node)), query);
        let response = ensure_not_busy(send(context, parts, BackendRequest::get(&target)).await)?;
        if response.status().is_success()
            && let Ok((_, body)) = upstream::collect(context, response).await
        {
            templates.extend(templates_of_node(&body).map_err(CompletionError::InvalidList)?);
        }
    }
    // For a container that is a template, these releases fail to return the configuration. A container with a
    // readable configuration is not a template.
    let mut questions: Vec<BoxFuture<'_, (Guest, Response<Body>)>> = Vec::new();
    for (guest, node) in list.containers() {
        let target = target(&format!("/proxmox/{}/lxc/{}/config", segment(&node), guest.1), query);
        questions
            .push(async move { (guest, send(context, parts, BackendRequest::get(&target)).await) }.boxed());
    }
    let mut answers = stream::iter(questions).buffer_unordered(MAX_CONCURRENT);
    while let Some((guest, response)) = answers.next().await {
        if ensure_not_busy(response)?.status() == StatusCode::OK {
            templates.insert(guest, false);
        }
    }
    list.complete(&templates).map_err(CompletionError::InvalidList)?;
    Ok(list)
}

/// Returns `response`, unless its status indicates a temporary failure.
fn ensure_not_busy(response: Response<Body>) -> Result<Response<Body>, CompletionError> {
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Err(CompletionError::Busy(Box::new(response))),
        _ => Ok(response),
    }
}

fn target(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// Encodes `name` as one path segment.
fn segment(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The reason is in the status line too: the plugin logs only that in its job.
fn refusal_response(release: Option<Release>, untrue: &InvalidList) -> Response<Body> {
    count_shim(Shim::Templates, ShimAction::Refused, PATH);
    let release = release_name(release);
    let detail = format!(
        "{release} does not distinguish VM templates from virtual machines: {untrue}. NetBox would delete the templates \
         that it has. Set \"VM template\" to Disabled among the sync modes of the plugin, or use proxbox-api 0.0.20 \
         or newer."
    );
    let message = "The list of VM templates would be wrong.";
    let mut response = respond::message(StatusCode::UNPROCESSABLE_ENTITY, message, &detail);
    let reason =
        format!("{release} does not mark VM templates: set sync mode VM template to Disabled in the plugin");
    if let Ok(reason) = ReasonPhrase::try_from(reason) {
        response.extensions_mut().insert(reason);
    }
    with_shim_header(response, Shim::Templates)
}
