//! Informational responses of a backend (RFC 9110, section 15.2). They bypass hyper, whose server sends only its own
//! `100 Continue`.

use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::{BufMut, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, StatusCode};
use hyper::ext::on_informational;
use parking_lot::Mutex;

use super::headers::inbound;

/// The maximum number of bytes buffered for a client that does not read. Later responses are dropped: they are only
/// hints.
const MAX_BYTES: usize = 64 * 1024;

/// The informational responses to the current request of an HTTP/1.1 connection.
#[derive(Clone, Debug, Default)]
pub struct InformationalResponses(Arc<Mutex<PendingInformational>>);

#[derive(Debug, Default)]
struct PendingInformational {
    /// The number of the current request, from 1.
    request: Option<u64>,
    /// The bytes to write before the final response.
    answers: BytesMut,
    /// Wakes the writer.
    writer: Option<Waker>,
}

impl InformationalResponses {
    /// Makes `request` the current one. Unwritten responses to the previous request are dropped.
    pub fn begin(&self, request: u64) {
        let mut waiting = self.0.lock();
        waiting.request = Some(request);
        waiting.answers.clear();
    }

    /// Notes that the final response is about to be written.
    pub fn end(&self) {
        self.0.lock().request = None;
    }

    /// Moves the buffered bytes to `unsent`. No byte of the final response may have been written yet.
    pub fn take(&self, unsent: &mut BytesMut) {
        unsent.unsplit(self.0.lock().answers.split());
    }

    /// Like [`Self::take`], but drops the bytes if the final response may have been written already. The caller is
    /// woken when there are more.
    pub fn take_in_time(&self, cx: &Context<'_>, unsent: &mut BytesMut) {
        let mut waiting = self.0.lock();
        let answers = waiting.answers.split();
        if waiting.request.is_some() {
            unsent.unsplit(answers);
        }
        if !waiting.writer.as_ref().is_some_and(|writer| writer.will_wake(cx.waker())) {
            waiting.writer = Some(cx.waker().clone());
        }
    }

    /// Passes the backend's informational responses to `request` on to the client. HTTP/1.0 has none.
    pub(super) fn pass<B>(&self, request: &mut Request<B>) {
        let Some(number) = self.0.lock().request else { return };
        let this = self.clone();
        on_informational(request, move |answer| {
            // `100 Continue` is sent by hyper when the backend reads the body.
            if answer.status() != StatusCode::CONTINUE {
                this.put(number, answer.status(), answer.headers().clone());
            }
        });
    }

    /// Buffers an informational response to `request`, unless the final one has begun.
    pub fn put(&self, request: u64, status: StatusCode, mut headers: HeaderMap) {
        inbound(&mut headers);
        headers.remove(CONTENT_LENGTH);
        let mut waiting = self.0.lock();
        if waiting.request != Some(request) || waiting.answers.len() > MAX_BYTES {
            return;
        }
        let reason = status.canonical_reason().unwrap_or_default();
        let answers = &mut waiting.answers;
        answers.put_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).as_bytes());
        for (name, value) in &headers {
            answers.put_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        answers.put_slice(b"\r\n");
        if let Some(writer) = waiting.writer.take() {
            writer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;

    use super::*;

    fn hint(interim: &InformationalResponses, request: u64) {
        interim.put(request, StatusCode::EARLY_HINTS, HeaderMap::new());
    }

    fn written(interim: &InformationalResponses) -> String {
        let mut unsent = BytesMut::new();
        interim.take(&mut unsent);
        String::from_utf8(unsent.to_vec()).unwrap()
    }

    fn written_in_time(interim: &InformationalResponses) -> usize {
        let mut unsent = BytesMut::new();
        let waker = noop_waker();
        interim.take_in_time(&Context::from_waker(&waker), &mut unsent);
        unsent.len()
    }

    #[test]
    fn an_interim_answer_is_written_before_the_final_one_or_never() {
        let interim = InformationalResponses::default();
        hint(&interim, 1);
        assert_eq!(written(&interim), "", "nobody asked");

        interim.begin(1);
        hint(&interim, 1);
        let answer = "HTTP/1.1 103 Early Hints\r\nvia: 1.1 proxbox-bridge\r\n\r\n";
        assert_eq!(written_in_time(&interim), answer.len());
        hint(&interim, 1);
        interim.end();
        assert_eq!(written(&interim), answer, "what came in time is not lost");

        interim.begin(2);
        hint(&interim, 1);
        assert_eq!(written(&interim), "", "the answer to another request");
        hint(&interim, 2);
        interim.end();
        hint(&interim, 2);
        assert_eq!(written_in_time(&interim), 0, "the final answer may be out already");
        assert_eq!(written(&interim), "");

        interim.begin(3);
        hint(&interim, 3);
        interim.end();
        interim.begin(4);
        assert_eq!(written_in_time(&interim), 0, "it belonged to the request before");
    }

    #[test]
    fn what_waits_for_a_client_that_takes_nothing_is_bounded() {
        let interim = InformationalResponses::default();
        interim.begin(1);
        for _ in 0..10_000 {
            hint(&interim, 1);
        }
        assert!(written(&interim).len() < 2 * MAX_BYTES);
    }
}
