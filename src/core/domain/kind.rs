//! The table of kinds: what can be synchronised, and how backends offer it.
//!
//! Paths, commands and the releases in which a plain endpoint works were derived from the source of every published
//! release of `proxbox-api` in [`KNOWN_RELEASES`].

mod table;

use super::object::Object;
use super::release::Release;
use crate::core::text::string_enum::string_enum;
use table::TABLE;

/// The first and the last release of the backend that the table was derived from. A newer one is driven as the last.
pub const KNOWN_RELEASES: [&str; 2] = ["0.0.1", "0.0.30.post2"];

string_enum! {
    /// A kind of sync.
    #[derive(PartialOrd, Ord)]
    pub enum Kind {
        /// Proxmox nodes.
        Devices = "devices",
        /// Storages of the cluster.
        Storage = "storage",
        /// Virtual machines and containers.
        VirtualMachines = "virtual-machines",
        /// Disks of virtual machines.
        VirtualDisks = "virtual-disks",
        /// Backups of virtual machines.
        Backups = "backups",
        /// Snapshots of virtual machines.
        Snapshots = "snapshots",
        /// Every stage of the backend, one after the other.
        FullUpdate = "full-update",
        /// Network interfaces of nodes.
        DeviceInterfaces = "device-interfaces",
        /// Network interfaces of virtual machines.
        VmInterfaces = "vm-interfaces",
        /// IP addresses of virtual machines.
        IpAddresses = "ip-addresses",
        /// Proxmox tasks of virtual machines.
        TaskHistory = "task-history",
        /// Replication jobs.
        Replications = "replications",
        /// Backup schedules of the cluster.
        BackupRoutines = "backup-routines",
        /// Software-defined networks.
        Sdn = "sdn",
    }
}

string_enum! {
    /// A command of the legacy `/ws` socket, as sent on it.
    pub enum WsCommand {
        /// Devices.
        SyncNodes = "Sync Nodes",
        /// Virtual machines.
        SyncVirtualMachines = "Sync Virtual Machines",
        /// Devices, then virtual machines. Every release knows this name; its alias `Full Update` is newer.
        FullUpdate = "Full Update Sync",
    }
}

/// How the NetBox plugin treats the failure of a stage in its full update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginStage {
    /// The update stops: the other stages depend on this one.
    Essential,
    /// The update stops.
    Required,
    /// The plugin logs a warning and continues.
    Optional,
}

/// The source of the number of objects in NetBox after a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountSource {
    /// `count`.
    Count,
    /// `count`, or the created number of a summary.
    CountOrSummary,
    /// `count` or the summary, capped by the number of rows. The number counts a virtual machine once per endpoint
    /// that has it.
    CountOfRows,
    /// `count` or the summary. The other discovered objects have failed.
    CountOfDiscovered,
    /// The discovered objects without the failed and the skipped ones.
    RestOfDiscovered,
    /// The disks reported in the rows of virtual machines.
    DiskRows,
    /// The largest number of disks that a row reports for one virtual machine.
    LargestDiskRow,
    /// `reconciled`.
    Reconciled,
    /// `created` plus `updated`, which include unchanged objects.
    Written,
    /// `created` plus `updated`.
    Changed,
    /// None, except for zero: a backup is counted once per node that sees it.
    OncePerNode,
    /// None, except for zero: a snapshot replaces another one of the same name.
    ByName,
    /// None; only failures are counted.
    Failures,
    /// None.
    Nothing,
}

/// One row of the table.
#[derive(Debug)]
pub struct KindRow {
    /// The kind of this row.
    pub kind: Kind,
    /// The `step` of its stage.
    pub step: &'static str,
    /// The path under which the NetBox plugin queues it, for the seven documented kinds.
    pub plugin_path: Option<&'static str>,
    /// How the plugin treats its failure.
    pub plugin: PluginStage,
    /// The path of its stream. The path of the plain endpoint is the same without `/stream`.
    pub stream_path: &'static str,
    /// The first release in which the stream works, if not the first that has it. In earlier releases the stream does
    /// nothing, or its path is routed as that of one virtual machine.
    pub idle_before: Option<Release>,
    /// The first release in which the plain endpoint works, if any.
    pub json_since: Option<Release>,
    /// The last such release, if a later one broke it.
    pub json_until: Option<Release>,
    /// Its command on `/ws`, if any.
    pub command: Option<WsCommand>,
    /// The object type it creates.
    pub object: Object,
    /// Its name within a sentence.
    pub title: &'static str,
    /// Other names that backends use for the stage or its phase.
    pub aliases: &'static [&'static str],
    /// The source of its counts in releases before [`COUNTS_OBJECTS`](super::counting::COUNTS_OBJECTS), and since. The
    /// task history stage has none: it reports virtual machines but creates other objects.
    pub counts: [CountSource; 2],
    /// The kind that must have run first for this one to find any work. Set only if backends do not report that
    /// themselves.
    pub after: Option<Kind>,
}

impl KindRow {
    /// Whether the plain endpoint works in `release`.
    pub fn has_json(&self, release: Release) -> bool {
        self.json_since.is_some_and(|first| release >= first)
            && self.json_until.is_none_or(|last| release.is_up_to(last))
    }

    /// Whether its objects are counted.
    pub fn is_counted(&self) -> bool {
        self.counts != [CountSource::Nothing; 2]
    }
}

/// The stages of a full update, in the documented order.
pub const FULL_UPDATE: [Kind; 8] = [
    Kind::Devices,
    Kind::Storage,
    Kind::VirtualMachines,
    Kind::VirtualDisks,
    Kind::Backups,
    Kind::Snapshots,
    Kind::Replications,
    Kind::BackupRoutines,
];

impl Kind {
    /// All kinds, in table order.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter()
    }

    /// The row of this kind.
    pub fn row(self) -> &'static KindRow {
        // The table is in the order of the enum. The test `every_kind_has_its_own_row` checks this.
        &TABLE[self as usize]
    }

    /// The path at which a sync of this kind is queued: that of the NetBox plugin, if it has one.
    pub fn queue_path(self) -> String {
        match self.row().plugin_path {
            Some(path) => format!("/{path}"),
            None => format!("/sync/{self}/"),
        }
    }

    /// The kind of a field in the result of a full update, such as `virtual_machines`.
    pub fn of_field(name: &str) -> Option<Self> {
        Self::from_stage(&name.replace('_', "-"))
    }

    /// The kind of a backend's stage or phase, if known.
    pub fn from_stage(name: &str) -> Option<Self> {
        Self::all().find(|kind| {
            let row = kind.row();
            row.step == name || kind.as_str() == name || row.aliases.contains(&name)
        })
    }
}

/// The id of a virtual machine in NetBox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VmId(pub u64);

/// A stream endpoint: a kind for the whole inventory or for one virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SyncEndpoint {
    /// The kind.
    pub kind: Kind,
    /// The virtual machine, if the sync is restricted to one.
    pub vm: Option<VmId>,
}

const PER_VM_PREFIX: &str = "/virtualization/virtual-machines/";
const QUEUE_PER_VM_PREFIX: &str = "/sync/virtual-machines/";
const PER_VM: [(Kind, &str); 4] = [
    (Kind::VirtualMachines, "/create"),
    (Kind::VirtualDisks, "/virtual-disks/create"),
    (Kind::Backups, "/backups/create"),
    (Kind::Snapshots, "/snapshots/create"),
];

impl SyncEndpoint {
    /// The endpoint of a kind for the whole inventory.
    pub const fn for_kind(kind: Kind) -> Self {
        Self { kind, vm: None }
    }

    /// The sync stream at `path`. `None` for other paths, including streams that are no syncs (logs, migrations,
    /// provisioning).
    pub fn from_path(path: &str) -> Option<Self> {
        if let Some(row) = TABLE.iter().find(|row| row.stream_path == path) {
            return Some(Self::for_kind(row.kind));
        }
        Self::for_vm(path.strip_prefix(PER_VM_PREFIX)?.strip_suffix("/stream")?)
    }

    /// The sync of one virtual machine, whose id in digits is the first part of `path`.
    fn for_vm(path: &str) -> Option<Self> {
        let (id, tail) = path.split_at(path.find('/')?);
        let (kind, _) = PER_VM.into_iter().find(|(_, known)| *known == tail)?;
        // `u64::from_str` accepts a leading plus sign.
        let is_number = id.bytes().all(|byte| byte.is_ascii_digit());
        Some(Self { kind, vm: Some(VmId(id.parse().ok().filter(|_| is_number)?)) })
    }

    /// The sync that is queued at `path`, with or without a trailing slash.
    pub fn from_queue_path(path: &str) -> Option<Self> {
        let path = path.strip_suffix('/').unwrap_or(path);
        if let Some(kind) = Kind::all().find(|kind| kind.queue_path().strip_suffix('/') == Some(path)) {
            return Some(Self::for_kind(kind));
        }
        Self::for_vm(&format!("{}/create", path.strip_prefix(QUEUE_PER_VM_PREFIX)?))
    }

    /// The paths at which syncs are queued. `{vm}` stands for the id of a virtual machine.
    pub fn queue_paths() -> impl Iterator<Item = String> {
        let per_vm = PER_VM.into_iter().filter_map(|(_, tail)| tail.strip_suffix("/create"));
        let per_vm = per_vm.map(|tail| format!("{QUEUE_PER_VM_PREFIX}{{vm}}{tail}/"));
        Kind::all().map(Kind::queue_path).chain(per_vm)
    }

    /// The path of its plain endpoint.
    pub fn json_path(self) -> String {
        match self.vm {
            None => {
                let stream = self.kind.row().stream_path;
                stream.strip_suffix("/stream").unwrap_or(stream).to_owned()
            }
            Some(VmId(id)) => {
                let tail = PER_VM.into_iter().find(|(kind, _)| *kind == self.kind).map(|(_, tail)| tail);
                format!("{PER_VM_PREFIX}{id}{}", tail.unwrap_or("/create"))
            }
        }
    }

    /// The path of its stream.
    pub fn stream_path(self) -> String {
        format!("{}/stream", self.json_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_row() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.kind as usize, index, "{}", row.kind);
            assert!(row.stream_path.ends_with("/stream"));
            assert_eq!(SyncEndpoint::from_path(row.stream_path), Some(SyncEndpoint::for_kind(row.kind)));
            assert_eq!(SyncEndpoint::for_kind(row.kind).stream_path(), row.stream_path);
        }
    }

    #[test]
    fn every_name_of_a_stage_means_one_kind() {
        for row in &TABLE {
            for word in [row.kind.as_str(), row.step].iter().chain(row.aliases) {
                assert_eq!(Kind::from_stage(word), Some(row.kind), "{word}");
            }
        }
    }

    #[test]
    fn the_streams_of_one_virtual_machine_are_recognised() {
        let vm = Some(VmId(7));
        for (path, kind) in [
            ("/virtualization/virtual-machines/7/create/stream", Kind::VirtualMachines),
            ("/virtualization/virtual-machines/7/virtual-disks/create/stream", Kind::VirtualDisks),
            ("/virtualization/virtual-machines/7/backups/create/stream", Kind::Backups),
            ("/virtualization/virtual-machines/7/snapshots/create/stream", Kind::Snapshots),
        ] {
            let endpoint = SyncEndpoint { kind, vm };
            assert_eq!(SyncEndpoint::from_path(path), Some(endpoint));
            assert_eq!(endpoint.stream_path(), path);
        }
    }

    #[test]
    fn the_paths_of_the_plugin_are_known_with_and_without_their_last_slash() {
        let documented: Vec<_> = TABLE.iter().filter(|row| row.plugin_path.is_some()).collect();
        assert_eq!(documented.len(), 7);
        for row in documented {
            let path = format!("/{}", row.plugin_path.unwrap());
            for path in [path.as_str(), path.strip_suffix('/').unwrap()] {
                assert_eq!(SyncEndpoint::from_queue_path(path), Some(SyncEndpoint::for_kind(row.kind)));
            }
        }
        for path in ["sync/devices/", "/sync/devices//", "/sync/", "/sync/device", "/sync/sdns/", "/", ""] {
            assert_eq!(SyncEndpoint::from_queue_path(path), None, "{path}");
        }
    }

    #[test]
    fn every_kind_and_every_sync_of_one_virtual_machine_can_be_queued() {
        let ends: Vec<_> = SyncEndpoint::queue_paths()
            .map(|path| SyncEndpoint::from_queue_path(&path.replace("{vm}", "7")).unwrap().stream_path())
            .collect();
        let streams = Kind::all().map(|kind| kind.row().stream_path.to_owned());
        let tails = ["", "/virtual-disks", "/backups", "/snapshots"];
        let per_vm = tails.map(|tail| format!("/virtualization/virtual-machines/7{tail}/create/stream"));
        assert_eq!(ends, streams.chain(per_vm).collect::<Vec<_>>());
        for path in ["x7", "+7", "7/", "7/disks", "7/create", "99999999999999999999"] {
            let path = format!("/sync/virtual-machines/{path}/");
            assert_eq!(SyncEndpoint::from_queue_path(&path), None, "{path}");
        }
    }

    #[test]
    fn streams_that_are_not_syncs_are_left_alone() {
        for path in [
            "/admin/logs/stream",
            "/proxmox/qemu/100/migrate/UPID:pve1/stream",
            "/cloud/vm/provision/stream",
            "/cloud/firecracker/provision/stream",
            "/cloud/image-factory/builds/4/stream",
            "/ceph/v2/operations/4/events",
            "/virtualization/virtual-machines/orphans/sweep/stream",
            "/virtualization/virtual-machines//create/stream",
            "/virtualization/virtual-machines/x7/create/stream",
            "/virtualization/virtual-machines/+7/create/stream",
            "/full-update/stream/",
            "/full-update",
        ] {
            assert_eq!(SyncEndpoint::from_path(path), None, "{path}");
        }
    }
}
