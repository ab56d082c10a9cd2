//! What all connections of a server share.

use super::Options;
use super::keys::Keys;
use super::library::Library;
use super::log::Log;

/// What all connections of a server share.
pub(super) struct Shared {
    pub(super) library: Library,
    pub(super) options: Options,
    pub(super) keys: Keys,
    pub(super) log: Log,
}
