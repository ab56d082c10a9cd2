//! The dialects of the legacy `/ws` socket, by release.
//!
//! Every release sends a greeting and then runs one command after the other. The dialects differ in whether a key
//! comes first, whether frames are correlated by a `run_id`, and what follows the end of a command. No release marks
//! the end of every command. An unknown command, however, is answered only after the previous command has returned:
//! see [`BARRIER`].
//!
//! 0.0.1 answers an unknown command by closing the socket, which is also how it reports a failure, and it has no end
//! markers. There, the first frame of a command shows that the previous command has returned without a failure. The
//! bridge therefore sends "Sync Nodes" after every other command. It writes nothing to NetBox that already exists.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::event_json::{self, read_fields};
use super::fact::Fact;
use super::legacy::{LegacyRow, tidy};
use super::lenient::{LenientBool, LenientMap, LenientText};
use super::native;
use crate::core::domain::kind::{Kind, WsCommand};
use crate::core::domain::release::Release;
use crate::core::text::detail::SENTENCE;
use crate::core::text::plain;
use crate::core::text::string_enum::string_enum;
use crate::core::wire::traffic::FrameType;

/// A command that no release knows. It is sent right after a real command. The backend answers it once the real
/// command has returned, whether that failed or not.
pub const BARRIER: &str = "proxbox-bridge-barrier";

string_enum! {
    /// A dialect of `/ws`, named after the first release that speaks it.
    pub enum Dialect {
        /// 0.0.1: no end markers; the socket closes on a failure and on an unknown command.
        V0_0_1 = "0.0.1",
        /// 0.0.2: frames of a command may arrive after its end.
        V0_0_2 = "0.0.2",
        /// 0.0.3: two end markers per stage.
        V0_0_3 = "0.0.3",
        /// 0.0.4 to 0.0.6: one end marker per stage.
        V0_0_4 = "0.0.4",
        /// 0.0.7 to 0.0.23: the client sends its key first.
        V0_0_7 = "0.0.7",
        /// 0.0.23.post1 to 0.0.27.post2: disabled by default; the key is checked before the dependencies.
        V0_0_23 = "0.0.23.post1",
        /// 0.0.27.post3 and later: commands and frames may carry a `run_id`.
        V0_0_27 = "0.0.27.post3",
    }
}

impl Dialect {
    /// The dialect of a release.
    pub fn for_release(release: Release) -> Self {
        match release {
            r if r < Release::new(0, 0, 2) => Self::V0_0_1,
            r if r < Release::new(0, 0, 3) => Self::V0_0_2,
            r if r < Release::new(0, 0, 4) => Self::V0_0_3,
            r if r < Release::new(0, 0, 7) => Self::V0_0_4,
            r if r < Release::new(0, 0, 23).post(1) => Self::V0_0_7,
            r if r < Release::new(0, 0, 27).post(3) => Self::V0_0_23,
            _ => Self::V0_0_27,
        }
    }

    /// Whether the client must send its key first.
    pub const fn wants_key(self) -> bool {
        matches!(self, Self::V0_0_7 | Self::V0_0_23 | Self::V0_0_27)
    }

    /// Whether commands are sent in an envelope with a `run_id`.
    pub const fn correlates(self) -> bool {
        matches!(self, Self::V0_0_27)
    }

    /// Whether frames of a command may arrive after it has returned. 0.0.2 stops waiting for its tasks when the first
    /// one fails, but does not stop the others.
    pub const fn sends_late_frames(self) -> bool {
        matches!(self, Self::V0_0_2)
    }

    /// Whether the backend confirms each synced virtual machine before their stage ends, unless one has failed.
    pub const fn confirms_each(self) -> bool {
        matches!(self, Self::V0_0_1 | Self::V0_0_2)
    }

    /// Whether the backend marks the end of a stage.
    pub const fn marks_ends(self) -> bool {
        !matches!(self, Self::V0_0_1)
    }

    /// Whether a full update ends with "Invalid command" even though it ran.
    const fn denies_full_update(self) -> bool {
        matches!(self, Self::V0_0_2)
    }

    /// The frame that carries the key.
    pub fn key_frame(key: &str) -> String {
        serde_json::json!({ "api_key": key }).to_string()
    }

    /// Whether `frame` carries a key.
    pub fn is_key_frame(frame: &str) -> bool {
        frame.starts_with("{\"api_key\":")
    }

    /// The frames that run `command` and show when it has returned.
    pub fn command_frames(self, command: WsCommand, run_id: &str) -> Vec<String> {
        let commands = match command {
            _ if self.marks_ends() => vec![command],
            // The full update of this dialect does not report whether virtual machines failed.
            WsCommand::FullUpdate => {
                vec![WsCommand::SyncNodes, WsCommand::SyncVirtualMachines, WsCommand::SyncNodes]
            }
            command => vec![command, WsCommand::SyncNodes],
        };
        let texts = commands.into_iter().map(WsCommand::as_str).chain([BARRIER]);
        let frame = |text: &str| {
            if self.correlates() {
                serde_json::json!({ "command": text, "run_id": run_id }).to_string()
            } else {
                text.to_owned()
            }
        };
        texts.map(frame).collect()
    }

    /// Classifies an "Invalid command" answer. `echoed` is the command that the backend repeats in it, if any.
    pub fn classify_invalid(self, command: WsCommand, echoed: Option<&str>) -> InvalidCommand {
        match echoed {
            None => InvalidCommand::Barrier,
            Some(BARRIER) => InvalidCommand::Barrier,
            Some(text) if text == command.as_str() => {
                if self.denies_full_update() && command == WsCommand::FullUpdate {
                    InvalidCommand::Nothing
                } else {
                    InvalidCommand::Command
                }
            }
            Some(_) => InvalidCommand::Nothing,
        }
    }
}

/// What an "Invalid command" answer refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidCommand {
    /// The barrier: the previous command has returned.
    Barrier,
    /// The command itself: the backend does not know it.
    Command,
    /// Nothing of importance.
    Nothing,
}

/// The content of a frame.
#[derive(Debug)]
pub enum WsMessage<'a> {
    /// The backend is ready for a command.
    Greeting,
    /// An echo of a command, or a list of commands.
    Ignored,
    /// The backend does not know a command.
    Invalid {
        /// The command, if the frame names it.
        command: Option<Cow<'a, str>>,
    },
    /// A stage has ended.
    StageEnd(Kind),
    /// A correlated full update has ended.
    RunEnd(RunEnd),
    /// An event of the run.
    Fact(Fact<'a>),
    /// A text that is not a frame of any release.
    Unknown(Cow<'a, str>),
}

/// The end of a correlated full update.
#[derive(Debug)]
pub struct RunEnd {
    /// Whether the backend reports success.
    pub ok: bool,
    /// The stages that did not complete, with their status.
    pub incomplete: Vec<(String, String)>,
}

impl WsMessage<'_> {
    /// The type of the frame in metrics.
    pub fn frame_type(&self) -> FrameType {
        match self {
            Self::Fact(Fact::Aborted(_)) => FrameType::Error,
            Self::Fact(Fact::Complete { .. }) | Self::StageEnd(_) | Self::RunEnd(_) => FrameType::Complete,
            Self::Fact(_) => FrameType::Step,
            Self::Greeting | Self::Ignored | Self::Invalid { .. } | Self::Unknown(_) => FrameType::Other,
        }
    }
}

/// The fields that distinguish frames.
#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct FrameFields<'a> {
    event: LenientText<'a>,
    object: LenientText<'a>,
    end: LenientBool,
    status: LenientText<'a>,
    stages: Option<&'a RawValue>,
    message: LenientText<'a>,
    data: LenientMap<LegacyRow<'a>>,
}

read_fields!(FrameFields { event, object, end, status, stages, message, data });

/// Parses the text frame `text`.
pub fn parse_frame(text: &str) -> WsMessage<'_> {
    parse(text, |_| None)
}

/// Parses the text frame `text`, and keeps the backend's own payload of an object.
pub fn parse_frame_with_payload(text: &str) -> WsMessage<'_> {
    parse(text, |text| serde_json::from_str(text).ok())
}

fn parse<'a>(text: &'a str, payload: impl FnOnce(&'a str) -> Option<&'a RawValue>) -> WsMessage<'a> {
    if !text.starts_with('{') {
        return parse_text(Cow::Borrowed(text));
    }
    let Ok(frame) = event_json::from_str::<FrameFields<'_>>(text) else {
        return unknown(text);
    };
    if let Some(event) = frame.event.as_str() {
        let fact = native::parse_event_with_payload(event, text).or_else(|_| native::unreadable(event, text));
        return fact.map_or_else(|_| unknown(text), WsMessage::Fact);
    }
    let Some(object_name) = frame.object.0 else {
        return match frame.message.0 {
            Some(message) => parse_text(message),
            None => unknown(text),
        };
    };
    if frame.end.0 == Some(true) {
        return match Kind::from_stage(&object_name) {
            Some(Kind::FullUpdate) => run_end(frame.status.or_empty(), frame.stages),
            Some(kind) => WsMessage::StageEnd(kind),
            None => WsMessage::Ignored,
        };
    }
    let Some(data) = frame.data.0 else { return unknown(text) };
    WsMessage::Fact(data.fact(object_name, payload(text)))
}

fn unknown(text: &str) -> WsMessage<'_> {
    WsMessage::Unknown(plain(text, SENTENCE))
}

fn parse_text(text: Cow<'_, str>) -> WsMessage<'_> {
    const INVALID: &str = "Invalid command: ";
    match text.as_ref() {
        "Connected!" | "Connected 2!" => WsMessage::Greeting,
        "Invalid sync command" => WsMessage::Invalid { command: None },
        "Sync Nodes" => WsMessage::Ignored,
        reply if reply.starts_with("Received message: ") || reply.starts_with("Valid commands: ") => {
            WsMessage::Ignored
        }
        reply if reply.starts_with(INVALID) => WsMessage::Invalid {
            command: Some(match text {
                Cow::Borrowed(text) => Cow::Borrowed(&text[INVALID.len()..]),
                Cow::Owned(text) => Cow::Owned(text[INVALID.len()..].to_owned()),
            }),
        },
        _ => WsMessage::Unknown(tidy(text, SENTENCE)),
    }
}

fn run_end(status: &str, stages: Option<&RawValue>) -> WsMessage<'static> {
    let stages: BTreeMap<String, LenientText<'_>> =
        stages.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let incomplete = stages
        .into_iter()
        .filter(|(_, status)| status.or_empty() != "completed")
        .map(|(stage, status)| (stage, status.or_empty().to_owned()))
        .collect();
    WsMessage::RunEnd(RunEnd { ok: status == "completed", incomplete })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_release_has_its_dialect() {
        for (release, dialect) in [
            ("0.0.1", Dialect::V0_0_1),
            ("0.0.2", Dialect::V0_0_2),
            ("0.0.2.post3", Dialect::V0_0_2),
            ("0.0.3", Dialect::V0_0_3),
            ("0.0.4", Dialect::V0_0_4),
            ("0.0.6.post4", Dialect::V0_0_4),
            ("0.0.7", Dialect::V0_0_7),
            ("0.0.23", Dialect::V0_0_7),
            ("0.0.23.post1", Dialect::V0_0_23),
            ("0.0.27.post2", Dialect::V0_0_23),
            ("0.0.27.post3", Dialect::V0_0_27),
            ("0.1.0", Dialect::V0_0_27),
        ] {
            assert_eq!(Dialect::for_release(release.parse().unwrap()), dialect, "{release}");
        }
    }

    #[test]
    fn an_invalid_full_update_is_a_success_of_0_0_2_alone() {
        use Dialect::{V0_0_2, V0_0_3, V0_0_7, V0_0_23};
        use WsCommand::{FullUpdate, SyncNodes};
        for (dialect, command, echoed, expected) in [
            (V0_0_2, FullUpdate, Some("Full Update Sync"), InvalidCommand::Nothing),
            (V0_0_3, FullUpdate, Some("Full Update Sync"), InvalidCommand::Command),
            (V0_0_2, SyncNodes, Some("Sync Nodes"), InvalidCommand::Command),
            (V0_0_23, FullUpdate, None, InvalidCommand::Barrier),
            (V0_0_7, FullUpdate, Some(BARRIER), InvalidCommand::Barrier),
            (V0_0_7, FullUpdate, Some("of another client"), InvalidCommand::Nothing),
        ] {
            assert_eq!(dialect.classify_invalid(command, echoed), expected, "{dialect}: {echoed:?}");
        }
    }

    #[test]
    fn plain_texts_are_parsed_inside_and_outside_of_envelopes() {
        for text in ["Connected!", r#"{"message":"Connected!","run_id":"x"}"#] {
            assert!(matches!(parse_frame(text), WsMessage::Greeting), "{text}");
        }
        for text in ["Invalid sync command", r#"{"message":"Invalid sync command","run_id":"x"}"#] {
            assert!(matches!(parse_frame(text), WsMessage::Invalid { command: None }), "{text}");
        }
        let message = parse_frame("Invalid command: bogus <b>cmd</b>");
        assert!(matches!(message, WsMessage::Invalid { command: Some(c) } if c == "bogus <b>cmd</b>"));
        assert!(matches!(parse_frame("{\"object\""), WsMessage::Unknown(_)));
        assert!(matches!(parse_frame(""), WsMessage::Unknown(_)));
    }

    #[test]
    fn only_the_end_of_its_own_stage_is_the_end_of_a_stage() {
        for (frame, ended) in [
            (r#"{"object":"devices","end":true}"#, Kind::Devices),
            (r#"{"object":"task_history","end":true,"data":{"status":"completed"}}"#, Kind::TaskHistory),
        ] {
            assert!(matches!(parse_frame(frame), WsMessage::StageEnd(kind) if kind == ended), "{frame}");
        }
        let message = parse_frame(
            r#"{"object":"full-update","end":true,"status":"failed","stages":{"devices":"completed","virtual-machines":"skipped"}}"#,
        );
        let WsMessage::RunEnd(RunEnd { ok: false, incomplete }) = message else { panic!("{message:?}") };
        assert_eq!(incomplete, [("virtual-machines".to_owned(), "skipped".to_owned())]);
    }

    #[test]
    fn a_frame_that_carries_a_key_is_known() {
        assert!(Dialect::is_key_frame(&Dialect::key_frame("0123456789abcdef")));
        for frame in ["Sync Nodes", r#"{"command": "Sync Nodes", "run_id": "x"}"#] {
            assert!(!Dialect::is_key_frame(frame), "{frame}");
        }
    }
}
