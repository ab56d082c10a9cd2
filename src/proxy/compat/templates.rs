//! The list of guests by which the plugin deletes VM templates (see [`crate::core::compat::resources`]).

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::ext::ReasonPhrase;

use super::upstream::{self, Question, ask};
use super::{note, shimmed};
use crate::core::compat::resources::{
    Guest, Resources, Untrue, drops_template, mistakes_type, templates_of_node,
};
use crate::core::compat::scope::{parameters, without_parameter};
use crate::core::compat::{Action, Shim, named};
use crate::core::domain::release::Release;
use crate::proxy::Proxy;
use crate::proxy::credentials::key_of;
use crate::proxy::request::Visit;
use crate::respond::{self, Body};

const PATH: &str = "/proxmox/cluster/resources";
/// How many questions about single guests are asked at once.
const AT_ONCE: usize = 8;

/// Whether the request asks for guests.
pub(super) fn concerns(method: &Method, path: &str, query: &str) -> bool {
    let kind = parameters(query).filter(|(name, _)| name == "type").last();
    method == Method::GET && path == PATH && kind.is_some_and(|(_, kind)| kind == "vm")
}

/// The list, if `release` gives a wrong one itself. One that is not known may do so.
pub(super) async fn answer(
    proxy: &Proxy,
    visit: &Visit,
    parts: &Parts,
    release: Option<Release>,
) -> Option<Response<Body>> {
    let drops = release.is_some_and(drops_template);
    let is_wrong = drops || release.is_none_or(mistakes_type);
    if !visit.state.config.shims.is_on(Shim::Templates) || !is_wrong {
        return None;
    }
    let query = without_parameter(parts.uri.query().unwrap_or_default(), "type");
    let response = ask(proxy, visit, parts, Question::get(&target(PATH, &query))).await;
    if !response.status().is_success() {
        return Some(response);
    }
    let key = key_of(&parts.headers);
    proxy.app.registry.begins_job(&visit.backend, key.as_ref(), visit.forwarded.client);
    let (head, body) = match upstream::whole(visit, response).await {
        Ok(whole) => whole,
        Err(broken) => return Some(broken),
    };
    let list = list(&body);
    let completed = match list {
        Ok(list) if drops => completed(proxy, visit, parts, &query, list).await,
        Ok(list) => list.told().map(|()| list).map_err(Incomplete::Untrue),
        Err(untrue) => Err(Incomplete::Untrue(untrue)),
    };
    Some(match completed {
        Ok(list) => {
            let action = if drops { Action::Completed } else { Action::Translated };
            note(Shim::Templates, action, PATH);
            shimmed(upstream::answer(head, Bytes::from(list.to_json().to_string())), Shim::Templates)
        }
        Err(Incomplete::Untrue(untrue)) => refused(release, &untrue),
        Err(Incomplete::Later(response)) => *response,
    })
}

fn list(body: &[u8]) -> Result<Resources, Untrue> {
    let mut list = Resources::read(body)?;
    list.keep_guests()?;
    Ok(list)
}

/// Why a list could not be completed.
enum Incomplete {
    /// The backend does not tell what is needed.
    Untrue(Untrue),
    /// It could not be asked now: this is the answer to one of the questions.
    Later(Box<Response<Body>>),
}

/// `list`, with what the nodes say of each guest.
async fn completed(
    proxy: &Proxy,
    visit: &Visit,
    parts: &Parts,
    query: &str,
    mut list: Resources,
) -> Result<Resources, Incomplete> {
    let mut templates: BTreeMap<Guest, bool> = BTreeMap::new();
    for node in list.nodes() {
        let target = target(&format!("/proxmox/nodes/{}/qemu", segment(&node)), query);
        let response = asked_now(ask(proxy, visit, parts, Question::get(&target)).await)?;
        if response.status().is_success()
            && let Ok((_, body)) = upstream::whole(visit, response).await
        {
            templates.extend(templates_of_node(&body).map_err(Incomplete::Untrue)?);
        }
    }
    // The configuration of a container that is a template makes these releases fail: one that they can give is
    // that of none.
    let mut questions: Vec<BoxFuture<'_, (Guest, Response<Body>)>> = Vec::new();
    for (guest, node) in list.containers() {
        let target = target(&format!("/proxmox/{}/lxc/{}/config", segment(&node), guest.1), query);
        questions
            .push(async move { (guest, ask(proxy, visit, parts, Question::get(&target)).await) }.boxed());
    }
    let mut answers = stream::iter(questions).buffer_unordered(AT_ONCE);
    while let Some((guest, response)) = answers.next().await {
        if asked_now(response)?.status() == StatusCode::OK {
            templates.insert(guest, false);
        }
    }
    list.complete(&templates).map_err(Incomplete::Untrue)?;
    Ok(list)
}

/// `response`, unless it says that there will be another one later.
fn asked_now(response: Response<Body>) -> Result<Response<Body>, Incomplete> {
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Err(Incomplete::Later(Box::new(response))),
        _ => Ok(response),
    }
}

fn target(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// `name` as one segment of a path.
fn segment(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The reason stands in the status line, too: it is all that the plugin writes into the log of its job.
fn refused(release: Option<Release>, untrue: &Untrue) -> Response<Body> {
    note(Shim::Templates, Action::Refused, PATH);
    let release = named(release);
    let detail = format!(
        "{release} cannot tell VM templates from virtual machines: {untrue}. NetBox would delete the templates \
         that it has. Set \"VM template\" to Disabled among the sync modes of the plugin, or use proxbox-api 0.0.20 \
         or newer."
    );
    let message = "The list of VM templates would be wrong.";
    let mut response = respond::said(StatusCode::UNPROCESSABLE_ENTITY, message, &detail);
    let reason =
        format!("{release} cannot tell VM templates: set sync mode VM template to Disabled in the plugin");
    if let Ok(reason) = ReasonPhrase::try_from(reason) {
        response.extensions_mut().insert(reason);
    }
    shimmed(response, Shim::Templates)
}
