//! Records the bytes that a backend sent in a job, in the format of recordings.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::connection::ConnectionEvent;
use super::recordings::{directory, file};
use crate::core::domain::channel::Channel;
use crate::core::run::plan::Leg;
use crate::core::text::redact::Redactor;
use crate::core::upstream::dialect::Dialect;
use crate::ledger::JobId;
use crate::private;
use crate::recording::{Direction, Protocol, RecordedEvent, RecordedFrame, RecordedKey, RecordingHeader};
use crate::telemetry;

/// The recordings of one job: one file for each leg.
pub(super) struct Recorder {
    folder: PathBuf,
    job: JobId,
    /// How many bytes may still be written.
    remaining: usize,
    leg: usize,
    began: Instant,
    /// Removes secrets from the recording.
    redactor: Redactor,
    /// The end of the received bytes, held back while it may be the start of a secret.
    unwritten: Vec<u8>,
    /// The lines to write, by leg.
    lines: Vec<(usize, String)>,
    /// The recording of the leg has ended.
    ended: bool,
    writing: Option<JoinHandle<io::Result<()>>>,
}

/// The minimum size of a recording, in bytes. With less room, none is started.
const MIN_BYTES: usize = 4096;
/// The placeholder for a key.
const KEY: &str = "{\"api_key\":\"<api-key>\"}";

impl Recorder {
    /// Creates a recorder for `job` of at most `room` bytes, under `data_dir`. `redactor` removes secrets.
    pub(super) fn new(data_dir: &Path, job: JobId, room: usize, redactor: Redactor) -> Self {
        Self {
            folder: directory(data_dir),
            job,
            remaining: room,
            leg: 0,
            began: Instant::now(),
            redactor,
            unwritten: Vec::new(),
            lines: Vec::new(),
            ended: true,
            writing: None,
        }
    }

    /// Starts the recording of a leg with its request. `release` is that of the backend, if known.
    pub(super) fn open(&mut self, leg: &Leg, release: Option<&str>, target: &str, key: RecordedKey) {
        self.close();
        self.leg += 1;
        self.began = Instant::now();
        self.ended = self.remaining < MIN_BYTES;
        if self.ended {
            return;
        }
        self.lines.push((self.leg, String::new()));
        let header = RecordingHeader {
            backend: release.unwrap_or("unknown").to_owned(),
            protocol: if leg.channel == Channel::Websocket { Protocol::Websocket } else { Protocol::Http },
            key,
            note: Some(format!("leg {} of job {}", self.leg, self.job)),
        };
        self.push(&header.to_line());
        self.frame(Direction::Out, RecordedEvent::get(&self.redactor.target(target)));
    }

    /// Records an event of the connection.
    pub(super) fn record_event(&mut self, event: &ConnectionEvent, leg: Option<Channel>) {
        let is_socket = leg == Some(Channel::Websocket);
        match event {
            ConnectionEvent::Opened { .. } if is_socket => self.frame(Direction::In, response(101, [])),
            ConnectionEvent::Opened { content_type } => {
                let headers = [("content-type", content_type.clone())];
                self.frame(Direction::In, response(200, headers));
            }
            ConnectionEvent::Answered(exchange, body) => {
                let answer = exchange.error_response(body);
                let headers = [
                    ("content-type", answer.content_type),
                    ("content-encoding", answer.content_encoding),
                    ("retry-after", answer.retry_after),
                ];
                let hidden = |value: &str| self.redactor.text(value).into_owned();
                let headers = headers.map(|(name, value)| (name, value.map(hidden)));
                self.frame(Direction::In, response(answer.status, headers));
                self.body(body);
                self.end_with(Direction::In, RecordedEvent::End);
            }
            ConnectionEvent::Bytes(bytes) => self.body(bytes),
            ConnectionEvent::Text(text) => {
                self.frame(Direction::In, RecordedEvent::text(self.redactor.text(text)))
            }
            ConnectionEvent::Cleanly if is_socket => self.end_with(Direction::In, RecordedEvent::Cut),
            ConnectionEvent::Cleanly => self.end_with(Direction::In, RecordedEvent::End),
            ConnectionEvent::Broken(_) | ConnectionEvent::Unreachable(_) => {
                self.end_with(Direction::In, RecordedEvent::Cut)
            }
            ConnectionEvent::Close { code, reason } => {
                let reason = self.redactor.text(reason).into_owned();
                self.end_with(Direction::In, RecordedEvent::Close { code: Some(*code), reason });
            }
        }
    }

    /// Records text frames sent to the backend.
    pub(super) fn record_sent(&mut self, texts: &[String]) {
        for text in texts {
            let text = if Dialect::is_key_frame(text) { KEY } else { text };
            self.frame(Direction::Out, RecordedEvent::text(self.redactor.text(text)));
        }
    }

    fn body(&mut self, bytes: &[u8]) {
        let redacted = self.redactor.chunk(&mut self.unwritten, bytes);
        if !redacted.is_empty() {
            self.frame(Direction::In, RecordedEvent::Body(redacted.into()));
        }
    }

    /// Records that the bridge closes the connection.
    pub(super) fn close(&mut self) {
        if !self.ended {
            self.end_with(Direction::Ctl, RecordedEvent::Open);
        }
    }

    /// Starts to write the pending lines to the files, unless an earlier write is under way: a hung disk must not
    /// delay the job.
    pub(super) async fn write(&mut self) {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        self.flushed().await;
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

    /// Waits until the pending lines are written. If the write fails, the recording ends here, and the failure is
    /// logged once.
    async fn flushed(&mut self) {
        let Some(writing) = &mut self.writing else { return };
        let written = writing.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        self.writing = None;
        if let Err(error) = written {
            telemetry::RecordingFailed { error: &error }.emit();
            self.remaining = 0;
            self.ended = true;
            self.lines.clear();
        }
    }

    /// Ends the recording, and waits until it is written, for `limit` at most.
    pub(super) async fn end(&mut self, limit: Duration) {
        self.close();
        let written = async {
            self.flushed().await;
            self.write().await;
            self.flushed().await;
        };
        // A hung disk is not waited for.
        let _ = timeout(limit, written).await;
    }

    /// Removes the files, within `limit`. What remains is removed with the log of the job.
    pub(super) async fn discard(&mut self, limit: Duration) {
        let (folder, job, legs) = (self.folder.clone(), self.job, self.leg);
        let files = (1..=legs).map(move |leg| file(&folder, job, leg));
        // A file is missing if nothing could be written.
        let remove = || files.for_each(|file| drop(fs::remove_file(file)));
        let _ = timeout(limit, tokio::task::spawn_blocking(remove)).await;
    }

    fn frame(&mut self, direction: Direction, event: RecordedEvent) {
        if self.ended {
            return;
        }
        let t_ms = self.began.elapsed().as_secs_f64() * 1000.0;
        let t_ms = (t_ms * 10.0).round() / 10.0;
        self.push(&RecordedFrame { t_ms, direction, event }.to_line());
        if self.remaining == 0 {
            // The rest is omitted, and the recording states it.
            self.ended = true;
            self.append(
                &RecordedFrame { t_ms, direction: Direction::Ctl, event: RecordedEvent::Open }.to_line(),
            );
        }
    }

    fn end_with(&mut self, direction: Direction, event: RecordedEvent) {
        let rest = Redactor::rest(&mut self.unwritten);
        if !rest.is_empty() {
            self.frame(Direction::In, RecordedEvent::Body(rest.into()));
        }
        self.frame(direction, event);
        self.ended = true;
    }

    fn push(&mut self, line: &str) {
        match self.remaining.checked_sub(line.len()) {
            Some(room) => {
                self.remaining = room;
                self.append(line);
            }
            None => self.remaining = 0,
        }
    }

    fn append(&mut self, line: &str) {
        if let Some((_, lines)) = self.lines.last_mut() {
            lines.push_str(line);
        }
    }
}

/// The head of a response, with the `headers` that are present.
fn response<const N: usize>(status: u16, headers: [(&str, Option<String>); N]) -> RecordedEvent {
    let headers = headers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    RecordedEvent::Response { status, headers: headers.collect() }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use bytes::Bytes;
    use futures::FutureExt;
    use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, openat};
    use tokio::task::yield_now;
    use tokio::time::advance;

    use super::*;
    use crate::core::domain::kind::{Kind, SyncEndpoint};
    use crate::recording::Recording;

    const SECRET: &str = "secret-of-a-client";
    const PLENTY: usize = 1 << 20;
    const PIPE_BUFFER: usize = 1 << 16;

    fn recorder(data_dir: &Path, job: JobId, room: usize) -> Recorder {
        Recorder::new(data_dir, job, room, Redactor::new([SECRET]))
    }

    fn open(recorder: &mut Recorder, channel: Channel) {
        let endpoint = SyncEndpoint::for_kind(Kind::Devices);
        let leg = Leg { endpoint, kinds: vec![Kind::Devices], channel, command: None };
        recorder.open(&leg, None, &leg.path(), RecordedKey::Sent);
    }

    fn read(data_dir: &Path, job: JobId, leg: usize) -> Vec<(f64, Direction, RecordedEvent)> {
        let text = fs::read_to_string(file(&directory(data_dir), job, leg)).unwrap();
        let frames = Recording::parse(&text).unwrap().frames;
        frames.into_iter().map(|frame| (frame.t_ms, frame.direction, frame.event)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_is_recorded_without_keys_from_its_handshake_to_its_end() {
        let (folder, job) = (tempfile::tempdir().unwrap(), JobId::new());
        let mut recorder = recorder(folder.path(), job, PLENTY);
        open(&mut recorder, Channel::Websocket);
        let leg = Some(Channel::Websocket);
        recorder.record_event(&ConnectionEvent::Opened { content_type: None }, leg);
        let key = "{\"api_key\":\"another-secret\"}";
        recorder.record_sent(&[key.to_owned(), format!("Sync {SECRET}")]);
        recorder.record_event(&ConnectionEvent::Text(format!("No {SECRET}.").into()), leg);
        recorder.record_event(&ConnectionEvent::Cleanly, leg);
        recorder.end(Duration::from_secs(60)).await;
        let expected = [
            (Direction::Out, RecordedEvent::get("/ws")),
            (Direction::In, response(101, [])),
            (Direction::Out, RecordedEvent::text(KEY)),
            (Direction::Out, RecordedEvent::text("Sync [hidden]")),
            (Direction::In, RecordedEvent::text("No [hidden].")),
            (Direction::In, RecordedEvent::Cut),
        ];
        assert_eq!(read(folder.path(), job, 1), expected.map(|(direction, event)| (0.0, direction, event)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_recorded_to_its_last_byte_with_the_time_of_each_event() {
        let (folder, job) = (tempfile::tempdir().unwrap(), JobId::new());
        let mut recorder = recorder(folder.path(), job, PLENTY);
        let leg = Some(Channel::Native);
        for _ in 1..=2 {
            open(&mut recorder, Channel::Native);
            advance(Duration::from_millis(2500)).await;
            let content_type = Some("text/event-stream".to_owned());
            recorder.record_event(&ConnectionEvent::Opened { content_type }, leg);
            recorder.write().await;
            recorder.flushed().await;
            advance(Duration::from_micros(1234)).await;
            // The last bytes may be the start of the secret.
            recorder.record_event(&ConnectionEvent::Bytes(Bytes::from("data: se")), leg);
        }
        recorder.record_event(&ConnectionEvent::Cleanly, leg);
        recorder.end(Duration::from_secs(60)).await;
        let begin = [
            (0.0, Direction::Out, RecordedEvent::get("/dcim/devices/create/stream")),
            (2500.0, Direction::In, response(200, [("content-type", Some("text/event-stream".to_owned()))])),
            (2501.2, Direction::In, RecordedEvent::Body("data: ".into())),
            (2501.2, Direction::In, RecordedEvent::Body("se".into())),
        ];
        // The bridge ends the first leg, and the backend the second.
        for (leg, direction, end) in
            [(1, Direction::Ctl, RecordedEvent::Open), (2, Direction::In, RecordedEvent::End)]
        {
            let expected: Vec<_> = begin.iter().cloned().chain([(2501.2, direction, end)]).collect();
            assert_eq!(read(folder.path(), job, leg), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_recording_ends_where_it_could_not_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let (data_dir, job) = (folder.path().join("data"), JobId::new());
        fs::write(&data_dir, "not a directory").unwrap();
        let mut recorder = recorder(&data_dir, job, PLENTY);
        open(&mut recorder, Channel::Native);
        recorder.write().await;
        while recorder.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            yield_now().await;
        }
        fs::remove_file(&data_dir).unwrap();
        recorder.record_event(&ConnectionEvent::Bytes(Bytes::from("data: {}")), Some(Channel::Native));
        recorder.end(Duration::from_secs(60)).await;
        assert!(!data_dir.exists());
    }

    #[tokio::test]
    async fn a_disk_that_hangs_does_not_delay_the_job() {
        let (folder, job) = (tempfile::tempdir().unwrap(), JobId::new());
        fs::create_dir(directory(folder.path())).unwrap();
        // Opening a pipe blocks until it has a reader.
        let pipe = file(&directory(folder.path()), job, 1);
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let mut recorder = recorder(folder.path(), job, PLENTY);
        open(&mut recorder, Channel::Native);
        for _ in 0..2 {
            assert!(recorder.write().now_or_never().is_some());
            recorder.record_event(&ConnectionEvent::Bytes(Bytes::from("data: {}")), Some(Channel::Native));
        }
        recorder.end(Duration::from_millis(1)).await;
        // Open for both directions, the pipe holds what is written until it is read.
        let pipe = openat(CWD, &pipe, OFlags::RDWR | OFlags::NONBLOCK, Mode::empty()).unwrap();
        recorder.end(Duration::from_secs(60)).await;
        let mut written = vec![0; PIPE_BUFFER];
        let length = File::from(pipe).read(&mut written).unwrap();
        assert!(Recording::parse(std::str::from_utf8(&written[..length]).unwrap()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn no_recording_begins_with_too_little_room() {
        for (room, begins) in [(MIN_BYTES - 1, false), (MIN_BYTES, true)] {
            let (folder, job) = (tempfile::tempdir().unwrap(), JobId::new());
            let mut recorder = recorder(folder.path(), job, room);
            open(&mut recorder, Channel::Native);
            recorder.end(Duration::from_secs(60)).await;
            assert_eq!(file(&directory(folder.path()), job, 1).exists(), begins, "{room}");
        }
    }
}
