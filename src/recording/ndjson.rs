//! Reading and writing a whole recording.

use std::io;
use std::path::{Path, PathBuf};

use super::line::{HeaderLine, LineError, parse_frame, parse_header};
use super::{RecordedEvent, RecordedFrame, Recording, RecordingHeader};

/// Why a file could not be read as a recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file is not a valid recording.
    #[error("{}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line and the reason.
        source: ParseError,
    },
}

/// Why a text is not a valid recording.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {wrong}")]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: usize,
    /// The reason.
    #[source]
    pub wrong: LineError,
}

impl Recording {
    /// Parses a recording from NDJSON. Empty lines are skipped.
    ///
    /// # Errors
    /// [`ParseError`] names the first invalid line.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let (index, first) = lines.next().ok_or(ParseError { line: 1, wrong: LineError::Empty })?;
        let header = parse_header(first).map_err(|wrong| ParseError { line: index + 1, wrong })?;
        let mut recording = Self { header, frames: Vec::new() };
        for (index, line) in lines {
            let here = |wrong| ParseError { line: index + 1, wrong };
            if recording.frames.last().is_some_and(|frame| frame.event == RecordedEvent::Open) {
                return Err(here(LineError::AfterOpen));
            }
            recording.frames.push(parse_frame(line).map_err(here)?);
        }
        Ok(recording)
    }

    /// Reads a recording from a file.
    ///
    /// # Errors
    /// [`RecordingError`] names the file, and the line if it is invalid.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, RecordingError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|source| RecordingError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|source| RecordingError::Parse { path: path.to_owned(), source })
    }

    /// The recording as NDJSON.
    pub fn to_ndjson(&self) -> String {
        let mut text = self.header.to_line();
        for frame in &self.frames {
            text.push_str(&frame.to_line());
        }
        text
    }
}

impl RecordingHeader {
    /// The first line of a recording, with its line end.
    pub fn to_line(&self) -> String {
        line(&HeaderLine::from_header(self))
    }
}

impl RecordedFrame {
    /// A line of a recording, with its line end.
    pub fn to_line(&self) -> String {
        line(self)
    }
}

fn line(line: &impl serde::Serialize) -> String {
    // A struct of strings and numbers: serializing it does not fail.
    #[expect(clippy::expect_used, reason = "see above")]
    let mut text = serde_json::to_string(line).expect("a line is plain data");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Direction, Protocol, RecordedKey};

    const HEAD: &str = r#"{"recording":1,"backend":"0.0.11.post2","protocol":"http","key":"sent"}"#;

    fn everything() -> Recording {
        let mut recording = Recording::new("0.0.11.post2", Protocol::Websocket, RecordedKey::Sent)
            .with(0.0, Direction::Out, RecordedEvent::get("/ws?type=qemu"))
            .with(
                1.25,
                Direction::In,
                RecordedEvent::Response { status: 101, headers: vec![("server".into(), "uvicorn".into())] },
            )
            .with(2.0, Direction::In, RecordedEvent::Body("café\u{2028}\n".into()))
            .with(2.0, Direction::In, RecordedEvent::Body(vec![0xff, 0x00, 0xc3].into()))
            .with(2.0, Direction::In, RecordedEvent::End)
            .with(3.0, Direction::Out, RecordedEvent::text("Sync Nodes"))
            .with(3.5, Direction::In, RecordedEvent::text(""))
            .with(3.5, Direction::Out, RecordedEvent::Binary(vec![1, 2, 3].into()))
            .with(3.5, Direction::In, RecordedEvent::Ping(vec![0xd2, 0x3c].into()))
            .with(3.5, Direction::Out, RecordedEvent::Pong(vec![0xd2, 0x3c].into()))
            .with(4.0, Direction::In, RecordedEvent::Close { code: Some(1000), reason: String::new() })
            .with(4.0, Direction::In, RecordedEvent::Close { code: None, reason: String::new() })
            .with(4.0, Direction::In, RecordedEvent::Cut)
            .with(4.5, Direction::Ctl, RecordedEvent::Returned)
            .with(5.0, Direction::Ctl, RecordedEvent::Open);
        recording.header.note = Some("a note".to_owned());
        recording
    }

    #[test]
    fn what_is_written_is_read_back_and_written_alike() {
        let recording = everything();
        let text = recording.to_ndjson();
        let again = Recording::parse(&text).unwrap();
        assert_eq!(again, recording);
        assert_eq!(again.to_ndjson(), text);
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number() {
        for (line, wrong) in [
            ("", "empty"),
            ("{\"recording\":2,\"backend\":\"x\",\"protocol\":\"http\",\"key\":\"none\"}", "format 2"),
            (&format!("{HEAD}\n\nnot json"), "line 3"),
            (&format!("{HEAD}\n{{\"t_ms\":1,\"dir\":\"in\",\"kind\":\"response\"}}"), "line 2"),
            (&format!("{HEAD}\n{{\"t_ms\":1,\"dir\":\"in\",\"kind\":\"response\"}}"), "status"),
            (&format!("{HEAD}\n{{\"t_ms\":-1,\"dir\":\"in\",\"kind\":\"end\"}}"), "t_ms"),
            (&format!("{HEAD}\n{{\"t_ms\":1,\"dir\":\"out\",\"kind\":\"end\"}}"), "dir"),
            (&format!("{HEAD}\n{{\"t_ms\":1,\"dir\":\"in\",\"kind\":\"body\"}}"), "base64"),
        ] {
            let error = Recording::parse(line).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error:?} does not say {wrong:?}");
        }
    }

    #[test]
    fn fields_of_a_newer_recorder_are_passed_over() {
        let line = format!("{HEAD}\n{{\"t_ms\":1,\"dir\":\"in\",\"kind\":\"end\",\"new\":true}}");
        assert_eq!(Recording::parse(&line).unwrap().frames.len(), 1);
    }
}
