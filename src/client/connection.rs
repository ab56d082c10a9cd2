//! One request and its response, on a connection of its own.

use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::{fmt, io};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Extensions, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::core::http::url::BackendUrl;

/// The body of a response. Dropping it closes the connection.
#[derive(Debug)]
pub struct ClientBody {
    body: Incoming,
    connection: Connection,
}

/// A connection, driven by the task that waits for what it receives. In a task of its own, it would pass on one chunk at a
/// time, and each would take two task switches.
pub struct Connection<F = BoxFuture<'static, Result<(), hyper::Error>>> {
    /// `None` once it has ended, was upgraded or taken.
    running: Option<F>,
    /// Why it ended. An error also ends the body, where it is reported.
    error: Option<hyper::Error>,
}

impl ClientBody {
    /// The connection, once the server has switched protocols. `extensions` are those of the response.
    ///
    /// # Errors
    ///
    /// If the connection broke during the switch.
    pub async fn upgraded(mut self, extensions: Extensions) -> Result<Upgraded, hyper::Error> {
        let mut response = Response::new(());
        *response.extensions_mut() = extensions;
        self.connection.drive(hyper::upgrade::on(response)).await
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { body, connection } = &mut *self;
        connection.poll_with(context, |context| Pin::new(&mut *body).poll_frame(context))
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
    let mut connection = Connection::new(connection.with_upgrades().boxed());
    match connection.drive(sender.send_request(request)).await {
        Ok(response) => Ok(response.map(|body| ClientBody { body, connection })),
        Err(error) => Err(connection.cause(error)),
    }
}

impl<F: Future<Output = Result<(), hyper::Error>> + Unpin> Connection<F> {
    /// The connection that `connection` performs.
    pub fn new(connection: F) -> Self {
        Self { running: Some(connection), error: None }
    }

    /// Takes what performs the connection, to do something else with it. `None` if it has ended.
    pub fn take(&mut self) -> Option<F> {
        self.running.take()
    }

    /// Drives the connection until `poll` is ready, which waits for what the connection receives.
    pub fn poll_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // The two wake each other for every chunk. That must not schedule this task once more, so it is woken only for
        // what comes when nothing is left.
        for cx in [&mut Context::from_waker(Waker::noop()), &mut *cx] {
            if let Poll::Ready(output) = poll(cx) {
                return Poll::Ready(output);
            }
            self.poll(cx);
        }
        poll(cx)
    }

    /// Drives the connection until `future` is ready, which waits for what the connection receives.
    pub async fn drive<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|cx| self.poll_with(cx, |cx| future.as_mut().poll(cx))).await
    }

    /// Drives the connection as far as it gets.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(Poll::Ready(ended)) = self.running.as_mut().map(|running| running.poll_unpin(cx)) {
            self.running = None;
            self.error = ended.err();
        }
    }

    /// Whether it has not ended.
    pub fn is_open(&self) -> bool {
        self.running.is_some()
    }

    /// The cause of `error`, with which a request failed: if the connection ended before the request was sent, its own
    /// error.
    pub fn cause(self, error: hyper::Error) -> hyper::Error {
        if error.is_canceled() { self.error.unwrap_or(error) } else { error }
    }
}

impl<F> fmt::Debug for Connection<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("error", &self.error).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use futures::channel::mpsc;
    use futures::{SinkExt, StreamExt};

    use super::*;

    /// Counts how often the task is scheduled.
    #[derive(Default)]
    pub(crate) struct Task(pub(crate) AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn chunks_that_are_read_in_one_turn_do_not_schedule_the_task_again() {
        let (mut chunks, mut received) = mpsc::channel(0);
        let (mut socket, mut arrived) = mpsc::channel(16);
        let running = async move {
            while let Some(chunk) = arrived.next().await {
                chunks.send(chunk).await.unwrap();
            }
            Ok(())
        };
        let mut connection = Connection::new(running.boxed());
        let task = Arc::<Task>::default();
        let waker = Arc::clone(&task).into();
        let mut poll =
            || connection.poll_with(&mut Context::from_waker(&waker), |cx| received.poll_next_unpin(cx));
        assert_eq!(poll(), Poll::Pending);
        for turn in 1..=3 {
            for chunk in 0..8 {
                socket.try_send(chunk).unwrap();
            }
            assert_eq!(task.0.load(Ordering::Relaxed), turn, "it is scheduled for what has arrived");
            for chunk in 0..8 {
                assert_eq!(poll(), Poll::Ready(Some(chunk)));
            }
            assert_eq!(poll(), Poll::Pending);
            assert_eq!(task.0.load(Ordering::Relaxed), turn);
        }
    }

    #[test]
    fn a_connection_that_yields_is_polled_again() {
        let mut connection = Connection::new(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        let task = Arc::<Task>::default();
        let waker = Arc::clone(&task).into();
        for turn in 1..=2 {
            let polled = connection.poll_with(&mut Context::from_waker(&waker), |_| Poll::<()>::Pending);
            assert_eq!((polled, task.0.load(Ordering::Relaxed)), (Poll::Pending, turn));
        }
    }
}
