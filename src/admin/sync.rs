//! `POST /sync/…`, on the paths under which the NetBox plugin queues syncs: starts a sync without a stream.

use http::Response;
use http::request::Parts;

use super::{Requester, jobs};
use crate::app::App;
use crate::core::domain::kind::SyncEndpoint;
use crate::core::http::query::Query;
use crate::job::{AttachOptions, SyncRequest};
use crate::proxy::streams;
use crate::respond::{self, Body};

/// Starts the sync of `endpoint` for `requester`, or finds the running one. The job runs to its end, with or
/// without watchers.
pub(super) async fn answer(
    app: &App,
    endpoint: SyncEndpoint,
    request: &Parts,
    requester: Requester,
) -> Response<Body> {
    let query = match Query::parse(request.uri.query().unwrap_or_default()) {
        Ok(query) => query,
        Err(invalid) => return streams::invalid_query(&invalid),
    };
    if query.parameters.last_event_id.is_some() {
        return streams::unknown_parameter(
            "bridge.last_event_id is for streams only. The answer to POST is the job; its stream is at \
             /jobs/{id}/events.",
        );
    }
    let state = app.state();
    let backend = match (query.parameters.backend.as_deref(), state.backends.as_slice()) {
        (None, [only]) => only,
        (None, _) => {
            let names = state.names();
            return streams::bad_parameter(&format!(
                "Name the backend with bridge.backend, one of: {names}."
            ));
        }
        (Some(name), _) => match state.find_backend(name) {
            Some(backend) => backend,
            None => {
                let names = state.names();
                return streams::bad_parameter(&format!(
                    "There is no backend with this name. bridge.backend is one of: {names}."
                ));
            }
        },
    };
    let options = AttachOptions { fresh: query.parameters.fresh, last_event: None };
    let sync_request = streams::job_request(backend, endpoint, query, &request.headers, requester.address);
    let sync_request = SyncRequest { actor: requester.user, ..sync_request };
    match app.registry.queue(sync_request, &options).await {
        Ok(job) => jobs::accepted(app, &job),
        Err(error) => {
            let (id, refusal) = streams::refusal_for(backend, &error);
            streams::refused(request.uri.path(), backend, endpoint, (id, &refusal), respond::coded_refusal)
        }
    }
}
