//! One row of a page's table, and the frame that sets all of its cells.

use std::fmt::Write;

use super::event::LegacyFields;
use super::markup;
use crate::core::domain::object::Object;

/// What was said of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// That it is being worked on.
    Begun,
    /// That it failed, which need not be the last word.
    Failed,
    /// That it is done, which is.
    Completed,
}

/// The cells that a page sets from the frame itself, besides `sync_status`.
const fn columns(sort: Object) -> &'static [&'static str] {
    match sort {
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

/// What stands in the cells of one object, as JSON, in the order of its columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cells(Vec<Option<Box<str>>>);

impl Cells {
    pub(super) fn from_fields(sort: Object, data: &LegacyFields<'_>) -> Self {
        let cell = |column: &&str| {
            // The `status` of a remark is that of the sync.
            let raw = data.raw(column).filter(|_| *column != "status" || !data.is_remark());
            raw.and_then(markup::cell)
        };
        Self(columns(sort).iter().map(cell).collect())
    }

    /// These cells, and where they are empty those that stood there before.
    #[must_use]
    pub(super) fn merged_over(self, before: Self) -> Self {
        Self(self.0.into_iter().zip(before.0).map(|(new, old)| new.or(old)).collect())
    }

    /// Bytes of text.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().flatten().map(|cell| cell.len()).sum()
    }
}

/// One object, with every text as HTML.
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
    /// The frame that says what `state` the object is in, without its closing brace.
    pub(super) fn frame(&self, state: State) -> String {
        let (head, remark) = match state {
            State::Begun => (r#""completed":false,"increment_count":"no","sync_status":"syncing""#, None),
            State::Completed => {
                let head = r#""completed":true,"increment_count":"yes","sync_status":"completed""#;
                (head, Some("warning"))
            }
            // With a `completed` it would be counted: as one more object, or as one that is synced.
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
