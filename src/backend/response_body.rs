//! The body of a response to a forwarded request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::event_stream::EventStreamBody;
use super::pooled_connection::{IdleConnections, PooledBody, PooledConnection};

/// Why the body of a response broke.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// hyper has read it.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    /// It was taken over from hyper, whose text this is.
    #[error("error reading a body from connection")]
    EventStream(#[from] io::Error),
}

/// The body of a response to a forwarded request.
#[derive(Debug)]
pub struct ResponseBody {
    reader: BodyReader,
    /// What was received last, the head included, may not be sent to the client yet.
    has_unsent: bool,
    /// How the body failed. It is returned one turn later, so that what was received before can be sent.
    error: Option<BodyError>,
}

/// Who reads it.
#[derive(Debug)]
enum BodyReader {
    Pooled(PooledBody),
    EventStream(EventStreamBody),
}

impl ResponseBody {
    /// `response` with its body, which is read from `connection`. That is one of `idle` afterwards, unless an event stream
    /// takes it over from hyper.
    pub(super) fn read(
        response: Response<Incoming>,
        mut connection: PooledConnection,
        idle: &Arc<IdleConnections>,
    ) -> Response<Self> {
        let event_stream = connection.take_event_stream(&response);
        response.map(|body| {
            let reader = match event_stream {
                Some(event_stream) => BodyReader::EventStream(event_stream),
                None => BodyReader::Pooled(PooledBody::new(body, connection, idle)),
            };
            Self { reader, has_unsent: true, error: None }
        })
    }

    /// Closes the connection after the response.
    pub(super) fn close_connection(&mut self) {
        match &mut self.reader {
            BodyReader::Pooled(body) => body.close_connection(),
            // It is closed in any case.
            BodyReader::EventStream(_) => {}
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = match &mut self.reader {
            BodyReader::Pooled(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
            BodyReader::EventStream(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
        };
        match polled {
            // At an error, hyper discards what it has not sent.
            Poll::Ready(Some(Err(error))) if self.has_unsent => {
                self.error = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => {
                self.has_unsent = polled.is_ready();
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_complete = match &self.reader {
            BodyReader::Pooled(body) => body.is_end_stream(),
            BodyReader::EventStream(body) => body.is_end_stream(),
        };
        is_complete && self.error.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.reader {
            BodyReader::Pooled(body) => body.size_hint(),
            BodyReader::EventStream(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests;
