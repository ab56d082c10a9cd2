//! The frame that every backend with a `/ws` sends, and that newer ones still carry as the `payload`
//! of a step: `{"object": …, "type": …, "data": {…}}`, or `{"object": …, "end": true}`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::detail::SENTENCE;
use super::fact::{Fact, ObjectState};
use super::lenient::{Flag, Map, Number, Text};
use super::object::Object;
use super::text::plain;

/// The longest name of an object that is kept, in characters.
pub const NAME: usize = 120;

/// The error of a virtual machine that is in NetBox all the same: where the backend goes on to say so,
/// it says that the machine is synced.
const PARTLY: &str = "Could not set primary IP";

/// A frame, or a payload that is shaped like a step.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LegacyFrame<'a> {
    /// The sort of object.
    #[serde(borrow)]
    pub object: Text<'a>,
    /// Whether its stage is over.
    pub end: Flag,
    /// The object.
    #[serde(borrow)]
    pub data: Map<Data<'a>>,
    /// The stage, in a payload that is shaped like a step.
    #[serde(borrow)]
    pub step: Text<'a>,
    /// What happened in the stage.
    #[serde(borrow)]
    pub status: Text<'a>,
    /// The same in a sentence.
    #[serde(borrow)]
    pub message: Text<'a>,
    /// How many objects the stage found.
    pub count: Number,
    /// The one object that a step-shaped payload is about.
    #[serde(borrow)]
    pub result: Map<NamedRecord<'a>>,
}

/// A record of which only the name matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamedRecord<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
}

/// One object, in one row of the table that old plugin pages drew.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Data<'a> {
    #[serde(borrow)]
    rowid: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    completed: Flag,
    #[serde(borrow)]
    sync_status: Text<'a>,
    #[serde(borrow)]
    error: Text<'a>,
    #[serde(borrow)]
    warning: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
    #[serde(borrow)]
    disks: Text<'a>,
    #[serde(borrow)]
    vm: Text<'a>,
    #[serde(borrow)]
    device: Text<'a>,
}

impl<'a> Data<'a> {
    /// What this row says about an object of the sort `word`.
    pub fn fact(self, word: Cow<'a, str>, payload: Option<&'a RawValue>) -> Fact<'a> {
        let state = self.state();
        let Some(name) = named(self.rowid).or_else(|| named(self.name)) else {
            return match self.message.0 {
                Some(message) => Fact::Note { step: word, message: tidy(message, SENTENCE) },
                None => Fact::Nothing,
            };
        };
        object_fact(word, self.vm.0.or(self.device.0), name, state, payload)
    }

    fn state(&self) -> ObjectState<'a> {
        if let Some(error) = self.error.said() {
            return ObjectState::Failed { error: sentence(error), partly: error.starts_with(PARTLY) };
        }
        let status = self.sync_status.or_empty();
        match self.completed.0 {
            // Releases before 0.0.7 report the failure of a disk like this, and with no other word.
            Some(true) if status == "undefined" && self.disks.said().is_some() => {
                ObjectState::failed(sentence(self.disks.or_empty()))
            }
            Some(true) => self.completed(),
            // The third frame that 0.0.2 sends for a virtual machine has no `completed`.
            None if status == "completed" => self.completed(),
            _ => ObjectState::Processing,
        }
    }

    fn completed(&self) -> ObjectState<'a> {
        ObjectState::Completed { warning: self.warning.said().map(sentence) }
    }
}

/// The fact about one object of the sort that a backend calls `word`.
pub fn object_fact<'a>(
    word: Cow<'a, str>,
    scope: Option<Cow<'a, str>>,
    name: Cow<'a, str>,
    state: ObjectState<'a>,
    payload: Option<&'a RawValue>,
) -> Fact<'a> {
    let object = Object::named(&word).unwrap_or(Object::Other);
    let word = if object == Object::Other { tidy(word, NAME) } else { Cow::Borrowed(object.as_str()) };
    let scope = match object {
        // What the backend calls it is all that tells it from something else that we do not know.
        Object::Other => Some(word.clone()),
        object => scope.filter(|_| object.is_scoped()),
    };
    Fact::Object { object: (object, word), scope, name, state, payload }
}

/// A name, if it is one: Python's `None` comes as a string where a name was missing.
pub fn named(text: Text<'_>) -> Option<Cow<'_, str>> {
    text.0.filter(|name| !name.trim().is_empty() && name != "None").map(|name| tidy(name, NAME))
}

/// A readable sentence that outlives the text that it was made of.
pub fn sentence(text: &str) -> Cow<'static, str> {
    Cow::Owned(plain(text, SENTENCE).into_owned())
}

/// [`plain`] for a text that may be owned.
pub fn tidy(text: Cow<'_, str>, limit: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => plain(text, limit),
        Cow::Owned(text) => match plain(&text, limit) {
            Cow::Borrowed(_) => Cow::Owned(text),
            Cow::Owned(tidied) => Cow::Owned(tidied),
        },
    }
}
