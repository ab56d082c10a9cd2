//! The known capabilities of a backend.

use std::collections::HashMap;

use crate::core::domain::kind::{Kind, SyncEndpoint};
use crate::core::domain::release::Release;
use crate::core::upstream::dialect::Dialect;

/// Whether a backend's `/ws` can be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketSupport {
    /// Nothing indicates that it cannot be opened.
    #[default]
    Presumed,
    /// The backend's execution policy denies it. This is the default since 0.0.23.post1.
    Denied,
}

/// The known capabilities of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The backend's release, as it reports it or as inferred from its streams.
    pub release: Option<Release>,
    /// Whether the backend reports that its `/ws` correlates frames with a `run_id`.
    pub correlates: bool,
    /// Whether its `/ws` can be opened.
    pub socket: SocketSupport,
    /// Whether it has `/proxbox/settings/netbox`. Only 0.0.1 has it.
    pub has_settings: Option<bool>,
    /// The streams that were probed, and whether each exists.
    pub streams: HashMap<SyncEndpoint, bool>,
}

/// The first release that has `/version` and `/health`.
pub const FIRST_WITH_VERSION: Release = Release::new(0, 0, 6);
/// The first release that requires an API key.
pub const FIRST_WITH_KEY: Release = Release::new(0, 0, 7);

/// A path that only 0.0.1 has.
pub const SETTINGS: &str = "/proxbox/settings/netbox";

/// The streams that distinguish the releases without `/version`.
pub const RELEASE_HINTS: [Kind; 3] = [Kind::Devices, Kind::VirtualDisks, Kind::Storage];

impl Capabilities {
    /// The capabilities of a fully known backend that has exactly these `streams`.
    #[cfg(test)]
    pub(crate) fn with_streams(release: &str, streams: &[Kind]) -> Self {
        let streams = Kind::all().map(|kind| (SyncEndpoint::for_kind(kind), streams.contains(&kind)));
        Self { release: release.parse().ok(), streams: streams.collect(), ..Self::default() }
    }

    /// Whether the backend has the stream of `endpoint`. `None` if unknown.
    pub fn stream(&self, endpoint: SyncEndpoint) -> Option<bool> {
        self.streams.get(&endpoint).copied()
    }

    /// The dialect of its `/ws`, if known.
    pub fn dialect(&self) -> Option<Dialect> {
        if self.correlates { Some(Dialect::V0_0_27) } else { self.release.map(Dialect::for_release) }
    }

    /// Whether the backend requires an API key, if known.
    pub fn wants_key(&self) -> Option<bool> {
        self.release.map(|release| release >= FIRST_WITH_KEY)
    }

    /// Infers the release of a backend without `/version` from the streams it has. A backend without streams is dated
    /// by its settings route.
    pub fn inferred_release(&self) -> Option<Release> {
        let has = |kind| self.stream(SyncEndpoint::for_kind(kind));
        match (has(Kind::Devices)?, has(Kind::VirtualDisks)?, has(Kind::Storage)?) {
            (false, false, false) if self.has_settings == Some(true) => Some(Release::new(0, 0, 1)),
            (false, false, false) => Some(Release::new(0, 0, 2)),
            (true, false, false) => Some(Release::new(0, 0, 3)),
            (true, true, false) => Some(Release::new(0, 0, 4)),
            (true, true, true) => Some(Release::new(0, 0, 5)),
            _ => None,
        }
    }
}
