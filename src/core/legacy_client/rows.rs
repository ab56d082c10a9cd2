//! Tracks which objects of a run a page already shows, so that each is counted once.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasher, BuildHasherDefault};

use super::row::{Cells, State};

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
    state: State,
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
    /// Merges the log's report of the object `key`. Returns the result if the page must be updated.
    pub(super) fn update(&mut self, key: RowKey<'_>, reported: State, cells: Cells) -> Option<RowUpdate> {
        let hash = self.entries.hasher().hash_one(key);
        let is_full = self.entries.len() >= MAX_OBJECTS;
        let (before, old) = match self.entries.get_mut(&hash) {
            Some(RowEntry { state: State::Completed, .. }) => return None,
            Some(entry) => (Some(entry.state), entry.cells.take()),
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
        let state = if reported == State::Begun { before.unwrap_or(reported) } else { reported };
        let stored = self.store_cells(state, &cells);
        self.entries.insert(hash, RowEntry { state, cells: stored });
        (before != Some(state)).then_some(RowUpdate { first: before.is_none(), cells })
    }

    fn store_cells(&mut self, state: State, cells: &Cells) -> Option<Box<Cells>> {
        let bytes = cells.bytes();
        let is_needed = state != State::Completed && bytes > 0;
        if !is_needed || self.pending >= MAX_PENDING_CELLS || self.bytes + bytes > MAX_PENDING_BYTES {
            return None;
        }
        self.pending += 1;
        self.bytes += bytes;
        Some(Box::new(cells.clone()))
    }
}
