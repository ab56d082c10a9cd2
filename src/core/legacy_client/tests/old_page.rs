//! An old plugin page: the part of its script that reads `/ws`, ported line by line.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

pub(super) const DEVICE: [&str; 7] =
    ["sync_status", "netbox_id", "name", "manufacturer", "device_type", "role", "cluster"];
pub(super) const MACHINE: [&str; 11] = [
    "sync_status", "netbox_id", "name", "status", "device", "cluster", "vm_interfaces", "role", "vcpus",
    "memory", "disk",
];

/// One of its two tables.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The rows by id, with the HTML of every cell by key.
    pub(super) rows: BTreeMap<String, BTreeMap<&'static str, String>>,
    pub(super) total: usize,
    pub(super) synced: usize,
}

#[derive(Debug, Default)]
pub(super) struct OldPage {
    pub(super) devices: Table,
    pub(super) machines: Table,
    /// The buttons that were re-enabled.
    pub(super) released: BTreeSet<String>,
    /// The list of raw frames, which the oldest pages render as HTML.
    pub(super) list: Vec<String>,
}

impl OldPage {
    pub(super) fn reading(frames: &[String]) -> Self {
        let mut page = Self { list: frames.to_vec(), ..Self::default() };
        frames.iter().for_each(|frame| page.read(frame));
        page
    }

    fn read(&mut self, frame: &str) {
        let Ok(frame) = serde_json::from_str::<Value>(frame) else { return };
        if frame["end"] == true {
            let name = text(frame.get("object"));
            assert!(self.released.insert(name), "an end comes once: {frame}");
            return;
        }
        let (table, keys) = match frame["object"].as_str() {
            Some("device") => (&mut self.devices, &DEVICE[..]),
            Some("virtual_machine") => (&mut self.machines, &MACHINE[..]),
            _ => return,
        };
        let data = &frame["data"];
        let row = table.rows.entry(text(data.get("rowid"))).or_default();
        for key in keys {
            row.insert(key, text(data.get(*key)));
        }
        if data["completed"] == false {
            table.total += 1;
        }
        if data["completed"] == true && data["increment_count"] == "yes" {
            table.synced += 1;
        }
    }

    /// Asserts the invariants of a page.
    pub(super) fn check(&self) {
        for table in [&self.devices, &self.machines] {
            assert_eq!(table.total, table.rows.len(), "each object is counted once: {table:#?}");
            let status =
                |status: &str| table.rows.values().filter(|row| row["sync_status"] == status).count();
            assert_eq!(table.synced, status("completed"), "{table:#?}");
            assert_eq!(status("syncing") + status("completed") + status("failed"), table.total, "{table:#?}");
            for (id, row) in &table.rows {
                assert_ne!(id, "undefined");
                for (key, cell) in row {
                    assert_ne!(cell, "undefined", "{key} of {id}");
                    assert_harmless(cell);
                }
            }
        }
        for frame in &self.list {
            assert_harmless(frame);
            assert!(!frame.contains(['\u{2028}', '\u{2029}']), "{frame}");
        }
    }
}

/// A value as the script inserts it into a cell.
fn text(value: Option<&Value>) -> String {
    match value {
        None => "undefined".to_owned(),
        Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.iter().map(|item| text(Some(item))).collect::<Vec<_>>().join(","),
        Some(Value::Object(_)) => "[object Object]".to_owned(),
        Some(value) => value.to_string(),
    }
}

/// Asserts that a browser renders `html` as nothing but text and links to pages.
pub(super) fn assert_harmless(html: &str) {
    let mut rest = html;
    while let Some(at) = rest.find(['<', '>']) {
        let tag = &rest[at..];
        let after = tag.strip_prefix("</a>").or_else(|| {
            let url = tag.strip_prefix("<a href='")?;
            let (url, after) = url.split_once("'>")?;
            let is_page = url.to_ascii_lowercase().starts_with("http://")
                || url.to_ascii_lowercase().starts_with("https://");
            (is_page && !url.contains(['<', '>', '"', '\''])).then_some(after)
        });
        rest = after.unwrap_or_else(|| panic!("markup: {html}"));
    }
}
