//! What a backend can do, as far as it is known.

use crate::core::domain::kind::{Kind, SyncEndpoint};
use crate::core::domain::release::Release;
use crate::core::upstream::dialect::Dialect;

/// Whether a backend's `/ws` can be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketSupport {
    /// Nothing speaks against it.
    #[default]
    Presumed,
    /// Its execution policy refuses it: the default since 0.0.23.post1.
    Denied,
}

/// What is known of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Its release: as it says itself, or as its streams betray.
    pub release: Option<Release>,
    /// Whether it says that its `/ws` correlates frames with a `run_id`.
    pub correlates: bool,
    /// Whether its `/ws` can be opened.
    pub socket: SocketSupport,
    /// Whether it has `/proxbox/settings/netbox`, which 0.0.1 alone has.
    pub has_settings: Option<bool>,
    /// The streams that were asked for, and whether they are there.
    pub streams: Vec<(SyncEndpoint, bool)>,
}

/// The first release that has `/version` and `/health`.
pub const FIRST_WITH_VERSION: Release = Release::new(0, 0, 6);
/// The first release that wants a key.
pub const FIRST_WITH_KEY: Release = Release::new(0, 0, 7);

/// What 0.0.1 alone has.
pub const SETTINGS: &str = "/proxbox/settings/netbox";

/// The streams that tell the releases without `/version` apart.
pub const RELEASE_HINTS: [Kind; 3] = [Kind::Devices, Kind::VirtualDisks, Kind::Storage];

impl Capabilities {
    /// Those of a backend of which everything is known: it has `streams` and no others.
    #[cfg(test)]
    pub(crate) fn with_streams(release: &str, streams: &[Kind]) -> Self {
        let mut capabilities = Self { release: release.parse().ok(), ..Self::default() };
        for kind in Kind::all() {
            capabilities.set_stream(SyncEndpoint::for_kind(kind), streams.contains(&kind));
        }
        capabilities
    }

    /// Whether the backend has the stream of `endpoint`, if that is known.
    pub fn stream(&self, endpoint: SyncEndpoint) -> Option<bool> {
        self.streams.iter().find(|(known, _)| *known == endpoint).map(|(_, there)| *there)
    }

    /// Notes whether the stream of `endpoint` is there.
    pub fn set_stream(&mut self, endpoint: SyncEndpoint, exists: bool) {
        self.streams.retain(|(known, _)| *known != endpoint);
        self.streams.push((endpoint, exists));
    }

    /// The dialect of its `/ws`, if it is known.
    pub fn dialect(&self) -> Option<Dialect> {
        if self.correlates { Some(Dialect::V0_0_27) } else { self.release.map(Dialect::for_release) }
    }

    /// Whether it wants a key, if that is known.
    pub fn wants_key(&self) -> Option<bool> {
        self.release.map(|release| release >= FIRST_WITH_KEY)
    }

    /// The release of a backend that has no `/version`, by the streams that it has, and where it has none by its
    /// settings.
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
