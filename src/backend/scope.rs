//! Translates the selection of Proxmox endpoints in a request for the backend's release.

use http::{Method, StatusCode};
use serde_json::Value;

use super::{Backend, RequestIdentity, Unselectable};
use crate::core::compat::scope::{
    ENDPOINT_IDS, EndpointSelector, backend_ids, cannot_detect_end, endpoint_ids, has_others, is_first, list,
    no_endpoint_pushed, no_netbox_listener, one_at_a_time, prunes, prunes_others, same_address,
    unknown_endpoint, with_parameter, without_parameter, without_pruning, without_source,
};
use crate::core::domain::refusal::Refusal;
use crate::core::domain::release::Release;
use crate::core::run::policy::EndpointIds;
use crate::deadline::timeout;

/// The Proxmox endpoints that a backend stores.
const ENDPOINTS: &str = "/proxmox/endpoints";

/// The query to send for a request that selects Proxmox endpoints.
#[derive(Debug)]
pub enum ScopedQuery {
    /// The query of the client.
    Unchanged,
    /// Another query.
    Rewritten(String),
    /// No query is safe: the request would change objects of other endpoints, for this reason.
    Harmful(String),
}

impl Backend {
    /// Translates `proxmox_endpoint_ids` in `query` for a backend of `release`, and removes the options that would
    /// delete objects of other endpoints from NetBox. `harm` is the reason if the request changes objects of other
    /// endpoints with any query. The error is the answer for the client if the request would reach Proxmox endpoints
    /// that it does not select.
    pub async fn scope_query(
        &self,
        query: &str,
        release: Option<Release>,
        identity: &RequestIdentity,
        harm: Option<String>,
    ) -> Result<ScopedQuery, Refusal> {
        let may_harm = harm.is_some() || prunes_others(release) && prunes(query);
        let plugin_keys = self.config().endpoint_ids == EndpointIds::Plugin;
        let selector = EndpointSelector::for_release(release);
        if !plugin_keys && selector == EndpointSelector::Unchanged && !may_harm {
            return Ok(ScopedQuery::Unchanged);
        }
        let ids = endpoint_ids(query).map_err(|error| Refusal::not_scoped(&error.to_string()))?;
        let Some(mut ids) = ids else { return Ok(ScopedQuery::Unchanged) };
        if selector == EndpointSelector::Address {
            // No parameter selects an endpoint of 0.0.1, which takes all that are enabled.
            if let Some(why) = cannot_detect_end(release, self.proxmox.count()) {
                return Err(Refusal::not_scoped(&why));
            }
            let selected = match self.proxmox.selector(&ids) {
                // It has only one endpoint, so nothing needs to be selected.
                Err(Unselectable::SameAddress) if is_first(release) => Ok(None),
                selected => selected,
            };
            let has_listener = self.config().netbox.is_some();
            let selected = selected.map_err(|why| match why {
                Unselectable::NothingPushed if !has_listener => no_netbox_listener(release, &ids),
                Unselectable::NothingPushed => no_endpoint_pushed(release, &ids),
                Unselectable::Unknown(id) => unknown_endpoint(release, id),
                Unselectable::Several => one_at_a_time(release, &ids),
                Unselectable::SameAddress => same_address(release, &ids),
            });
            let selected = selected.map_err(|why| Refusal::not_scoped(&why))?;
            let scoped = match selected {
                _ if is_first(release) => without_source(query, release),
                selected => selected.map(|(name, value)| with_parameter(query, name, &value)),
            };
            return Ok(scoped.map_or(ScopedQuery::Unchanged, ScopedQuery::Rewritten));
        }
        let mut scoped = query.to_owned();
        let rows = match plugin_keys || may_harm {
            true => self.get_json(ENDPOINTS, identity).await?.unwrap_or_default(),
            false => Value::Null,
        };
        if plugin_keys {
            ids = backend_ids(&rows, &ids).map_err(|why| Refusal::not_scoped(&why))?;
            let others = without_parameter(&scoped, ENDPOINT_IDS);
            scoped = with_parameter(&others, ENDPOINT_IDS, &comma_separated(&ids));
        }
        match (selector, ids.as_slice()) {
            (EndpointSelector::Unchanged, _) => {}
            (EndpointSelector::EndpointIds, ids) => {
                scoped = with_parameter(&scoped, "endpoint_ids", &comma_separated(ids))
            }
            (_, [id]) => {
                let row = self.get_json(&format!("{ENDPOINTS}/{id}"), identity).await?;
                let Some(name) = row.as_ref().and_then(|row| row["name"].as_str()) else {
                    return Err(Refusal::not_scoped(&format!(
                        "The backend has no Proxmox endpoint with the id {id}; its {ENDPOINTS} lists those that it has."
                    )));
                };
                scoped = with_parameter(&scoped, "name", name);
            }
            (_, ids) => return Err(Refusal::not_scoped(&one_at_a_time(release, ids))),
        }
        if may_harm && has_others(&rows, &ids) {
            if let Some(why) = harm {
                return Ok(ScopedQuery::Harmful(why));
            }
            scoped = without_pruning(&scoped);
        }
        Ok(if scoped == query { ScopedQuery::Unchanged } else { ScopedQuery::Rewritten(scoped) })
    }

    /// Returns the JSON of the backend at `path`; `None` for 404. The error is the answer for the client: the backend
    /// refused the request, its response is unreadable, or it is unreachable.
    pub async fn get_json(&self, path: &str, identity: &RequestIdentity) -> Result<Option<Value>, Refusal> {
        let limits = self.limits();
        let unreachable = |why: String| Refusal::unreachable(&why, limits.retry_after.as_secs());
        let request = async {
            let sent = self.send(Method::GET, path, identity).await;
            let mut exchange = sent.map_err(|error| unreachable(format!("{self}{path}: {error}")))?;
            let read = exchange.body(limits.event_bytes).await;
            let body = read.map_err(|error| unreachable(format!("{self}{path}: {error}")))?;
            // The error does not quote the body: it may contain passwords.
            let unreadable = || Refusal::from_response(exchange.error_response(b""));
            match exchange.status {
                StatusCode::NOT_FOUND => Ok(None),
                status if status.is_success() && exchange.content_encoding().is_none() => {
                    serde_json::from_slice(&body).map(Some).map_err(|_| unreadable())
                }
                status if status.is_success() => Err(unreadable()),
                _ => Err(Refusal::from_response(exchange.error_response(&body))),
            }
        };
        timeout(limits.probe, request).await.unwrap_or_else(|_| {
            let limit = humantime::format_duration(limits.probe);
            Err(unreachable(format!("{self}{path} did not answer within {limit} (limits.probe)")))
        })
    }
}

fn comma_separated(ids: &[u64]) -> String {
    list(ids).replace(' ', "")
}
