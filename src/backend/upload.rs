//! The body of a client's request, on its way to the backend.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::core::guard::is_trailer;

/// Why the body of a client came to no good end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// The client sends too slowly.
    #[error("no piece of it came within {} (limits.client_body)", humantime::format_duration(*.0))]
    Slow(Duration),
    /// It is longer than bodies may be.
    #[error("it has more than {0} bytes (limits.body_bytes)")]
    TooLarge(usize),
    /// The client's connection or stream broke, or what it sent is not HTTP.
    #[error("the client did not send it to its end")]
    Aborted,
}

/// When the backend last took a piece of a request.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<Mutex<Instant>>);

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Progress {
    pub(super) fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// A body that is neither too long nor too slow, and notes when it is taken.
#[derive(Debug)]
pub(super) struct Upload<B> {
    body: B,
    /// How many bytes it may have in all, and how many have come.
    most: usize,
    seen: usize,
    /// How long the next piece may take; the timer runs while one is waited for.
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    progress: Progress,
}

impl<B> Upload<B> {
    pub(super) fn new(body: B, most: usize, patience: Duration, progress: Progress) -> Self {
        Self { body, most, seen: 0, patience, timer: None, progress }
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
            let patience = this.patience;
            ready!(this.timer.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx));
            return Poll::Ready(Some(Err(UploadError::Slow(patience))));
        };
        this.timer = None;
        this.progress.note();
        Poll::Ready(match polled {
            None => None,
            Some(Err(_)) => Some(Err(UploadError::Aborted)),
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    // The guard has not seen those of HTTP/2.
                    let unfit: Vec<_> = trailers.keys().filter(|name| !is_trailer(name)).cloned().collect();
                    for name in unfit {
                        trailers.remove(name);
                    }
                }
                this.seen += frame.data_ref().map_or(0, Bytes::len);
                let fits = this.seen <= this.most;
                Some(if fits { Ok(frame) } else { Err(UploadError::TooLarge(this.most)) })
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
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    type Sender = futures::channel::mpsc::UnboundedSender<Result<Frame<Bytes>, std::io::Error>>;
    type Frames = futures::channel::mpsc::UnboundedReceiver<Result<Frame<Bytes>, std::io::Error>>;

    fn upload(most: usize) -> (Sender, Upload<StreamBody<Frames>>) {
        let (sender, frames) = futures::channel::mpsc::unbounded();
        let upload = Upload::new(StreamBody::new(frames), most, Duration::from_secs(30), Progress::default());
        (sender, upload)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_ends_after_the_limit_and_each_piece_has_it_anew() {
        let (sender, mut upload) = upload(100);
        for _ in 0..3 {
            sender.unbounded_send(Ok(Frame::data(Bytes::from_static(b"x")))).unwrap();
            assert!(upload.frame().await.unwrap().is_ok());
            tokio::time::advance(Duration::from_secs(29)).await;
        }
        let began = Instant::now();
        assert_eq!(upload.frame().await.unwrap().unwrap_err(), UploadError::Slow(Duration::from_secs(30)));
        assert_eq!(began.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
        let (sender, mut upload) = upload(4);
        for piece in ["ab", "cd", "e"] {
            sender.unbounded_send(Ok(Frame::data(Bytes::from(piece)))).unwrap();
        }
        assert!(upload.frame().await.unwrap().is_ok());
        assert!(upload.frame().await.unwrap().is_ok());
        assert_eq!(upload.frame().await.unwrap().unwrap_err(), UploadError::TooLarge(4));
        drop(sender);
    }
}
