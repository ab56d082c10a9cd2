//! The state that all connections of a server share.

use super::ReplayOptions;
use super::keys::KeyCheck;
use super::library::Library;
use super::log::ServerLog;

/// The state that all connections of a server share.
pub(super) struct Shared {
    pub(super) library: Library,
    pub(super) options: ReplayOptions,
    pub(super) keys: KeyCheck,
    pub(super) log: ServerLog,
}
