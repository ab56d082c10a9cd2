//! Requests of clients, passed on as they are.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::exchange::reason;
use super::{Backend, ConnectError, RequestError};

/// Why there is no answer to pass back.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The backend could not be reached. Nothing was sent.
    #[error(transparent)]
    Unreachable(ConnectError),
    /// The connection broke before an answer came; the request may have done its work.
    #[error("The connection broke before the backend answered ({0}).")]
    Broken(String),
    /// No answer began in time.
    #[error("It did not begin to answer within {0} (limits.response_head).")]
    Overdue(humantime::FormattedDuration),
}

/// The body of an answer that is passed back, and the connection that it comes from.
#[derive(Debug)]
pub struct Passed {
    body: Incoming,
    _connection: JoinSet<()>,
}

impl Backend {
    /// Passes `request` on, its path, query, headers and body unchanged, and waits for the head of the
    /// answer.
    ///
    /// # Errors
    ///
    /// See [`ForwardError`].
    pub async fn forward(&self, mut request: Request<Incoming>) -> Result<Response<Passed>, ForwardError> {
        // The form of the target that goes to an origin server, also where a client sent another.
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = target.map_or_else(|| Uri::from_static("/"), Uri::from);
        let limit = self.limits().response_head;
        let answered = timeout(limit, self.dispatch(request)).await;
        match answered.map_err(|_| ForwardError::Overdue(humantime::format_duration(limit)))? {
            Ok((response, connection)) => Ok(response.map(|body| Passed { body, _connection: connection })),
            Err(RequestError::Connect(error)) => {
                // Whoever comes back may be another one.
                self.knowledge.forget();
                Err(ForwardError::Unreachable(error))
            }
            Err(RequestError::Broken(error)) => {
                self.knowledge.forget();
                Err(ForwardError::Broken(reason(&error)))
            }
            Err(error) => Err(ForwardError::Broken(error.to_string())),
        }
    }
}

impl Body for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
