//! A recorded WebSocket, taken apart into what answers what.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use crate::recording::{Direction, Event, Key, Recording};

/// Things to do, each at its time after the moment that the script answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Script {
    pub(super) steps: Vec<Step>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) after: Duration,
    pub(super) act: Act,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    Text(String),
    Binary(Bytes),
    Ping(Bytes),
    Close {
        code: Option<u16>,
        reason: String,
    },
    Cut,
    /// Begin with the next command.
    Returned,
}

impl Script {
    pub(super) fn push(&mut self, after: Duration, act: Act) {
        self.steps.push(Step { after, act });
    }

    /// A script that says these texts at once and is done.
    pub(super) fn of_texts(texts: impl IntoIterator<Item = String>) -> Self {
        let acts = texts.into_iter().map(Act::Text).chain([Act::Returned]);
        Self { steps: acts.map(|act| Step { after: Duration::ZERO, act }).collect() }
    }

    /// The texts in it.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|step| match &step.act {
            Act::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The same script with other texts.
    pub(super) fn map_texts(mut self, change: impl Fn(&str) -> String) -> Self {
        for step in &mut self.steps {
            if let Act::Text(text) = &mut step.act {
                *text = change(text);
            }
        }
        self
    }

    /// The same script, which frees the command loop after its last step unless it did so before.
    pub(super) fn returning(mut self) -> Self {
        if !self.has_end() {
            let after = self.steps.last().map_or(Duration::ZERO, |step| step.after);
            self.push(after, Act::Returned);
        }
        self
    }

    /// A greeting: the command loop begins once its last text is out. Pings may follow later.
    pub(super) fn returning_after_texts(mut self) -> Self {
        if !self.has_end() {
            let is_text = |step: &Step| matches!(step.act, Act::Text(_));
            let at = self.steps.iter().rposition(is_text).map_or(0, |last| last + 1);
            let after = self.steps[..at].last().map_or(Duration::ZERO, |step| step.after);
            self.steps.insert(at, Step { after, act: Act::Returned });
        }
        self
    }

    /// Whether the command loop or the connection ends in it.
    fn has_end(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.act, Act::Returned | Act::Close { .. } | Act::Cut))
    }
}

/// A command and what the backend did about it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) command: String,
    pub(super) script: Script,
    /// The recording that it comes from.
    pub(super) name: String,
    /// The first command of its recording: nothing left over from another one is in it.
    first: bool,
    /// The client did not interrupt it with its next command.
    whole: bool,
}

impl Segment {
    /// The worse, the higher.
    pub(super) fn flaws(&self) -> u8 {
        u8::from(!self.whole) * 2 + u8::from(!self.first)
    }
}

/// A recorded WebSocket: what came before the first command, and every command.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    /// The client sent a key first.
    pub(super) showed_key: bool,
    /// What came before the first command, after the key or the handshake.
    pub(super) greeting: Script,
    pub(super) segments: Vec<Segment>,
}

impl Conversation {
    pub(super) fn of(name: &str, recording: &Recording) -> Self {
        let mut showed_key = false;
        let mut start = Duration::ZERO;
        let mut greeting = Script::default();
        let mut segments: Vec<Segment> = Vec::new();
        for frame in &recording.frames {
            let act = match (&frame.event, frame.direction) {
                (Event::Response { .. }, _) => {
                    start = frame.at();
                    continue;
                }
                (Event::Text(text), Direction::Out) => {
                    start = frame.at();
                    if segments.is_empty() && key_in(text).is_some() {
                        showed_key = true;
                        greeting = Script::default();
                        continue;
                    }
                    if let Some(last) = segments.last_mut() {
                        last.whole = last.script.has_end();
                    }
                    segments.push(Segment {
                        command: text.clone(),
                        script: Script::default(),
                        name: name.to_owned(),
                        first: segments.is_empty(),
                        whole: true,
                    });
                    continue;
                }
                // What follows answers these, and this server answers them by itself.
                (Event::Binary(_) | Event::Close { .. }, Direction::Out) => break,
                (Event::Text(text), Direction::In) => Act::Text(text.clone()),
                (Event::Binary(bytes), Direction::In) => Act::Binary(bytes.clone()),
                (Event::Ping(bytes), Direction::In) => Act::Ping(bytes.clone()),
                (Event::Close { code, reason }, Direction::In) => {
                    Act::Close { code: *code, reason: reason.clone() }
                }
                (Event::Cut, _) => Act::Cut,
                (Event::Returned, _) => Act::Returned,
                _ => continue,
            };
            let script = segments.last_mut().map_or(&mut greeting, |segment| &mut segment.script);
            script.push(frame.at().saturating_sub(start), act);
        }
        Self { showed_key, greeting, segments }
    }

    /// Whether the client was turned away for its key.
    pub(super) fn turned_away(&self, recording: &Recording) -> bool {
        let closes = |act: &Act| matches!(act, Act::Close { code: Some(4001), .. });
        recording.header.key == Key::Wrong || self.greeting.steps.iter().any(|step| closes(&step.act))
    }
}

/// The key in a WebSocket's first text, if it is one that carries a key.
pub(super) fn key_in(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct KeyFrame {
        api_key: String,
    }
    serde_json::from_str::<KeyFrame>(text).ok().map(|frame| frame.api_key)
}

/// The status of a recorded handshake's response, if there was one.
pub(super) fn status(recording: &Recording) -> Option<u16> {
    recording.frames.iter().find_map(|frame| match frame.event {
        Event::Response { status, .. } => Some(status),
        _ => None,
    })
}
