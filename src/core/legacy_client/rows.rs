//! What a page knows of the objects of a run, so that it is told of each only once.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::row::{Cells, State};

/// How many objects are told apart, in less than 2 MiB. Nothing is said of those that come after them: nobody
/// could tell the first word about one of them from the second, and no total may count an object twice.
pub(super) const MAX_OBJECTS: usize = (1 << 16) / 8 * 7;
/// How many objects' cells are remembered until they are completed, and how many bytes of them. An object
/// that comes when there is no room has in its cells what its own frames say.
pub(super) const MAX_PENDING_CELLS: usize = 4096;
const MAX_PENDING_BYTES: usize = 4 << 20;

/// Something that the page has not been told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RowUpdate {
    /// It has not been told of the object at all.
    pub(super) first: bool,
    /// All that is known of it.
    pub(super) cells: Cells,
}

#[derive(Debug)]
struct RowEntry {
    state: State,
    cells: Option<Box<Cells>>,
}

/// The sort of an object, what it belongs to, and its name.
pub(super) type RowKey<'a> = (&'a str, Option<&'a str>, &'a str);

/// The objects of a run.
#[derive(Debug, Default)]
pub(super) struct RowTracker {
    /// By the hash of their key.
    entries: HashMap<u64, RowEntry, BuildHasherDefault<DefaultHasher>>,
    /// Objects whose cells are remembered. Holds: `remembered <= REMEMBERED`.
    pending: usize,
    /// The bytes of these cells. Holds: `bytes <= REMEMBERED_BYTES`.
    bytes: usize,
}

impl RowTracker {
    /// Takes what the log says of the object `key`, and gives it back with what was said before if the
    /// page is to be told.
    pub(super) fn update(&mut self, key: RowKey<'_>, reported: State, cells: Cells) -> Option<RowUpdate> {
        let hash = hash(key);
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
        // What failed has begun.
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

fn hash(key: RowKey<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
