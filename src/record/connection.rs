//! The exchanges on one connection, from its bytes in both directions.

use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Run;
use super::body::BodyDecoder;
use super::exchange::Exchange;
use super::message::MessageReader;
use crate::backend::{ConnectionObserver, LastRelease};
use crate::recording::{Direction, Headers, RecordedEvent};

/// The maximum number of headers of a message; hyper accepts 100.
const MAX_HEADERS: usize = 128;
/// The maximum length of a request body that is searched for secrets, in bytes.
const MAX_REQUEST_BODY: usize = 1 << 20;

/// A connection to the backend. The bridge sends the next request on it when the response to the previous one has ended.
#[derive(Debug)]
pub(super) struct Connection {
    run: Arc<Run>,
    release: LastRelease,
    sent: MessageState,
    /// The beginning of the current request's body, for the secrets in it.
    request_body: Vec<u8>,
    received: MessageState,
    exchange: Option<Exchange>,
}

/// The position in the bytes of one direction.
#[derive(Debug)]
enum MessageState {
    /// The head of a message, as far as it has arrived.
    Head(Vec<u8>),
    Body(BodyDecoder),
    Socket(MessageReader),
    /// Bytes that are not HTTP.
    Opaque,
}

/// The head of a message.
struct Head {
    /// Its length in bytes.
    length: usize,
    method: String,
    target: String,
    status: u16,
    headers: Headers,
}

/// The observer of a connection. The connection is closed when it is dropped.
#[derive(Debug)]
pub(super) struct ObservedConnection(pub(super) Arc<Mutex<Connection>>);

impl ConnectionObserver for ObservedConnection {
    fn sent(&mut self, bytes: &[u8]) {
        self.0.lock().sent(bytes);
    }

    fn received(&mut self, bytes: &[u8]) {
        self.0.lock().received(bytes);
    }

    fn ended(&mut self) {
        self.0.lock().ended();
    }
}

impl Drop for ObservedConnection {
    fn drop(&mut self) {
        self.0.lock().close();
    }
}

impl Connection {
    pub(super) fn new(run: Arc<Run>, release: LastRelease) -> Self {
        Self {
            run,
            release,
            sent: MessageState::Head(Vec::new()),
            request_body: Vec::new(),
            received: MessageState::Head(Vec::new()),
            exchange: None,
        }
    }

    fn sent(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        while !bytes.is_empty() {
            match &mut self.sent {
                MessageState::Head(held) => {
                    held.append(&mut bytes);
                    match parse_request(held) {
                        Ok(None) => return,
                        Ok(Some(head)) => {
                            bytes = held.split_off(head.length);
                            self.begin(head);
                        }
                        Err(_) => self.sent = MessageState::Opaque,
                    }
                }
                MessageState::Body(decoder) => {
                    let used = decoder.decode(&bytes, &mut self.request_body);
                    bytes.drain(..used);
                    self.request_body.truncate(MAX_REQUEST_BODY);
                }
                MessageState::Socket(reader) => {
                    let events = reader.read(&bytes);
                    if let Some(exchange) = &mut self.exchange {
                        events.into_iter().for_each(|event| exchange.message(Direction::Out, event));
                    }
                    return;
                }
                MessageState::Opaque => return,
            }
            if let MessageState::Body(decoder) = &self.sent
                && decoder.is_done()
            {
                self.run.learn_from(&mem::take(&mut self.request_body));
                self.sent = MessageState::Head(Vec::new());
            }
        }
    }

    /// Begins the exchange of a request.
    fn begin(&mut self, head: Head) {
        let Head { method, target, headers, .. } = head;
        self.sent = MessageState::Body(BodyDecoder::from_headers(&headers, BodyDecoder::Length(0)));
        let exchange = Exchange::begin(&self.run, &self.release, method, &target, headers);
        self.exchange = Some(exchange);
    }

    fn received(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        while !bytes.is_empty() {
            let Some(exchange) = &mut self.exchange else { return };
            match &mut self.received {
                MessageState::Head(held) => {
                    held.append(&mut bytes);
                    match parse_response(held) {
                        Ok(None) => return,
                        Ok(Some(head)) => {
                            bytes = held.split_off(head.length);
                            self.respond(head);
                        }
                        Err(_) => self.received = MessageState::Opaque,
                    }
                }
                MessageState::Body(decoder) => {
                    let mut data = Vec::new();
                    let used = decoder.decode(&bytes, &mut data);
                    bytes.drain(..used);
                    exchange.body(&data);
                }
                MessageState::Socket(reader) => {
                    for event in reader.read(&bytes) {
                        exchange.message(Direction::In, event);
                    }
                    return;
                }
                MessageState::Opaque => return,
            }
            if let MessageState::Body(decoder) = &self.received
                && decoder.is_done()
            {
                self.end(Direction::In, RecordedEvent::End);
            }
        }
    }

    /// Records the head of a response.
    fn respond(&mut self, head: Head) {
        let (status, headers) = (head.status, head.headers);
        let Some(exchange) = &mut self.exchange else { return };
        self.received = match status {
            101 => {
                self.sent = MessageState::Socket(MessageReader::default());
                MessageState::Socket(MessageReader::default())
            }
            // The response is still to come.
            100..200 => {
                self.received = MessageState::Head(Vec::new());
                return;
            }
            204 | 304 => MessageState::Body(BodyDecoder::Length(0)),
            _ if exchange.is_head() => MessageState::Body(BodyDecoder::Length(0)),
            _ => MessageState::Body(BodyDecoder::from_headers(&headers, BodyDecoder::UntilClose)),
        };
        exchange.respond(status, headers);
        if let MessageState::Body(decoder) = &self.received
            && decoder.is_done()
        {
            self.end(Direction::In, RecordedEvent::End);
        }
    }

    /// Ends the exchange, and waits for the next one.
    fn end(&mut self, direction: Direction, event: RecordedEvent) {
        self.received = MessageState::Head(Vec::new());
        if let Some(exchange) = self.exchange.take() {
            exchange.end(direction, event);
        }
    }

    /// The backend closed the connection, or it broke.
    fn ended(&mut self) {
        match &self.received {
            MessageState::Body(BodyDecoder::UntilClose) => self.end(Direction::In, RecordedEvent::End),
            _ => self.end(Direction::In, RecordedEvent::Cut),
        }
    }

    /// The bridge closes the connection.
    pub(super) fn close(&mut self) {
        self.end(Direction::Ctl, RecordedEvent::Open);
    }
}

/// The head of a request, if it is complete.
fn parse_request(bytes: &[u8]) -> Result<Option<Head>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = request.parse(bytes)? else { return Ok(None) };
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let (method, target) = (method.to_owned(), target.to_owned());
    Ok(Some(Head { length, method, target, status: 0, headers: owned(request.headers) }))
}

/// The head of a response, if it is complete.
fn parse_response(bytes: &[u8]) -> Result<Option<Head>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes)? else { return Ok(None) };
    let (status, headers) = (response.code.unwrap_or_default(), owned(response.headers));
    Ok(Some(Head { length, method: String::new(), target: String::new(), status, headers }))
}

fn owned(headers: &[httparse::Header<'_>]) -> Headers {
    let text = |value| String::from_utf8_lossy(value).into_owned();
    headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect()
}
