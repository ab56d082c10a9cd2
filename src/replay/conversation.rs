//! A recorded WebSocket, split into commands and their answers.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

use super::script::{Script, ScriptAction};
use crate::core::upstream::dialect::BARRIER;
use crate::recording::{Direction, RecordedEvent, RecordedFrame, RecordedKey, Recording, key_in};

/// A command and the backend's answer to it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) command: String,
    pub(super) script: Script,
    /// The name of its recording.
    pub(super) name: String,
    /// The time in the recording at which it started.
    start: Duration,
    /// Whether it is the first command of its recording. Its answer has no frames of an earlier command.
    first: bool,
    /// Whether the command was complete before the client sent the next one.
    whole: bool,
}

impl Segment {
    /// A rank of the quality of the recording; 0 is best.
    pub(super) fn flaws(&self) -> u8 {
        u8::from(!self.whole) * 2 + u8::from(!self.first)
    }
}

/// A recorded WebSocket: the greeting and the commands.
#[derive(Clone, Debug, Default)]
pub(super) struct Conversation {
    /// Whether the client sent a key first.
    pub(super) sent_key: bool,
    /// The frames before the first command, after the key or the handshake.
    pub(super) greeting: Script,
    pub(super) segments: Vec<Segment>,
}

impl Conversation {
    pub(super) fn from_recording(name: &str, recording: &Recording) -> Self {
        let mut recording = Cow::Borrowed(recording);
        if recording.frames.iter().any(|frame| frame.sent_text().is_some_and(|text| text.contains(BARRIER))) {
            // A bridge that recorded a job did not mark it.
            recording.to_mut().mark_returned();
        }
        let is_marked = recording.frames.iter().any(|frame| frame.event == RecordedEvent::Returned);
        let mut reader = ConversationReader {
            name,
            is_marked,
            start: Duration::ZERO,
            waiting: VecDeque::new(),
            conversation: Self::default(),
        };
        for frame in &recording.frames {
            // What follows these answers them, and this server answers them by itself.
            if matches!(
                (&frame.event, frame.direction),
                (RecordedEvent::Binary(_) | RecordedEvent::Close { .. }, Direction::Out)
            ) {
                break;
            }
            reader.read_frame(frame);
        }
        reader.conversation
    }

    /// Whether the client was refused because of its key.
    pub(super) fn was_refused(&self, recording: &Recording) -> bool {
        let closes = |act: &ScriptAction| matches!(act, ScriptAction::Close { code: Some(4001), .. });
        recording.header.key == RecordedKey::Wrong || self.greeting.steps.iter().any(|step| closes(&step.act))
    }
}

/// Reads a recording frame by frame.
struct ConversationReader<'a> {
    name: &'a str,
    /// Whether the recording marks where commands returned.
    is_marked: bool,
    /// The origin of times: the handshake, the key, or the start of a command.
    start: Duration,
    /// Commands that the client sent while another one was running.
    waiting: VecDeque<String>,
    conversation: Conversation,
}

impl ConversationReader<'_> {
    fn read_frame(&mut self, frame: &RecordedFrame) {
        match (&frame.event, frame.direction) {
            (RecordedEvent::Response { .. }, _) => self.start = frame.at(),
            (RecordedEvent::Text(text), Direction::Out) => self.read_client_text(text, frame.at()),
            (RecordedEvent::Text(text), _) => self.push(frame, ScriptAction::Text(text.clone())),
            (RecordedEvent::Binary(bytes), _) => self.push(frame, ScriptAction::Binary(bytes.clone())),
            (RecordedEvent::Ping(bytes), Direction::In) => {
                self.push(frame, ScriptAction::Ping(bytes.clone()))
            }
            (RecordedEvent::Close { code, reason }, _) => {
                self.push(frame, ScriptAction::Close { code: *code, reason: reason.clone() });
            }
            (RecordedEvent::Cut, _) => self.push(frame, ScriptAction::Cut),
            (RecordedEvent::Returned, _) => {
                self.push(frame, ScriptAction::Returned);
                if let Some(command) = self.waiting.pop_front() {
                    self.begin(command, frame.at());
                }
            }
            _ => {}
        }
    }

    fn read_client_text(&mut self, text: &str, at: Duration) {
        let last = self.conversation.segments.last();
        let runs = last.is_some_and(|last| !last.script.has_end());
        // Before there was any answer, it cannot have been read.
        let is_early = last.is_some_and(|last| last.script.steps.is_empty());
        if self.conversation.segments.is_empty() && key_in(text).is_some() {
            self.conversation.sent_key = true;
            self.conversation.greeting = Script::default();
            self.start = at;
        } else if runs && (self.is_marked || is_early) {
            self.waiting.push_back(text.to_owned());
        } else {
            self.begin(text.to_owned(), at);
        }
    }

    fn begin(&mut self, command: String, at: Duration) {
        let segments = &mut self.conversation.segments;
        if let Some(last) = segments.last_mut() {
            last.whole = last.script.has_end();
        }
        let (name, first) = (self.name.to_owned(), segments.is_empty());
        segments.push(Segment { command, script: Script::default(), name, start: at, first, whole: true });
        self.start = at;
    }

    fn push(&mut self, frame: &RecordedFrame, act: ScriptAction) {
        let Conversation { greeting, segments, .. } = &mut self.conversation;
        let (script, start) = match &mut segments[..] {
            // A backend answers the barrier of a bridge while tasks of the command before it continue.
            [.., before, last] if last.command.contains(BARRIER) && !is_rejection(&act) => {
                (&mut before.script, before.start)
            }
            [.., last] => (&mut last.script, self.start),
            [] => (greeting, self.start),
        };
        script.push(frame.at().saturating_sub(start), act);
    }
}

/// Whether a backend does this for an unknown command.
fn is_rejection(act: &ScriptAction) -> bool {
    match act {
        ScriptAction::Text(text) => {
            [BARRIER, "Invalid sync command", "Valid commands: "].iter().any(|part| text.contains(part))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Headers, Protocol};

    fn recording(frames: &[(Direction, RecordedEvent)]) -> Recording {
        let mut recording = Recording::new("0.0.2", Protocol::Websocket, RecordedKey::None)
            .with(0.0, Direction::Out, RecordedEvent::get("/ws"))
            .with(1.0, Direction::In, RecordedEvent::Response { status: 101, headers: Headers::new() });
        for (index, (direction, event)) in frames.iter().enumerate() {
            recording.push(10.0 * (index + 1) as f64, *direction, event.clone());
        }
        recording
    }

    fn from_server(text: &str) -> (Direction, RecordedEvent) {
        (Direction::Out, RecordedEvent::text(text))
    }

    fn from_client(text: &str) -> (Direction, RecordedEvent) {
        (Direction::In, RecordedEvent::text(text))
    }

    const RETURNED: (Direction, RecordedEvent) = (Direction::Ctl, RecordedEvent::Returned);

    fn segments(recording: &Recording) -> Vec<(String, Vec<String>)> {
        let texts = |script: &Script| script.texts().map(str::to_owned).collect();
        let conversation = Conversation::from_recording("x", recording);
        conversation.segments.iter().map(|it| (it.command.clone(), texts(&it.script))).collect()
    }

    #[test]
    fn a_command_that_was_sent_too_early_begins_when_the_one_before_returns() {
        let frames = [
            from_server("1"),
            from_client("a"),
            from_server("2"),
            from_client("b"),
            RETURNED,
            from_client("c"),
            RETURNED,
        ];
        let expected = [("1", vec!["a", "b"]), ("2", vec!["c"])];
        let recording = recording(&frames);
        let expected =
            expected.map(|(it, texts)| (it.to_owned(), texts.into_iter().map(str::to_owned).collect()));
        assert_eq!(segments(&recording), expected);
        let second = &Conversation::from_recording("x", &recording).segments[1];
        assert_eq!(second.script.steps[0].after, Duration::from_millis(10));
    }

    #[test]
    fn without_marks_a_command_ends_where_the_next_one_was_sent() {
        let conversation = Conversation::from_recording(
            "x",
            &recording(&[from_server("1"), from_client("a"), from_server("2"), from_client("b")]),
        );
        let flaws: Vec<_> = conversation.segments.iter().map(Segment::flaws).collect();
        assert_eq!(flaws, [2, 1], "the first may have been interrupted, the second is not the first");
    }

    #[test]
    fn what_answers_a_binary_frame_or_a_close_frame_belongs_to_no_command() {
        let close = RecordedEvent::Close { code: Some(1000), reason: String::new() };
        for event in [RecordedEvent::Binary("x".into()), close.clone()] {
            let frames =
                [from_server("1"), from_client("a"), (Direction::Out, event), (Direction::In, close.clone())];
            let conversation = Conversation::from_recording("x", &recording(&frames));
            assert_eq!(conversation.segments[0].script.steps.len(), 1);
        }
    }
}
