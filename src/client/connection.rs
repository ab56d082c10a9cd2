//! One request and its response, on a connection of its own.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::core::http::url::BackendUrl;

/// The body of a response. Dropping it closes the connection.
#[derive(Debug)]
pub struct ClientBody {
    body: Incoming,
    /// The task that drives the connection. It ends with the body, or with the tunnel that the connection became.
    pub connection: JoinSet<()>,
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Performs the TLS handshake with the server of `url` on `stream`.
///
/// # Errors
///
/// If the host of `url` is not a name that a certificate can have, or the handshake failed.
pub async fn secure(
    config: Arc<ClientConfig>,
    url: &BackendUrl,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(url.host().trim_end_matches('.').to_owned())
        .map_err(|_| io::Error::other("its host is not a name that a certificate can have"))?;
    TlsConnector::from(config).connect(name, stream).await
}

/// Sends `request` on `stream` and waits for the head of the response.
///
/// # Errors
///
/// If the connection broke before that.
pub async fn send<B>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<B>,
) -> Result<Response<ClientBody>, hyper::Error>
where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let (ended, end) = oneshot::channel();
    let mut task = JoinSet::new();
    task.spawn(async move {
        // An error of the connection also ends the body, where it is reported.
        if let Err(error) = connection.with_upgrades().await {
            let _ = ended.send(error);
        }
    });
    match sender.send_request(request).await {
        Ok(response) => Ok(response.map(|body| ClientBody { body, connection: task })),
        // The connection ended before the request was sent. Its own error is the cause.
        Err(error) if error.is_canceled() => Err(end.await.unwrap_or(error)),
        Err(error) => Err(error),
    }
}
