//! Connections to a backend that are kept for later requests.

use std::sync::Arc;

use futures::FutureExt;
use http::{Request, Response};

use super::connect::Dialer;
use super::connect_error::ConnectError;
use super::pooled_connection::{IdleConnections, PooledConnection, RequestBody};
use super::response_body::ResponseBody;
use crate::tls::ConnectionUse;

/// Why a request got no response.
#[derive(Debug)]
pub(super) enum PoolError {
    /// There is no connection. The request was not sent.
    Connect(ConnectError),
    /// The connection broke. It was used as stated before.
    Broken(hyper::Error, ConnectionUse),
}

/// Connections to a backend.
#[derive(Debug)]
pub(super) struct Pool {
    dialer: Arc<Dialer>,
    idle: Arc<IdleConnections>,
}

impl Pool {
    pub(super) fn new(dialer: Arc<Dialer>) -> Self {
        let idle = Arc::new(IdleConnections::new(dialer.config.limits.pool_idle));
        Self { dialer, idle }
    }

    /// Sends `request` and waits for the head of the response. An idle connection may be closed by the backend at any
    /// time: a request that was certainly not sent on it is sent on another one.
    pub(super) async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, PoolError> {
        while let Some(mut connection) = self.idle.take() {
            request = match connection.send(request).await {
                Ok(response) => return Ok(ResponseBody::read(response, connection, &self.idle)),
                Err(mut error) => match error.take_message() {
                    Some(request) => request,
                    None => return Err(PoolError::Broken(error.into_error(), ConnectionUse::Reused)),
                },
            };
        }
        let broken = |error| PoolError::Broken(error, ConnectionUse::Fresh);
        // Boxed: it is large, and few requests need it.
        let link = self.dialer.connect().boxed().await.map_err(PoolError::Connect)?;
        let mut connection = PooledConnection::new(link).await.map_err(broken)?;
        match connection.send(request).await {
            Ok(response) => Ok(ResponseBody::read(response, connection, &self.idle)),
            Err(error) => Err(broken(connection.cause(error.into_error()))),
        }
    }
}
