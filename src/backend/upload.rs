//! The body of a client's request, forwarded to the backend.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::Limits;
use crate::core::http::guard::is_trailer;
use crate::deadline::DeadlineTimer;

/// Why the body of a client failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// The client sent nothing within the limit.
    #[error("no piece of it came within {} (limits.client_body)", humantime::format_duration(*.0))]
    Slow(Duration),
    /// The client was below the minimum rate, in bytes per second.
    #[error("it came with fewer than {0} bytes a second (limits.client_body_rate)")]
    BelowRate(usize),
    /// The body exceeds the maximum size.
    #[error("it has more than {0} bytes (limits.body_bytes)")]
    TooLarge(usize),
    /// The client's connection or stream broke, or its body is not valid HTTP.
    #[error("the client did not send it to its end")]
    Aborted,
}

/// When the backend last read a chunk of a request.
pub(super) type UploadProgress = Arc<Mutex<Instant>>;

/// A body that enforces the limits of size and rate, and notes when it is read.
#[derive(Debug)]
pub(super) struct Upload<B> {
    body: B,
    /// The maximum size, in bytes.
    max_bytes: usize,
    /// The time limit for the next chunk.
    chunk_timeout: Duration,
    /// The minimum average rate, in bytes per second, after the time for one chunk; zero for no minimum.
    min_rate: usize,
    /// The bytes received so far.
    seen: usize,
    /// The time spent waiting for the client.
    waited: Duration,
    /// The wait for the next chunk, if there is one.
    waiting: Option<BodyWait>,
    progress: UploadProgress,
}

/// A wait for a client.
#[derive(Debug)]
struct BodyWait {
    since: Instant,
    timeout: Duration,
    timer: DeadlineTimer,
}

impl<B> Upload<B> {
    pub(super) fn new(body: B, limits: &Limits, progress: UploadProgress) -> Self {
        Self {
            body,
            max_bytes: limits.body_bytes,
            chunk_timeout: limits.client_body,
            min_rate: limits.client_body_rate,
            seen: 0,
            waited: Duration::ZERO,
            waiting: None,
            progress,
        }
    }

    /// How long to wait for the next chunk, and the error after that. Time in which the backend does not read is not
    /// counted.
    fn timeout(&self) -> (Duration, UploadError) {
        let chunk = self.chunk_timeout;
        if let Some(seconds) = self.seen.checked_div(self.min_rate) {
            let most = chunk.saturating_add(Duration::from_secs(seconds as u64)).saturating_sub(self.waited);
            if most < chunk {
                return (most, UploadError::BelowRate(self.min_rate));
            }
        }
        (chunk, UploadError::Slow(chunk))
    }

    /// The timeout error, once the client has exceeded a limit.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<UploadError> {
        let (timeout, error) = self.timeout();
        let waiting = self.waiting.get_or_insert_with(|| BodyWait {
            since: Instant::now(),
            timeout,
            timer: DeadlineTimer::after(timeout),
        });
        waiting.timer.poll_expired(cx).map(|()| error)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Upload<B> {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = &mut *self;
        let Poll::Ready(polled) = Pin::new(&mut this.body).poll_frame(cx) else {
            return Poll::Ready(Some(Err(ready!(this.poll_timeout(cx)))));
        };
        if let Some(BodyWait { since, timeout, .. }) = this.waiting.take() {
            // A pause of the process does not count against the client.
            this.waited += since.elapsed().min(timeout);
        }
        *this.progress.lock() = Instant::now();
        Poll::Ready(match polled {
            None => None,
            Some(Err(_)) => Some(Err(UploadError::Aborted)),
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    // The guard does not check trailers of HTTP/2.
                    let unfit: Vec<_> = trailers.keys().filter(|name| !is_trailer(name)).cloned().collect();
                    for name in unfit {
                        trailers.remove(name);
                    }
                }
                this.seen += frame.data_ref().map_or(0, Bytes::len);
                let most = this.max_bytes;
                Some(if this.seen <= most { Ok(frame) } else { Err(UploadError::TooLarge(most)) })
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use http_body_util::{BodyExt, StreamBody};

    use tokio::time::sleep;

    use super::*;

    type Sender = futures::channel::mpsc::UnboundedSender<Result<Frame<Bytes>, std::io::Error>>;
    type Frames = futures::channel::mpsc::UnboundedReceiver<Result<Frame<Bytes>, std::io::Error>>;

    fn upload(limits: Limits) -> (Sender, Upload<StreamBody<Frames>>) {
        let (sender, frames) = futures::channel::mpsc::unbounded();
        (sender, Upload::new(StreamBody::new(frames), &limits, Arc::new(Mutex::new(Instant::now()))))
    }

    fn chunk(bytes: usize) -> Result<Frame<Bytes>, std::io::Error> {
        Ok(Frame::data(Bytes::from(vec![b'x'; bytes])))
    }

    /// Sends `bytes` after every `gap` until `upload` ends. Returns how many chunks were read, and the error.
    async fn drip(
        bytes: usize,
        gap: Duration,
        (sender, mut upload): (Sender, Upload<StreamBody<Frames>>),
    ) -> (usize, UploadError) {
        for frame in 0.. {
            let sender = sender.clone();
            tokio::spawn(async move {
                sleep(gap).await;
                let _ = sender.unbounded_send(chunk(bytes));
            });
            if let Err(error) = upload.frame().await.unwrap() {
                return (frame, error);
            }
        }
        unreachable!()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_ends_after_the_limit_and_each_piece_has_it_anew() {
        let (sender, mut upload) = upload(Limits { client_body_rate: 0, ..Limits::default() });
        for _ in 0..3 {
            let sender = sender.clone();
            tokio::spawn(async move {
                sleep(Duration::from_secs(29)).await;
                sender.unbounded_send(chunk(1)).unwrap();
            });
            assert!(upload.frame().await.unwrap().is_ok());
        }
        let began = Instant::now();
        assert_eq!(upload.frame().await.unwrap().unwrap_err(), UploadError::Slow(Duration::from_secs(30)));
        assert_eq!(began.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_ends_although_each_piece_is_in_time() {
        let began = Instant::now();
        let gap = Duration::from_secs(29);
        assert_eq!(drip(1, gap, upload(Limits::default())).await, (1, UploadError::BelowRate(500)));
        assert_eq!(began.elapsed().as_secs(), 30);
        // At the minimum rate, the body may reach the maximum size.
        let limits = Limits { body_bytes: 10 * 14_500, ..Limits::default() };
        assert_eq!(drip(14_500, gap, upload(limits)).await, (10, UploadError::TooLarge(10 * 14_500)));
        // Small gaps use up the same time.
        let began = Instant::now();
        let limits = Limits { body_bytes: 1000, ..Limits::default() };
        let (_, error) = drip(1, Duration::from_millis(200), upload(limits)).await;
        assert_eq!(error, UploadError::BelowRate(500));
        assert_eq!(began.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_of_the_process_uses_up_no_more_than_one_wait() {
        let (sender, mut upload) = upload(Limits::default());
        assert!(upload.frame().now_or_never().is_none());
        tokio::time::advance(Duration::from_secs(3600)).await;
        // The time for the first chunk, and as much again as its bytes allow.
        sender.unbounded_send(chunk(500 * 30)).unwrap();
        assert!(upload.frame().await.unwrap().is_ok());
        let began = Instant::now();
        assert!(upload.frame().await.unwrap().is_err());
        assert_eq!(began.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_backend_takes_nothing_is_not_the_clients() {
        let (sender, mut upload) = upload(Limits::default());
        for _ in 0..3 {
            sender.unbounded_send(chunk(1)).unwrap();
            tokio::time::advance(Duration::from_secs(60)).await;
            assert!(upload.frame().await.unwrap().is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
        let (sender, mut upload) = upload(Limits { body_bytes: 4, ..Limits::default() });
        for bytes in [2, 2, 1] {
            sender.unbounded_send(chunk(bytes)).unwrap();
        }
        assert!(upload.frame().await.unwrap().is_ok());
        assert!(upload.frame().await.unwrap().is_ok());
        assert_eq!(upload.frame().await.unwrap().unwrap_err(), UploadError::TooLarge(4));
        drop(sender);
    }
}
