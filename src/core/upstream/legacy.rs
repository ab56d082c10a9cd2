//! The legacy frame: `{"object": …, "type": …, "data": {…}}` or `{"object": …, "end": true}`. Every backend with a
//! `/ws` sends it. Newer backends still carry it as the `payload` of a step.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::event_json::read_fields;
use super::fact::{Fact, ObjectState};
use super::lenient::{LenientBool, LenientCount, LenientMap, LenientText};
use crate::core::domain::object::Object;
use crate::core::run::tally::{EventForm, Scope};
use crate::core::text::detail::SENTENCE;
use crate::core::text::{is_blank, plain};

/// The HTML that 0.0.1 sends instead of `completed`.
const SYNCED: &str = "title='Synced VM'";

/// The maximum length of a kept stage or object type name, in characters.
pub const MAX_NAME: usize = 120;

/// A legacy frame, or a payload shaped like a step.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct LegacyFrame<'a> {
    /// The object type.
    pub object: LenientText<'a>,
    /// Whether its stage has ended.
    pub end: LenientBool,
    /// The object.
    pub data: LenientMap<LegacyRow<'a>>,
    /// The stage, in a payload shaped like a step.
    pub step: LenientText<'a>,
    /// The status of the stage.
    pub status: LenientText<'a>,
    /// The status as a sentence.
    pub message: LenientText<'a>,
    /// The number of objects that the stage found.
    pub count: LenientCount,
    /// The object of a step-shaped payload, or the numbers of its stage.
    pub result: Option<&'a RawValue>,
}

read_fields!(LegacyFrame { object, end, data, step, status, message, count, result });

/// A NetBox record, or a placeholder for one.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct NamedRecord<'a> {
    /// Its id.
    pub id: LenientCount,
    /// Its name.
    pub name: LenientText<'a>,
}

/// Parses `raw` as a `T`, if it is an object.
pub fn fields_of<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str::<LenientMap<T>>(raw?.get()).ok()?.0
}

/// One object: a row of the table that old plugin pages draw.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct LegacyRow<'a> {
    rowid: LenientText<'a>,
    name: LenientText<'a>,
    completed: LenientBool,
    sync_status: LenientText<'a>,
    error: LenientText<'a>,
    warning: LenientText<'a>,
    message: LenientText<'a>,
    disks: LenientText<'a>,
    snapshots_found: LenientCount,
    count: LenientCount,
    netbox_id: LenientCount,
    /// Absent, null or present.
    #[serde(deserialize_with = "deserialize_present")]
    ip_id: Option<LenientCount>,
    /// Absent, null or present.
    #[serde(deserialize_with = "deserialize_present")]
    address: Option<LenientText<'a>>,
    vm: LenientText<'a>,
    device: LenientText<'a>,
    cluster: LenientText<'a>,
}

read_fields!(LegacyRow {
    rowid,
    name,
    completed,
    sync_status,
    error,
    warning,
    message,
    disks,
    snapshots_found,
    count,
    netbox_id,
    ip_id,
    address,
    vm,
    device,
    cluster
});

/// Deserializes a field as present, whatever its value.
pub(super) fn deserialize_present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl<'a> LegacyRow<'a> {
    /// The fact that this row reports about an object of the type `object_name`.
    pub fn fact(self, object_name: Cow<'a, str>, payload: Option<&'a RawValue>) -> Fact<'a> {
        let state = self.state(&object_name);
        let name = match (non_empty(self.rowid).or_else(|| non_empty(self.name)), &state) {
            (Some(name), _) => name,
            (None, ObjectState::Failed { is_part: false, .. }) => Cow::Borrowed(""),
            (None, _) => {
                return match self.message.0 {
                    Some(message) => Fact::Note { step: object_name, message: tidy(message, SENTENCE) },
                    None => Fact::Nothing,
                };
            }
        };
        let owner = scope_name(self.vm).or_else(|| scope_name(self.device));
        // Up to 0.0.6, the first frame of a device has the mode of its cluster in this field.
        let cluster =
            scope_name(self.cluster).filter(|name| !matches!(name.as_ref(), "Cluster" | "Standalone"));
        object_fact(object_name, Scope { cluster, owner }, name, (EventForm::Frame, state), payload)
    }

    fn state(&self, object_name: &str) -> ObjectState<'a> {
        if let Some(error) = self.error.as_str() {
            return ObjectState::failed(sentence(error));
        }
        let status = self.sync_status.or_empty();
        match self.completed.0 {
            // Every release uses this status for failed disks.
            Some(true) if status == "undefined" && self.disks.as_str().is_some() => {
                ObjectState::failed(sentence(self.disks.or_empty()))
            }
            Some(true) => self.completed(object_name),
            // The third frame that 0.0.1 and 0.0.2 send for a virtual machine has no `completed`.
            None if status == "completed" || status.contains(SYNCED) => self.completed(object_name),
            _ => ObjectState::Processing,
        }
    }

    fn completed(&self, object_name: &str) -> ObjectState<'a> {
        let warning = self.warning.as_str().map(sentence);
        let (found, written) = match Object::from_step(object_name) {
            Some(Object::VirtualDisk) => disks_in(self.disks.or_empty()),
            Some(Object::Snapshot) => (self.snapshots_found.0, 0),
            Some(Object::NodeInterface) => (self.count.0, 0),
            Some(Object::VmIp) => return self.address_completed(warning),
            _ => return ObjectState::Completed { warning, id: self.netbox_id.0 },
        };
        ObjectState::Checked { found, written, warning }
    }

    /// The state of an address row. Its subject is an interface, which may have no address.
    fn address_completed(&self, warning: Option<Cow<'a, str>>) -> ObjectState<'a> {
        let has_none =
            self.address.as_ref().is_some_and(|address| matches!(address.or_empty(), "" | "No IP"));
        match self.ip_id {
            _ if has_none => ObjectState::Checked { found: Some(0), written: 0, warning },
            // The backend suppressed the error of this address.
            Some(LenientCount(None)) => ObjectState::Processing,
            id => ObjectState::Completed { warning, id: id.and_then(|id| id.0) },
        }
    }
}

/// The numbers of found and written disks in `2 disks (1 created, 1 updated)`.
fn disks_in(text: &str) -> (Option<u64>, u64) {
    let mut written = 0;
    let mut found = None;
    let mut parts = text.split([' ', '(', ')', ',']).filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        match (part.parse::<u64>(), parts.peek()) {
            (Ok(number), Some(&("created" | "updated"))) => {
                written = number.min(LenientCount::MAX).saturating_add(written);
            }
            (Ok(number), Some(&"disks")) => found = Some(number.min(LenientCount::MAX)),
            _ => {}
        }
    }
    (found, written)
}

/// The name of a scope, if the text is one.
pub fn scope_name(text: LenientText<'_>) -> Option<Cow<'_, str>> {
    non_empty(text).filter(|place| place != "undefined")
}

/// The fact about one object. `object_name` is the backend's name for its type.
pub fn object_fact<'a>(
    object_name: Cow<'a, str>,
    scope: Scope<'a>,
    name: Cow<'a, str>,
    (form, state): (EventForm, ObjectState<'a>),
    payload: Option<&'a RawValue>,
) -> Fact<'a> {
    let object = Object::from_step(&object_name).unwrap_or(Object::Other);
    let object_name =
        if object == Object::Other { tidy(object_name, MAX_NAME) } else { Cow::Borrowed(object.as_str()) };
    let scope = match object {
        // An unknown type is distinguished by the backend's name for it.
        Object::Other => Scope { owner: Some(object_name.clone()), ..scope },
        _ => scope,
    };
    let state = match state {
        ObjectState::Completed { warning, .. } if !object.has_rows() => {
            ObjectState::Checked { found: None, written: 0, warning }
        }
        state => state,
    };
    Fact::Object { object: (object, object_name), scope, name, form, state, payload }
}

/// The text, unless it is empty or Python's `None`, which backends send as a string for a missing name.
pub fn non_empty(text: LenientText<'_>) -> Option<Cow<'_, str>> {
    text.0.filter(|name| !is_blank(name) && name != "None").map(|name| tidy(name, usize::MAX))
}

/// A readable sentence, owned.
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
