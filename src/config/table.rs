//! The table of keys: the one place that says what can be configured.

mod backend;
mod common;
mod jobs;
mod limits;

use super::flags;
use super::slot::Slot;

/// One thing that can be configured.
#[derive(Debug)]
pub struct Key {
    /// Its name with its table: `limits.idle`.
    pub name: &'static str,
    /// Its default, as it would be written in a variable; `None` when there is none.
    pub default: Option<&'static str>,
    /// What it does, in a sentence.
    pub doc: &'static str,
    pub(super) slot: Slot,
}

impl Key {
    /// What it takes, as error messages say it after "must be".
    pub fn allowed(&self) -> String {
        self.slot.to_string()
    }

    /// The environment variable that sets it: `PROXBOX_BRIDGE_LIMITS_IDLE`.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// The flag that sets it, if there is one: `--backend`.
    pub fn flag(&self) -> Option<&'static str> {
        flags::of(self.name)
    }

    /// Whether each backend may have its own.
    pub fn is_of_backend(&self) -> bool {
        self.place().0 == "backend" || limits::OF_BACKEND.contains(&self.name)
    }

    /// Whether it takes a list: an array in the file, and parts with commas between them elsewhere.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.slot, Slot::Networks(_) | Slot::Hosts(_))
    }

    /// Its table in the file, empty for the top level, and its name there.
    pub(super) fn place(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or(("", self.name))
    }
}

/// Every key, in the order in which documentation lists them.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    common::KEYS.iter().chain(backend::KEYS).chain(jobs::KEYS).chain(limits::KEYS)
}

/// What the name of every variable of the bridge begins with.
pub(super) const PREFIX: &str = "PROXBOX_BRIDGE_";

const fn key(name: &'static str, default: Option<&'static str>, slot: Slot, doc: &'static str) -> Key {
    Key { name, default, doc, slot }
}

/// Puts the word `text` where it belongs, and says whether it is one.
fn put<T: std::str::FromStr>(field: &mut T, text: &str) -> bool {
    text.parse().map(|value| *field = value).is_ok()
}

/// The same where nothing may stand.
fn put_some<T: std::str::FromStr>(field: &mut Option<T>, text: &str) -> bool {
    text.parse().map(|value| *field = Some(value)).is_ok()
}
