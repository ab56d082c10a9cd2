//! A row of a page's table, and the frame that sets all its cells.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::markup;
use crate::core::domain::event::StepStatus;
use crate::core::domain::object::Object;
use crate::core::upstream::lenient::{LenientMap, LenientText};

/// The `data` of the legacy frame in a step's payload, by key. Empty if the step has none.
#[derive(Default)]
pub(super) struct LegacyFields<'a>(BTreeMap<String, &'a RawValue>);

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Payload<'a> {
    data: Option<&'a RawValue>,
}

impl<'a> LegacyFields<'a> {
    pub(super) fn from_payload(payload: Option<&'a [u8]>) -> Self {
        let data = payload
            .and_then(|json| serde_json::from_slice::<LenientMap<Payload<'a>>>(json).ok()?.0)
            .and_then(|payload| payload.data);
        Self(data.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default())
    }

    pub(super) fn raw(&self, key: &str) -> Option<&'a RawValue> {
        self.0.get(key).copied()
    }

    /// A text value without markup.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        let text: LenientText<'_> = serde_json::from_str(self.raw(key)?.get()).ok()?;
        text.as_str().map(|text| markup::text(text, markup::MAX_TEXT))
    }

    /// The key and the name of the object's parent.
    pub(super) fn owner(&self) -> Option<(&'static str, String)> {
        ["vm", "device"].into_iter().find_map(|key| Some((key, self.text(key)?)))
    }

    /// Whether its status is about the sync of the object (`"status": "warning"`), not about the object.
    pub(super) fn is_remark(&self) -> bool {
        ["warning", "error"].into_iter().any(|key| self.text(key).is_some())
    }
}

/// The cells that a page sets from the frame itself, apart from `sync_status`.
const fn columns(object_type: Object) -> &'static [&'static str] {
    match object_type {
        Object::Device => &["netbox_id", "name", "manufacturer", "device_type", "role", "cluster"],
        Object::VirtualMachine => &[
            "netbox_id", "name", "status", "device", "cluster", "vm_interfaces", "role", "vcpus", "memory",
            "disk",
        ],
        _ => &["name"],
    }
}

/// The cells of an object, as JSON, in the order of its columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cells(Vec<Option<Box<str>>>);

impl Cells {
    pub(super) fn from_fields(object_type: Object, data: &LegacyFields<'_>) -> Self {
        let cell = |column: &&str| {
            // The `status` of a remark is that of the sync.
            let raw = data.raw(column).filter(|_| *column != "status" || !data.is_remark());
            raw.and_then(markup::cell)
        };
        Self(columns(object_type).iter().map(cell).collect())
    }

    /// These cells, with empty ones taken from the earlier cells.
    #[must_use]
    pub(super) fn merged_over(self, before: Self) -> Self {
        Self(self.0.into_iter().zip(before.0).map(|(new, old)| new.or(old)).collect())
    }

    /// The size of the cells in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().flatten().map(|cell| cell.len()).sum()
    }
}

/// An object, with every text as HTML.
pub(super) struct TableRow<'a> {
    pub(super) object: &'a str,
    pub(super) object_type: Object,
    pub(super) owner: Option<(&'static str, String)>,
    pub(super) rowid: &'a str,
    pub(super) cells: &'a Cells,
    /// The warning or the error.
    pub(super) remark: Option<String>,
}

impl TableRow<'_> {
    /// The frame for the object with this status, without its closing brace.
    pub(super) fn frame(&self, status: StepStatus) -> String {
        let (head, remark) = match status {
            StepStatus::Started | StepStatus::Progress => {
                (r#""completed":false,"increment_count":"no","sync_status":"syncing""#, None)
            }
            StepStatus::Completed => {
                let head = r#""completed":true,"increment_count":"yes","sync_status":"completed""#;
                (head, Some("warning"))
            }
            // With a `completed`, pages would count it as another object or as a synced one.
            StepStatus::Failed => (r#""increment_count":"no","sync_status":"failed""#, Some("error")),
        };
        let rowid = markup::json(self.rowid);
        let object = markup::json(self.object);
        let mut out = format!(r#"{{"object":{object},"type":"create","data":{{{head},"rowid":{rowid}"#);
        for (column, cell) in columns(self.object_type).iter().zip(&self.cells.0) {
            let cell = match cell {
                Some(cell) => cell,
                None if *column == "name" => rowid.as_str(),
                None => "null",
            };
            put(&mut out, column, cell);
        }
        if let Some((key, name)) = &self.owner {
            put(&mut out, key, &markup::json(name));
        }
        if let (Some(key), Some(text)) = (remark, &self.remark) {
            put(&mut out, key, &markup::json(text));
        }
        out.push('}');
        out
    }
}

fn put(out: &mut String, key: &str, json: &str) {
    // Writing to a string cannot fail.
    let _ = write!(out, ",\"{key}\":{json}");
}
