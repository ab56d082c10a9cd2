//! What a page knows of the objects of a run, so that it is told of each only once.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::row::{Cells, State};

/// How many objects are told apart, in less than 2 MiB. Nothing is said of those that come after them: nobody
/// could tell the first word about one of them from the second, and no total may count an object twice.
pub(super) const TOLD_APART: usize = (1 << 16) / 8 * 7;
/// How many objects' cells are remembered until they are completed, and how many bytes of them. An object
/// that comes when there is no room has in its cells what its own frames say.
pub(super) const REMEMBERED: usize = 4096;
const REMEMBERED_BYTES: usize = 4 << 20;

/// Something that the page has not been told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    /// It has not been told of the object at all.
    pub(super) first: bool,
    /// All that is known of it.
    pub(super) cells: Cells,
}

#[derive(Debug)]
struct Known {
    state: State,
    cells: Option<Box<Cells>>,
}

/// The sort of an object, what it belongs to, and its name.
pub(super) type Key<'a> = (&'a str, Option<&'a str>, &'a str);

/// The objects of a run.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// By the hash of their key.
    known: HashMap<u64, Known, BuildHasherDefault<DefaultHasher>>,
    /// Objects whose cells are remembered. Holds: `remembered <= REMEMBERED`.
    remembered: usize,
    /// The bytes of these cells. Holds: `bytes <= REMEMBERED_BYTES`.
    bytes: usize,
}

impl Rows {
    /// Takes what the log says of the object `key`, and gives it back with what was said before if the
    /// page is to be told.
    pub(super) fn take(&mut self, key: Key<'_>, told: State, cells: Cells) -> Option<News> {
        let hash = hash(key);
        let is_full = self.known.len() >= TOLD_APART;
        let (before, old) = match self.known.get_mut(&hash) {
            Some(Known { state: State::Completed, .. }) => return None,
            Some(known) => (Some(known.state), known.cells.take()),
            None if is_full => return None,
            None => (None, None),
        };
        let cells = match old {
            Some(old) => {
                self.remembered -= 1;
                self.bytes -= old.bytes();
                cells.over(*old)
            }
            None => cells,
        };
        // What failed has begun.
        let state = if told == State::Begun { before.unwrap_or(told) } else { told };
        let kept = self.remember(state, &cells);
        self.known.insert(hash, Known { state, cells: kept });
        (before != Some(state)).then_some(News { first: before.is_none(), cells })
    }

    fn remember(&mut self, state: State, cells: &Cells) -> Option<Box<Cells>> {
        let bytes = cells.bytes();
        let is_needed = state != State::Completed && bytes > 0;
        if !is_needed || self.remembered >= REMEMBERED || self.bytes + bytes > REMEMBERED_BYTES {
            return None;
        }
        self.remembered += 1;
        self.bytes += bytes;
        Some(Box::new(cells.clone()))
    }
}

fn hash(key: Key<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
