//! The release of a backend that was learned last.
//!
//! The rules of the NetBox listener depend on it. It stays when what is known of the backend is forgotten or expires: a
//! backend that syncs may answer nothing for long.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::core::domain::release::Release;

/// The release, until another one is learned, or the backend refuses connections: what starts after that may be another
/// release.
#[derive(Debug, Default)]
pub(super) struct LastRelease(Mutex<Option<Release>>);

impl LastRelease {
    pub(super) fn get(&self) -> Option<Release> {
        *self.inner()
    }

    /// Keeps `learned`, if a release was learned.
    pub(super) fn learn(&self, learned: Option<Release>) {
        let mut inner = self.inner();
        *inner = learned.or(*inner);
    }

    pub(super) fn forget(&self) {
        *self.inner() = None;
    }

    fn inner(&self) -> MutexGuard<'_, Option<Release>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
