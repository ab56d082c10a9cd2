//! The frame that every backend with a `/ws` sends, and that newer ones still carry as the `payload`
//! of a step: `{"object": …, "type": …, "data": {…}}`, or `{"object": …, "end": true}`.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::fact::{Fact, ObjectState};
use super::lenient::{Flag, Map, Number, Text};
use crate::core::domain::object::Object;
use crate::core::run::tally::{Form, Scope};
use crate::core::text::detail::SENTENCE;
use crate::core::text::plain;

/// What 0.0.1 has in place of `completed`, in HTML.
const SYNCED: &str = "title='Synced VM'";

/// The longest word for a stage or a sort of object that is kept, in characters.
pub const WORD: usize = 120;

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
    /// The one object that a step-shaped payload is about, or the numbers of its stage.
    #[serde(borrow)]
    pub result: Option<&'a RawValue>,
}

/// A record of NetBox, or what stands for one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamedRecord<'a> {
    /// Its id.
    pub id: Number,
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
}

/// What `raw` says, if it is an object.
pub fn fields_of<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str::<Map<T>>(raw?.get()).ok()?.0
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
    snapshots_found: Number,
    count: Number,
    netbox_id: Number,
    /// Missing, null, or there.
    #[serde(deserialize_with = "said")]
    ip_id: Option<Number>,
    /// The same.
    #[serde(borrow, deserialize_with = "said")]
    address: Option<Text<'a>>,
    #[serde(borrow)]
    vm: Text<'a>,
    #[serde(borrow)]
    device: Text<'a>,
    #[serde(borrow)]
    cluster: Text<'a>,
}

fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl<'a> Data<'a> {
    /// What this row says about an object of the sort `word`.
    pub fn fact(self, word: Cow<'a, str>, payload: Option<&'a RawValue>) -> Fact<'a> {
        let state = self.state(&word);
        let name = match (named(self.rowid).or_else(|| named(self.name)), &state) {
            (Some(name), _) => name,
            (None, ObjectState::Failed { partly: false, .. }) => Cow::Borrowed(""),
            (None, _) => {
                return match self.message.0 {
                    Some(message) => Fact::Note { step: word, message: tidy(message, SENTENCE) },
                    None => Fact::Nothing,
                };
            }
        };
        let owner = place(self.vm).or_else(|| place(self.device));
        // Up to 0.0.6 the first frame of a device has the mode of its cluster there.
        let cluster = place(self.cluster).filter(|name| !matches!(name.as_ref(), "Cluster" | "Standalone"));
        object_fact(word, Scope { cluster, owner }, name, (Form::Frame, state), payload)
    }

    fn state(&self, word: &str) -> ObjectState<'a> {
        if let Some(error) = self.error.said() {
            return ObjectState::failed(sentence(error));
        }
        let status = self.sync_status.or_empty();
        match self.completed.0 {
            // No release has another word for disks that failed.
            Some(true) if status == "undefined" && self.disks.said().is_some() => {
                ObjectState::failed(sentence(self.disks.or_empty()))
            }
            Some(true) => self.completed(word),
            // The third frame that 0.0.1 and 0.0.2 send for a virtual machine has no `completed`.
            None if status == "completed" || status.contains(SYNCED) => self.completed(word),
            _ => ObjectState::Processing,
        }
    }

    fn completed(&self, word: &str) -> ObjectState<'a> {
        let warning = self.warning.said().map(sentence);
        let (found, written) = match Object::named(word) {
            Some(Object::VirtualDisk) => disks_in(self.disks.or_empty()),
            Some(Object::Snapshot) => (self.snapshots_found.0, 0),
            Some(Object::NodeInterface) => (self.count.0, 0),
            Some(Object::VmIp) => return self.address_completed(warning),
            _ => return ObjectState::Completed { warning, id: self.netbox_id.0 },
        };
        ObjectState::Checked { found, written, warning }
    }

    /// The rows of addresses are about interfaces, which may have none.
    fn address_completed(&self, warning: Option<Cow<'a, str>>) -> ObjectState<'a> {
        let has_none =
            self.address.as_ref().is_some_and(|address| matches!(address.or_empty(), "" | "No IP"));
        match self.ip_id {
            _ if has_none => ObjectState::Checked { found: Some(0), written: 0, warning },
            // The error behind it was swallowed.
            Some(Number(None)) => ObjectState::Processing,
            id => ObjectState::Completed { warning, id: id.and_then(|id| id.0) },
        }
    }
}

/// How many disks there are, and how many were written, in `2 disks (1 created, 1 updated)`.
fn disks_in(text: &str) -> (Option<u64>, u64) {
    let mut written = 0;
    let mut found = None;
    let mut words = text.split([' ', '(', ')', ',']).filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.next() {
        match (word.parse::<u64>(), words.peek()) {
            (Ok(number), Some(&("created" | "updated"))) => {
                written = number.min(Number::MOST).saturating_add(written);
            }
            (Ok(number), Some(&"disks")) => found = Some(number.min(Number::MOST)),
            _ => {}
        }
    }
    (found, written)
}

/// The name of a place, if it is one.
pub fn place(text: Text<'_>) -> Option<Cow<'_, str>> {
    named(text).filter(|place| place != "undefined")
}

/// The fact about one object of the sort that a backend calls `word`.
pub fn object_fact<'a>(
    word: Cow<'a, str>,
    scope: Scope<'a>,
    name: Cow<'a, str>,
    (form, state): (Form, ObjectState<'a>),
    payload: Option<&'a RawValue>,
) -> Fact<'a> {
    let object = Object::named(&word).unwrap_or(Object::Other);
    let word = if object == Object::Other { tidy(word, WORD) } else { Cow::Borrowed(object.as_str()) };
    let scope = match object {
        // What the backend calls it is all that tells it from something else that we do not know.
        Object::Other => Scope { owner: Some(word.clone()), ..scope },
        _ => scope,
    };
    let state = match state {
        ObjectState::Completed { warning, .. } if !object.has_rows() => {
            ObjectState::Checked { found: None, written: 0, warning }
        }
        state => state,
    };
    Fact::Object { object: (object, word), scope, name, form, state, payload }
}

/// A name, if it is one: Python's `None` comes as a string where a name was missing.
pub fn named(text: Text<'_>) -> Option<Cow<'_, str>> {
    text.0.filter(|name| !name.trim().is_empty() && name != "None").map(|name| tidy(name, usize::MAX))
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
