//! The responses of the bridge itself.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use proxbox_bridge::core::domain::kind::SyncEndpoint;

use super::calls::Call;
use super::http1::ReceivedResponse;
use super::listing::Listing;

/// Every sync stream that any of the listed backends has. Nothing else of a listing is the bridge's own where
/// the backend is young.
const STREAMS: [&str; 18] = [
    "/dcim/devices/create/stream",
    "/dcim/devices/interfaces/create/stream",
    "/full-update/stream",
    "/proxmox/cluster/backup/stream",
    "/proxmox/replication/stream",
    "/proxmox/sdn/create/stream",
    "/virtualization/virtual-machines/1/backups/create/stream",
    "/virtualization/virtual-machines/1/create/stream",
    "/virtualization/virtual-machines/1/snapshots/create/stream",
    "/virtualization/virtual-machines/1/virtual-disks/create/stream",
    "/virtualization/virtual-machines/backups/all/create/stream",
    "/virtualization/virtual-machines/create/stream",
    "/virtualization/virtual-machines/interfaces/create/stream",
    "/virtualization/virtual-machines/interfaces/ip-address/create/stream",
    "/virtualization/virtual-machines/snapshots/all/create/stream",
    "/virtualization/virtual-machines/storage/create/stream",
    "/virtualization/virtual-machines/task-history/create/stream",
    "/virtualization/virtual-machines/virtual-disks/create/stream",
];
/// What plugin 0.0.10 calls two of them.
pub(super) const ALIASES: [&str; 2] = ["/cluster/replication/stream", "/cluster/backup/stream"];
/// The paths and methods that the bridge serves if a backend lacks them.
const KEYS: [&str; 3] = ["/auth/bootstrap-status", "/auth/register-key", "/auth/keys"];
const HEALTH: &str = "/health";
const VERSION: &str = "/version";
/// The paths that the bridge answers with an empty list if a backend lacks them.
const INVENTORY: [&str; 2] = ["/proxmox/firewall/summary", "/proxmox/datacenter/cpu-models"];
/// Paths whose responses may be cached.
const CHEAP: [&str; 3] = ["/", VERSION, HEALTH];

/// The paths that the bridge serves itself in front of one backend.
pub(super) struct BridgePaths {
    is_old: bool,
    /// All paths of which that is so.
    expected: BTreeSet<String>,
    /// Those of them that have been answered so.
    met: BTreeSet<String>,
}

impl BridgePaths {
    pub(super) fn new(listing: &Listing) -> Self {
        let is_old = listing.is_old;
        let listed: BTreeSet<String> =
            listing.paths.iter().map(|(template, place)| place.concrete(template)).collect();
        for path in &listed {
            assert_eq!(SyncEndpoint::from_path(path).is_some(), STREAMS.contains(&path.as_str()), "{path}");
        }
        let mut expected: BTreeSet<String> =
            STREAMS.into_iter().filter(|path| listed.contains(*path)).map(str::to_owned).collect();
        expected.extend(ALIASES.map(str::to_owned));
        if is_old {
            expected.extend(KEYS.map(str::to_owned));
            expected.insert(HEALTH.to_owned());
        }
        Self { is_old, expected, met: BTreeSet::new() }
    }

    /// How often the backend may get `call`, to which it responded with `direct`.
    pub(super) fn times(&self, call: &Call, direct: &ReceivedResponse) -> RangeInclusive<usize> {
        let is_cheap = CHEAP.contains(&call.path()) && call.is_bodiless();
        match (self.keeps(call), is_cheap) {
            (true, _) => 0..=0,
            // Once the path is known to be missing, only reachability is probed.
            _ if is_health(call) && is_silent(direct) => 0..=1,
            // A response that turns out to be private is requested again for the other client.
            (false, true) if call.method == "GET" => 1..=3,
            (false, _) => 1..=1,
        }
    }

    /// Whether the bridge answers `call` without a backend request.
    fn keeps(&self, call: &Call) -> bool {
        let path = call.path();
        !call.is_preflight() && (is_stream(path) || self.is_old && KEYS.contains(&path))
    }

    /// Whether it replaces `direct`, the response of the backend to `call`.
    pub(super) fn answers(&mut self, call: &Call, direct: &ReceivedResponse) -> bool {
        let is_own = self.keeps(call) || is_health(call) && is_silent(direct);
        if is_own {
            let path = call.path();
            let path = if is_stream(path) { path.strip_suffix('/').unwrap_or(path) } else { path };
            self.met.insert(path.to_owned());
        }
        is_own || self.stands_in(call, direct)
    }

    /// Whether the backend does not know what `call` asks for, and the bridge does. `tests/front/compat.rs` looks
    /// at what it says then.
    fn stands_in(&self, call: &Call, direct: &ReceivedResponse) -> bool {
        let is_asked = INVENTORY.contains(&call.path()) || self.is_old && call.path() == VERSION;
        let is_unknown = direct.status == 404 && direct.body == br#"{"detail":"Not Found"}"#;
        is_asked && call.method == "GET" && call.is_bodiless() && is_unknown
    }

    /// Checks that everything was met that is on the list, and nothing else.
    pub(super) fn check(&self) {
        assert_eq!(self.met, self.expected);
    }
}

fn is_health(call: &Call) -> bool {
    call.path() == HEALTH && call.method == "GET" && call.is_bodiless()
}

/// Whether such a response says nothing of the health of the backend.
fn is_silent(reply: &ReceivedResponse) -> bool {
    matches!(reply.status, 404 | 502 | 504)
}

/// Whether `path` is a stream of the bridge's own, also with a slash at its end.
pub(super) fn is_stream(path: &str) -> bool {
    let bare = path.strip_suffix('/').unwrap_or(path);
    [path, bare].iter().any(|path| SyncEndpoint::from_path(path).is_some()) || ALIASES.contains(&path)
}
