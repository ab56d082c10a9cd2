//! The answers of a backend to commands on its `/ws`.

use std::time::Duration;

use super::conversation::{Conversation, Segment};
use super::script::{Script, ScriptAction};
use crate::core::domain::release::Release;
use crate::recording::CommandEnvelope;

const VALID_COMMANDS: &str = "Valid commands: 'Sync Nodes', 'Sync Virtual Machines', 'Full Update Sync'";

const FULL_UPDATE: [&str; 2] = ["Full Update Sync", "Full Update"];

/// The recorded answers to commands, the best recording first.
#[derive(Clone, Debug)]
pub(super) struct Commands {
    release: Option<Release>,
    /// From recordings that were selected by name, which take precedence, and from the others.
    segments: [Vec<Segment>; 2],
}

impl Commands {
    /// `conversations` has each conversation, with whether it was selected by name.
    pub(super) fn new<'a>(
        release: Option<Release>,
        conversations: impl IntoIterator<Item = (bool, &'a Conversation)>,
        greeting: &Script,
    ) -> Self {
        let mut segments = [Vec::new(), Vec::new()];
        for (chosen, conversation) in conversations {
            segments[usize::from(!chosen)].extend(conversation.segments.iter().cloned().map(
                |mut segment| {
                    without_greeting(&mut segment.script, conversation, greeting);
                    segment
                },
            ));
        }
        segments.iter_mut().for_each(|segments| segments.sort_by_key(Segment::flaws));
        Self { release, segments }
    }

    /// Every command with the recording that answers it.
    pub(super) fn served(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut seen = Vec::new();
        self.segments.iter().flatten().filter_map(move |segment| {
            let command = segment.command.as_str();
            (!seen.contains(&command)).then(|| {
                seen.push(command);
                (command, segment.name.as_str())
            })
        })
    }

    /// The script of the backend for the command `text`.
    pub(super) fn answer(&self, text: &str) -> Script {
        let mut recorded = self.segments.iter().flatten();
        let knows_envelopes = recorded.any(|segment| CommandEnvelope::parse(&segment.command).is_some());
        match CommandEnvelope::parse(text) {
            Some(envelope) if knows_envelopes => self.answer_envelope(&envelope),
            _ => self.answer_text(text),
        }
    }

    fn answer_text(&self, text: &str) -> Script {
        let text = if self.trims() { text.trim() } else { text };
        match self.segments.iter().find_map(|segments| self.bare(segments, text)) {
            Some(segment) => renamed(segment, text),
            None => self.unknown(text),
        }
    }

    fn answer_envelope(&self, envelope: &CommandEnvelope) -> Script {
        for segments in &self.segments {
            let enveloped = segments.iter().find_map(|segment| {
                let recorded = CommandEnvelope::parse(&segment.command)?;
                let same = self.same_command(&recorded.command, &envelope.command);
                same.then(|| envelope.readdress(&recorded, segment.script.clone()))
            });
            let wrapped = || {
                self.bare(segments, &envelope.command)
                    .filter(|segment| !is_rejection(segment))
                    .map(|segment| envelope.wrap(segment.script.clone()))
            };
            if let Some(script) = enveloped.or_else(wrapped) {
                return script;
            }
        }
        self.unknown_envelope(envelope)
    }

    /// The segment of a bare command.
    fn bare<'a>(&self, segments: &'a [Segment], text: &str) -> Option<&'a Segment> {
        let same = |segment: &&Segment| segment.command == text;
        let alias = |segment: &&Segment| self.same_command(&segment.command, text);
        segments.iter().find(same).or_else(|| segments.iter().find(alias))
    }

    /// The answer to an unknown command: the recorded answer to another unknown one, if there is one.
    fn unknown(&self, text: &str) -> Script {
        let rejection = |segment: &&Segment| {
            is_rejection(segment)
                && !segment.command.trim().is_empty()
                && CommandEnvelope::parse(&segment.command).is_none()
        };
        match self.segments.iter().flatten().find(rejection) {
            Some(segment) => renamed(segment, text).returning(),
            None => self.unknown_unrecorded(text),
        }
    }

    fn unknown_unrecorded(&self, text: &str) -> Script {
        let up_to = |last: Release| self.release.is_some_and(|release| release.is_up_to(last));
        let silent_on_input = self.release.is_some_and(|it| it >= Release::new(0, 0, 23).post(1));
        if up_to(Release::new(0, 0, 1)) {
            let mut script = Script::default();
            script.push(Duration::ZERO, ScriptAction::Close { code: Some(1000), reason: String::new() });
            return script;
        }
        let echo = up_to(Release::new(0, 0, 6)).then(|| format!("Received message: {text}"));
        let invalid = match silent_on_input {
            true => "Invalid sync command".to_owned(),
            false => format!("Invalid command: {text}"),
        };
        Script::from_texts(echo.into_iter().chain([invalid, VALID_COMMANDS.to_owned()]))
    }

    fn unknown_envelope(&self, envelope: &CommandEnvelope) -> Script {
        let recorded = self.segments.iter().flatten().find_map(|segment| {
            let recorded = CommandEnvelope::parse(&segment.command)?;
            is_rejection(segment).then(|| envelope.readdress(&recorded, segment.script.clone()))
        });
        let unrecorded = || {
            Script::from_texts(["Invalid sync command", VALID_COMMANDS].map(|text| envelope.wrap_text(text)))
        };
        recorded.map_or_else(unrecorded, Script::returning)
    }

    /// Whether two commands are the same. `Full Update` is an alias from 0.0.3 on.
    fn same_command(&self, one: &str, other: &str) -> bool {
        let alias = self.release.is_some_and(|release| !release.is_up_to(Release::new(0, 0, 2)));
        one == other || alias && FULL_UPDATE.contains(&one) && FULL_UPDATE.contains(&other)
    }

    /// Whether the backend trims white space around a command, as from 0.0.6 on.
    fn trims(&self) -> bool {
        self.release.is_some_and(|release| !release.is_up_to(Release::new(0, 0, 5)))
    }
}

/// The script of a segment with the received command in place of the recorded one.
fn renamed(segment: &Segment, text: &str) -> Script {
    if segment.command == text || segment.command.is_empty() {
        return segment.script.clone();
    }
    let is_json = |text: &str| text.starts_with('{');
    segment.script.clone().map_texts(|frame| match is_json(frame) {
        true => frame.to_owned(),
        false => frame.replace(&segment.command, text),
    })
}

/// Whether the backend rejected the command as unknown. 0.0.2 also sends this after it has executed
/// `Full Update Sync`.
fn is_rejection(segment: &Segment) -> bool {
    let says_so = |text: &str| {
        text.starts_with("Invalid ") || text.starts_with("{\"message\":\"Invalid sync command\"")
    };
    !FULL_UPDATE.contains(&segment.command.as_str()) && segment.script.texts().any(says_so)
}

/// Removes the greeting from the answer to the first command: a client that did not wait for it got it there.
fn without_greeting(script: &mut Script, conversation: &Conversation, greeting: &Script) {
    if conversation.greeting.texts().next().is_none() {
        script.steps.retain(|step| match &step.act {
            ScriptAction::Text(text) => !greeting.texts().any(|greeted| greeted == text),
            _ => true,
        });
    }
}
