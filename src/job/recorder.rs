//! What a backend said in a job, word for word, in the format of recordings.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::connection::Arrived;
use super::recordings::{file, folder};
use crate::core::domain::channel::Channel;
use crate::core::run::plan::Leg;
use crate::core::text::redact::Redactor;
use crate::core::upstream::dialect::Dialect;
use crate::ledger::JobId;
use crate::private;
use crate::recording::{Direction, Event, Frame, Header, Key, Protocol};
use crate::telemetry;

/// The recordings of one job: one file for each of its legs.
pub(super) struct Tape {
    folder: PathBuf,
    job: JobId,
    /// How many bytes may still be written.
    room: usize,
    leg: usize,
    began: Instant,
    /// What may not be written.
    redactor: Redactor,
    /// The end of what has come, while it may be the beginning of a secret.
    held: Vec<u8>,
    /// What is to be written, by leg.
    lines: Vec<(usize, String)>,
    /// Whether the recording of the leg has come to an end.
    ended: bool,
    writing: Option<JoinHandle<io::Result<()>>>,
}

/// A recording that could hold less than this, in bytes, is not begun.
const LEAST: usize = 4096;
/// What stands in the place of a key.
const KEY: &str = "{\"api_key\":\"<api-key>\"}";

impl Tape {
    /// A tape for `job`, of at most `room` bytes, under the data directory `folder`, without the secrets that
    /// `redactor` knows.
    pub(super) fn new(data_dir: &Path, job: JobId, room: usize, redactor: Redactor) -> Self {
        Self {
            folder: folder(data_dir),
            job,
            room,
            leg: 0,
            began: Instant::now(),
            redactor,
            held: Vec::new(),
            lines: Vec::new(),
            ended: true,
            writing: None,
        }
    }

    /// A leg begins with a request to `release`, if that is known.
    pub(super) fn open(&mut self, leg: &Leg, release: Option<&str>, target: &str, has_key: bool) {
        self.close();
        self.leg += 1;
        self.began = Instant::now();
        self.ended = self.room < LEAST;
        if self.ended {
            return;
        }
        self.lines.push((self.leg, String::new()));
        let header = Header {
            backend: release.unwrap_or("unknown").to_owned(),
            protocol: if leg.channel == Channel::Websocket { Protocol::Websocket } else { Protocol::Http },
            key: if has_key { Key::Sent } else { Key::None },
            note: Some(format!("leg {} of job {}", self.leg, self.job)),
        };
        self.push(&header.to_line());
        self.frame(Direction::Out, Event::get(&self.redactor.target(target)));
    }

    /// Something came from the backend.
    pub(super) fn arrived(&mut self, arrived: &Arrived, leg: Option<Channel>) {
        let is_socket = leg == Some(Channel::Websocket);
        match arrived {
            Arrived::Opened { .. } if is_socket => self.frame(Direction::In, response(101, [])),
            Arrived::Opened { content_type } => {
                let headers = [("content-type", content_type.clone())];
                self.frame(Direction::In, response(200, headers));
            }
            Arrived::Answered(exchange, body) => {
                let answer = exchange.answer(body);
                let headers = [
                    ("content-type", answer.content_type),
                    ("content-encoding", answer.content_encoding),
                    ("retry-after", answer.retry_after),
                ];
                let hidden = |value: &str| self.redactor.text(value).into_owned();
                let headers = headers.map(|(name, value)| (name, value.map(hidden)));
                self.frame(Direction::In, response(answer.status, headers));
                self.body(body);
                self.last(Direction::In, Event::End);
            }
            Arrived::Bytes(bytes) => self.body(bytes),
            Arrived::Text(text) => self.frame(Direction::In, Event::text(self.redactor.text(text))),
            Arrived::Cleanly if is_socket => self.last(Direction::In, Event::Cut),
            Arrived::Cleanly => self.last(Direction::In, Event::End),
            Arrived::Broken(_) | Arrived::Unreachable(_) => self.last(Direction::In, Event::Cut),
            Arrived::Close { code, reason } => {
                let reason = self.redactor.text(reason).into_owned();
                self.last(Direction::In, Event::Close { code: Some(*code), reason });
            }
        }
    }

    /// Text frames go to the backend.
    pub(super) fn sent(&mut self, texts: &[String]) {
        for text in texts {
            let text = if Dialect::is_key_frame(text) { KEY } else { text };
            self.frame(Direction::Out, Event::text(self.redactor.text(text)));
        }
    }

    fn body(&mut self, bytes: &[u8]) {
        let known = self.redactor.piece(&mut self.held, bytes);
        if !known.is_empty() {
            self.frame(Direction::In, Event::Body(known.into()));
        }
    }

    /// We hang up.
    pub(super) fn close(&mut self) {
        if !self.ended {
            self.last(Direction::Ctl, Event::Open);
        }
    }

    /// Begins to write what there is to its files, unless it is still writing: a disk that hangs must not
    /// hold the job up.
    pub(super) async fn write(&mut self) {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        self.written().await;
        if self.lines.iter().all(|(_, lines)| lines.is_empty()) {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        if !self.ended {
            self.lines.push((self.leg, String::new()));
        }
        let (folder, job) = (self.folder.clone(), self.job);
        self.writing = Some(tokio::task::spawn_blocking(move || {
            private::create_dir_all(&folder)?;
            for (leg, lines) in lines {
                let file = file(&folder, job, leg);
                private::append(&file)?.write_all(lines.as_bytes())?;
            }
            Ok(())
        }));
    }

    /// Waits until it has written. One that cannot be written ends here, and says so once.
    async fn written(&mut self) {
        let Some(writing) = &mut self.writing else { return };
        let written = writing.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        self.writing = None;
        if let Err(error) = written {
            telemetry::RecordingFailed { error: &error }.emit();
            self.room = 0;
            self.ended = true;
            self.lines.clear();
        }
    }

    /// Ends the recording, and waits until it is written, but not for longer than `limit`.
    pub(super) async fn end(&mut self, limit: Duration) {
        self.close();
        let written = async {
            self.written().await;
            self.write().await;
            self.written().await;
        };
        // Nobody waits for a disk that hangs.
        let _ = timeout(limit, written).await;
    }

    fn frame(&mut self, direction: Direction, event: Event) {
        if self.ended {
            return;
        }
        let t_ms = self.began.elapsed().as_secs_f64() * 1000.0;
        let t_ms = (t_ms * 10.0).round() / 10.0;
        self.push(&Frame { t_ms, direction, event }.to_line());
        if self.room == 0 {
            // What comes after is left out, and the recording says so.
            self.ended = true;
            self.append(&Frame { t_ms, direction: Direction::Ctl, event: Event::Open }.to_line());
        }
    }

    fn last(&mut self, direction: Direction, event: Event) {
        let rest = Redactor::rest(&mut self.held);
        if !rest.is_empty() {
            self.frame(Direction::In, Event::Body(rest.into()));
        }
        self.frame(direction, event);
        self.ended = true;
    }

    fn push(&mut self, line: &str) {
        match self.room.checked_sub(line.len()) {
            Some(room) => {
                self.room = room;
                self.append(line);
            }
            None => self.room = 0,
        }
    }

    fn append(&mut self, line: &str) {
        if let Some((_, lines)) = self.lines.last_mut() {
            lines.push_str(line);
        }
    }
}

/// The head of an answer, with the headers that it has.
fn response<const N: usize>(status: u16, headers: [(&str, Option<String>); N]) -> Event {
    let headers = headers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Event::Response { status, headers: headers.collect() }
}
