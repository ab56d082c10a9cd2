//! Tracks which objects of a run a page already shows, so that each is counted once.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasher, BuildHasherDefault};

use super::row::Cells;
use crate::core::domain::event::StepStatus;

/// The maximum number of tracked objects, in less than 2 MiB. Later objects are not sent: they could not be recognized
/// when repeated, and no total may count an object twice.
pub(super) const MAX_OBJECTS: usize = (1 << 16) / 8 * 7;
/// The limits on cells kept for incomplete objects: the number of objects and the number of bytes. An object beyond
/// them shows only the cells of its own frames.
pub(super) const MAX_PENDING_CELLS: usize = 4096;
const MAX_PENDING_BYTES: usize = 4 << 20;

/// New information for the page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RowUpdate {
    /// The page does not show the object yet.
    pub(super) first: bool,
    /// All known cells of the object.
    pub(super) cells: Cells,
}

#[derive(Debug)]
struct RowEntry {
    /// `Completed` is final. A failed object may still complete.
    status: StepStatus,
    cells: Option<Box<Cells>>,
}

/// The type of an object, its parent, and its name.
pub(super) type RowKey<'a> = (&'a str, Option<&'a str>, &'a str);

/// The objects of a run.
#[derive(Debug, Default)]
pub(super) struct RowTracker {
    /// The objects by the hash of their key.
    entries: HashMap<u64, RowEntry, BuildHasherDefault<DefaultHasher>>,
    /// The number of objects with kept cells. Invariant: `pending <= MAX_PENDING_CELLS`.
    pending: usize,
    /// The size of these cells in bytes. Invariant: `bytes <= MAX_PENDING_BYTES`.
    bytes: usize,
}

impl RowTracker {
    /// Merges the log's report of the object `key`: progress, a failure or the end. Returns the result if the page must
    /// be updated.
    pub(super) fn update(
        &mut self,
        key: RowKey<'_>,
        reported: StepStatus,
        cells: Cells,
    ) -> Option<RowUpdate> {
        let hash = self.entries.hasher().hash_one(key);
        let is_full = self.entries.len() >= MAX_OBJECTS;
        let (before, old) = match self.entries.get_mut(&hash) {
            Some(RowEntry { status: StepStatus::Completed, .. }) => return None,
            Some(entry) => (Some(entry.status), entry.cells.take()),
            None if is_full => return None,
            None => (None, None),
        };
        let cells = match old {
            Some(old) => {
                self.pending -= 1;
                self.bytes -= old.bytes();
                cells.merged_over(*old)
            }
            None => cells,
        };
        // A failed object has also begun.
        let status = if reported == StepStatus::Progress { before.unwrap_or(reported) } else { reported };
        let stored = self.store_cells(status, &cells);
        self.entries.insert(hash, RowEntry { status, cells: stored });
        (before != Some(status)).then_some(RowUpdate { first: before.is_none(), cells })
    }

    fn store_cells(&mut self, status: StepStatus, cells: &Cells) -> Option<Box<Cells>> {
        let bytes = cells.bytes();
        let is_needed = status != StepStatus::Completed && bytes > 0;
        if !is_needed || self.pending >= MAX_PENDING_CELLS || self.bytes + bytes > MAX_PENDING_BYTES {
            return None;
        }
        self.pending += 1;
        self.bytes += bytes;
        Some(Box::new(cells.clone()))
    }
}
