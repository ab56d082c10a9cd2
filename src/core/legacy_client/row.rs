//! A row of a page's table, and the frame that sets all its cells.

use std::fmt::Write;

use super::fields::LegacyFields;
use super::markup;
use crate::core::domain::object::Object;

/// The state of an object in a page's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is being processed.
    Begun,
    /// It failed. It may still complete.
    Failed,
    /// It is synced. This state is final.
    Completed,
}

/// The cells that a page sets from the frame itself, apart from `sync_status`.
const fn columns(object_type: Object) -> &'static [&'static str] {
    match object_type {
        Object::Device => &["netbox_id", "name", "manufacturer", "device_type", "role", "cluster"],
        Object::VirtualMachine => &[
            "netbox_id",
            "name",
            "status",
            "device",
            "cluster",
            "vm_interfaces",
            "role",
            "vcpus",
            "memory",
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
    /// The frame for the object in the state `state`, without its closing brace.
    pub(super) fn frame(&self, state: State) -> String {
        let (head, remark) = match state {
            State::Begun => (r#""completed":false,"increment_count":"no","sync_status":"syncing""#, None),
            State::Completed => {
                let head = r#""completed":true,"increment_count":"yes","sync_status":"completed""#;
                (head, Some("warning"))
            }
            // With a `completed`, pages would count it as another object or as a synced one.
            State::Failed => (r#""increment_count":"no","sync_status":"failed""#, Some("error")),
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
