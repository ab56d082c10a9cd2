//! The list of guests by which the plugin deletes VM templates (see [`crate::core::compat::resources`]).

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::ext::ReasonPhrase;

use super::upstream::{self, get};
use super::{count_shim, with_shim_header};
use crate::core::compat::resources::{
    Guest, InvalidList, Resources, drops_template, mistakes_type, templates_of_node,
};
use crate::core::compat::scope::{parameters, without_parameter};
use crate::core::compat::{Shim, ShimAction, release_name};
use crate::core::domain::release::Release;
use crate::proxy::credentials::request_key;
use crate::proxy::errors::{OrResponse, merge};
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
    let is_wrong = release.is_none_or(|release| drops_template(release) || mistakes_type(release));
    if !context.state.config.shims.is_on(Shim::Templates) || !is_wrong {
        return None;
    }
    Some(merge(corrected_list(context, parts, release).await))
}

/// The backend's list, with `template` of every guest. Where `release` drops that, the data of the nodes completes it.
async fn corrected_list(
    context: &RequestContext,
    parts: &Parts,
    release: Option<Release>,
) -> OrResponse<Response<Body>> {
    let drops = release.is_some_and(drops_template);
    let query = without_parameter(parts.uri.query().unwrap_or_default(), "type");
    let response = get(context, parts, &target(PATH, &query)).await;
    if !response.status().is_success() {
        return Ok(response);
    }
    let key = request_key(&parts.headers);
    context.proxy.app.registry.begins_job(&context.backend, key.as_ref(), context.forwarded.client);
    let (head, body) = upstream::collect(context, response).await?;
    let invalid = |invalid| refusal_response(release, &invalid);
    let mut list = Resources::parse(&body).map_err(invalid)?;
    list.retain_guests().map_err(invalid)?;
    if drops {
        let templates = templates_of(context, parts, release, &query, &list).await?;
        list.complete(&templates).map_err(invalid)?;
    } else {
        list.validate().map_err(invalid)?;
    }
    let action = if drops { ShimAction::Completed } else { ShimAction::Translated };
    count_shim(Shim::Templates, action, PATH);
    let body = Bytes::from(list.to_json().to_string());
    Ok(with_shim_header(upstream::rebuild(head, body), Shim::Templates))
}

/// Whether each guest of `list` is a template, by the data of the nodes and of the guests.
async fn templates_of(
    context: &RequestContext,
    parts: &Parts,
    release: Option<Release>,
    query: &str,
    list: &Resources,
) -> OrResponse<BTreeMap<Guest, bool>> {
    let mut templates: BTreeMap<Guest, bool> = BTreeMap::new();
    for node in list.nodes() {
        let target = target(&format!("/proxmox/nodes/{}/qemu", segment(&node)), query);
        let response = ensure_not_busy(get(context, parts, &target).await)?;
        if response.status().is_success()
            && let Ok((_, body)) = upstream::collect(context, response).await
        {
            let invalid = |invalid| refusal_response(release, &invalid);
            templates.extend(templates_of_node(&body).map_err(invalid)?);
        }
    }
    // For a container that is a template, these releases fail to return the configuration. A container with a
    // readable configuration is not a template.
    let mut questions: Vec<BoxFuture<'_, (Guest, Response<Body>)>> = Vec::new();
    for (guest, node) in list.containers() {
        let target = target(&format!("/proxmox/{}/lxc/{}/config", segment(&node), guest.1), query);
        questions.push(async move { (guest, get(context, parts, &target).await) }.boxed());
    }
    let mut answers = stream::iter(questions).buffer_unordered(MAX_CONCURRENT);
    while let Some((guest, response)) = answers.next().await {
        if ensure_not_busy(response)?.status() == StatusCode::OK {
            templates.insert(guest, false);
        }
    }
    Ok(templates)
}

/// Returns `response`, unless its status indicates a temporary failure.
fn ensure_not_busy(response: Response<Body>) -> OrResponse<Response<Body>> {
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Err(response.into()),
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
fn refusal_response(release: Option<Release>, invalid: &InvalidList) -> Response<Body> {
    count_shim(Shim::Templates, ShimAction::Refused, PATH);
    let release = release_name(release);
    let detail = format!(
        "{release} does not distinguish VM templates from virtual machines: {invalid}. NetBox would delete the templates \
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
