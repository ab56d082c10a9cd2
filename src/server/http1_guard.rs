//! An HTTP/1 connection whose requests are checked before they are parsed, and whose responses may follow
//! informational ones.
//!
//! A rejected request never reaches hyper. A placeholder request takes its place, which is answered with the
//! rejection. So the rejection is sent in order, after the responses to earlier requests, and closes the connection.

use std::borrow::Cow;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::Uri;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use parking_lot::Mutex;
use percent_encoding::percent_decode;
use tokio::time::{Sleep, sleep};

use super::LINGER;
use super::activity::ConnectionActivity;
use super::stream_slot::StreamSlot;
use crate::core::http::guard::{Guard, HeadLimits, KeepAlive, Rejection};
use crate::core::http::headers::elements;
use crate::core::wire::sse::is_stream_path;
use crate::deadline::DeadlineTimer;
use crate::proxy::informational::InformationalResponses;
use crate::proxy::request::{REJECTED, StoppedConnection};
use crate::proxy::router::is_sync_stream;
use crate::telemetry;

/// How much further data is read from a client whose final response was sent, before its connection is closed, in
/// bytes.
const MAX_DISCARDED: usize = 256 * 1024;
/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 8 * 1024;

/// State shared between a guard and the service of its connection.
#[derive(Debug, Default)]
pub(super) struct GuardSignals {
    /// Why the guard accepts no further data. The service answers with it.
    pub(super) stopped: Arc<Mutex<Option<StoppedConnection>>>,
    pub(super) interim: InformationalResponses,
    pub(super) activity: Arc<ConnectionActivity>,
    pub(super) slot: Arc<StreamSlot>,
}

/// A connection behind a guard.
#[derive(Debug)]
pub(super) struct Http1Guard<T> {
    io: T,
    client: IpAddr,
    guard: Guard,
    /// Accepted bytes that hyper has not read yet.
    accepted: BytesMut,
    signals: GuardSignals,
    /// Bytes of informational responses that are not written yet.
    pending_write: BytesMut,
    is_rejected: bool,
    /// The next read must fail, because the body is incomplete.
    is_broken: bool,
    /// The time limit for a head, from its first byte; for the first head, from the start of the connection.
    head_timeout: Duration,
    timer: DeadlineTimer,
    is_timed: bool,
    /// Data has arrived.
    has_begun: bool,
    leftovers: usize,
    linger: Option<Pin<Box<Sleep>>>,
}

impl<T> Http1Guard<T> {
    pub(super) fn new(
        io: T,
        client: IpAddr,
        bounds: HeadLimits,
        head_timeout: Duration,
        signals: GuardSignals,
    ) -> Self {
        Self {
            io,
            client,
            guard: Guard::new(bounds),
            accepted: BytesMut::new(),
            signals,
            pending_write: BytesMut::new(),
            is_rejected: false,
            is_broken: false,
            head_timeout,
            timer: DeadlineTimer::after(head_timeout),
            is_timed: true,
            has_begun: false,
            leftovers: MAX_DISCARDED,
            linger: None,
        }
    }

    /// Whether the connection began with the HTTP/2 preface.
    pub(super) fn is_http2(&self) -> bool {
        self.guard.is_http2()
    }

    /// Takes back the bytes that hyper has read and not used.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        let mut accepted = BytesMut::from(bytes);
        accepted.extend_from_slice(&self.accepted);
        self.accepted = accepted;
    }

    fn reject(&mut self, rejection: Rejection) {
        let in_body = self.guard.is_in_body();
        let stopped = StoppedConnection { rejection, in_body: in_body.then(|| self.guard.heads()) };
        *self.signals.stopped.lock() = Some(stopped);
        self.is_rejected = true;
        if in_body {
            // The request was passed on already. Its body ends here, and must end with an error.
            self.is_broken = true;
            return;
        }
        let stand_in = format!("{REJECTED} / HTTP/1.1\r\nhost: rejected\r\nconnection: close\r\n\r\n");
        self.accepted.extend_from_slice(stand_in.as_bytes());
    }

    /// Starts and stops the timer of a head. Returns whether it has expired.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        if self.has_begun && !self.guard.is_waiting_for_head() {
            self.is_timed = false;
            return false;
        }
        if !self.is_timed {
            self.is_timed = true;
            self.timer.restart(self.head_timeout);
        }
        self.timer.poll_expired(cx).is_ready()
    }
}

impl<T: Read + Unpin> Http1Guard<T> {
    /// Reads until bytes are accepted. At the end of the connection there are none.
    pub(super) fn poll_accepted(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.accepted.is_empty() {
            if self.is_broken {
                self.is_broken = false;
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if self.is_rejected {
                // The connection stays open: closing it would lose the response.
                let _ = self.poll_discard(cx);
                return Poll::Pending;
            }
            let mut piece = [MaybeUninit::uninit(); CHUNK_BYTES];
            let mut read = ReadBuf::uninit(&mut piece);
            if let Poll::Ready(read_now) = Pin::new(&mut self.io).poll_read(cx, read.unfilled()) {
                read_now?;
                if read.filled().is_empty() {
                    break;
                }
                self.has_begun = true;
                if self.guard.is_ended() {
                    // A response may take hours, and data sent after its request is of no use.
                    self.leftovers = self.leftovers.saturating_sub(read.filled().len());
                    if self.leftovers == 0 {
                        return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                    }
                    continue;
                }
                let taken = self.guard.feed_with(read.filled(), &mut self.accepted, &mut keep_open);
                if let Err(rejection) = taken {
                    self.reject(rejection);
                }
                for _ in 0..self.guard.take_fragments() {
                    let Rejection { reason, detail, .. } = Rejection::fragment();
                    telemetry::RequestRejected { reason, detail: &detail, client: self.client }.emit();
                }
                if self.guard.is_http2() {
                    self.signals.activity.set_http2();
                }
                continue;
            }
            if !self.poll_overdue(cx) {
                return Poll::Pending;
            }
            if !self.has_begun {
                // There was no partial request that could be answered.
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.reject(Rejection::slow_head());
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for the end of the connection during a response. A further request waits here, and nothing behind it is
    /// read.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.accepted.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.poll_accepted(cx)) {
            Ok(()) if self.accepted.is_empty() => Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    }

    /// Reads and discards.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut piece = [0; CHUNK_BYTES];
        while self.leftovers > 0 {
            let mut buffer = ReadBuf::new(&mut piece);
            match ready!(Pin::new(&mut self.io).poll_read(cx, buffer.unfilled())) {
                Ok(()) if !buffer.filled().is_empty() => {
                    self.leftovers = self.leftovers.saturating_sub(buffer.filled().len());
                }
                _ => break,
            }
        }
        self.leftovers = 0;
        Poll::Ready(())
    }
}

impl<T: Write + Unpin> Http1Guard<T> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending_write.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.pending_write))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending_write.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the informational responses that precede what hyper is about to write.
    fn poll_send_before(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.signals.slot.begin_write() {
            self.signals.interim.take(&mut self.pending_write);
        }
        self.poll_send(cx)
    }
}

/// The name that replaces `Connection` of `Connection: close` in a head on its way to hyper. Both names have the same
/// length.
pub(super) const CLOSE: &str = "x-go-after";

/// Hides `Connection: close` in the head of a request for a stream from hyper, which would repeat it in the head of
/// the response (R14). Returns whether another request may follow. None may follow an `Upgrade` either, which is not
/// performed there.
fn keep_open(head: &mut [u8]) -> KeepAlive {
    const NAME: &[u8] = b"connection";
    const _: () = assert!(NAME.len() == CLOSE.len());

    let Some(line) = head.split(|byte| *byte == b'\r').next().and_then(|line| line.strip_prefix(b"GET "))
    else {
        return KeepAlive::Yes;
    };
    let target = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    let path = target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    // The path is decoded like later in routing.
    let path = if path.contains(&b'%') { percent_decode(path).into() } else { Cow::Borrowed(path) };
    if !is_stream_path(&path) {
        return KeepAlive::Yes;
    }
    let Ok(uri) = Uri::try_from(target) else { return KeepAlive::Yes };
    let is_sync = is_sync_stream(&uri);
    let Some(end) = memchr::memmem::find(head, b"\r\n\r\n") else { return KeepAlive::Yes };
    let mut keep_alive = KeepAlive::Yes;
    for line in head[..end].split_mut(|byte| *byte == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = line.split_at_mut(colon);
        let is_close = |option: &[u8]| option.eq_ignore_ascii_case(b"close");
        if name.eq_ignore_ascii_case(NAME) && elements(&value[1..]).any(is_close) {
            name.copy_from_slice(CLOSE.as_bytes());
            keep_alive = KeepAlive::No;
        } else if is_sync && name.eq_ignore_ascii_case(b"upgrade") {
            keep_alive = KeepAlive::No;
        }
    }
    keep_alive
}

impl<T: Read + Unpin> Read for Http1Guard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.accepted.is_empty() && this.guard.is_opaque() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        ready!(this.poll_accepted(cx))?;
        let taken = this.accepted.len().min(buf.remaining());
        buf.put_slice(&this.accepted[..taken]);
        this.accepted.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl<T: Read + Write + Unpin> Write for Http1Guard<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send_before(cx))?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.signals.slot.flushed();
        loop {
            ready!(this.poll_send(cx))?;
            this.signals.interim.take_in_time(cx, &mut this.pending_write);
            if this.pending_write.is_empty() {
                break;
            }
        }
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        // Also for a request that was answered before its body was complete.
        if (this.is_rejected || this.guard.is_in_body()) && this.leftovers > 0 {
            let linger = this.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
            if linger.as_mut().poll(cx).is_pending() {
                ready!(this.poll_discard(cx));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send_before(cx))?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::Ipv4Addr;
    use std::task::Waker;

    use http::{HeaderMap, StatusCode};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn guard(io: DuplexStream, signals: GuardSignals) -> Http1Guard<TokioIo<DuplexStream>> {
        let bounds = HeadLimits { head_bytes: 1024, header_count: 10, target_bytes: 100 };
        Http1Guard::new(TokioIo::new(io), Ipv4Addr::LOCALHOST.into(), bounds, LINGER, signals)
    }

    #[tokio::test(start_paused = true)]
    async fn interim_answers_keep_their_turn_while_the_client_takes_nothing() {
        let (ours, mut theirs) = duplex(8);
        let interim = InformationalResponses::default();
        let mut guard = guard(ours, GuardSignals { interim: interim.clone(), ..GuardSignals::default() });
        let cx = &mut Context::from_waker(Waker::noop());
        let hint = |request, status| interim.put(request, status, HeaderMap::new());

        interim.begin(1);
        hint(1, StatusCode::EARLY_HINTS);
        assert!(Pin::new(&mut guard).poll_flush(cx).is_pending());
        hint(1, StatusCode::PROCESSING);
        interim.end();
        assert!(Pin::new(&mut guard).poll_write(cx, b"first").is_pending());
        interim.begin(2);
        hint(2, StatusCode::EARLY_HINTS);

        let write = async move {
            let mut left = &b"first"[..];
            while !left.is_empty() {
                let written = poll_fn(|cx| Pin::new(&mut guard).poll_write(cx, left)).await.unwrap();
                left = &left[written..];
            }
            poll_fn(|cx| Pin::new(&mut guard).poll_flush(cx)).await.unwrap();
        };
        let mut received = String::new();
        let ((), read) = tokio::join!(write, theirs.read_to_string(&mut received));
        read.unwrap();
        let early = "HTTP/1.1 103 Early Hints\r\nvia: 1.1 proxbox-bridge\r\n\r\n";
        let processing = early.replace("103 Early Hints", "102 Processing");
        assert_eq!(received, format!("{early}{processing}first{early}"));
    }

    #[tokio::test]
    async fn a_client_that_sends_after_its_last_request_is_cut_off_and_a_disconnect_is_noticed() {
        let head = b"GET /full-update/stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        for (sent, expected) in [(MAX_DISCARDED - 1, None), (MAX_DISCARDED, Some(io::ErrorKind::InvalidData))]
        {
            let (ours, mut theirs) = duplex(CHUNK_BYTES);
            let mut guard = TokioIo::new(guard(ours, GuardSignals::default()));
            theirs.write_all(head).await.unwrap();
            let mut taken = vec![0; head.len()];
            guard.read_exact(&mut taken).await.unwrap();
            let send = async move {
                // The write may fail midway.
                let _ = theirs.write_all(&vec![b'x'; sent]).await;
            };
            let read = async move { guard.read_to_end(&mut taken).await };
            let ((), read) = tokio::join!(send, read);
            assert_eq!(read.as_ref().err().map(io::Error::kind), expected);
            assert_eq!(read.unwrap_or_default(), 0, "nothing of it goes through");
        }
    }

    #[test]
    fn only_a_sync_stream_is_kept_open_by_what_asks_for_its_end_and_never_becomes_a_tunnel() {
        let (close, upgrade) =
            ("Connection: TE, Close\r\nTE: trailers", "Connection: Upgrade\r\nUpgrade: websocket");
        let get =
            |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
        // The last value says whether `Connection` is hidden.
        for (head, expected, is_hidden) in [
            (get("/full-update/stream?x=1", close), KeepAlive::No, true),
            (get("/dcim/devices%2Fcreate/stream", close), KeepAlive::No, true),
            (get("/full-update/%73tream", close), KeepAlive::No, true),
            (get("http://a/full-update%2fstream/", close), KeepAlive::No, true),
            (get("/full-update/stream", upgrade), KeepAlive::No, false),
            (get("http://a/full-update%2fstream/?x=1", upgrade), KeepAlive::No, false),
            (get("/cluster/backup/stream", upgrade), KeepAlive::No, false),
            (get("/x/stream", upgrade), KeepAlive::Yes, false),
            (get("/full-update", upgrade), KeepAlive::Yes, false),
            (get("/full-update/stream", "Connection: keep-alive"), KeepAlive::Yes, false),
            (get("/full-update", "Connection: close"), KeepAlive::Yes, false),
            (get("/full-update/stream", close).replace("GET", "POST"), KeepAlive::Yes, false),
            (get("/x/stream", "X-Connection: close"), KeepAlive::Yes, false),
            (get("/x?/stream", "Connection: close") + "Connection: close\r\n\r\n", KeepAlive::Yes, false),
            (get("/x/stream", "TE: trailers") + &get("/", "Connection: close"), KeepAlive::Yes, false),
            (String::new(), KeepAlive::Yes, false),
        ] {
            let mut kept = head.clone().into_bytes();
            assert_eq!(keep_open(&mut kept), expected, "{head}");
            let hidden = if is_hidden { head.replace("Connection", CLOSE) } else { head };
            assert_eq!(String::from_utf8(kept).unwrap(), hidden);
        }
    }
}
