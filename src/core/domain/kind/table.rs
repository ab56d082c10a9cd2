//! The rows of the table, in the order of the enum.

use super::CountSource::{
    ByName, Changed, Count, CountOfDiscovered, CountOfRows, CountOrSummary, DiskRows, Failures,
    LargestDiskRow, Nothing, OncePerNode, Reconciled, RestOfDiscovered, Written,
};
use super::PluginStage::{Essential, Optional, Required};
use super::{Kind, KindRow, WsCommand};
use crate::core::domain::object::Object;
use crate::core::domain::release::Release;

/// The row of `kind` with what most rows have in common.
const fn plain(kind: Kind) -> KindRow {
    KindRow {
        kind,
        step: kind.as_str(),
        plugin_path: None,
        plugin: Required,
        stream_path: "",
        idle_before: None,
        json_since: None,
        json_until: None,
        command: None,
        object: Object::Other,
        title: kind.as_str(),
        aliases: &[],
        counts: [Nothing; 2],
        after: None,
    }
}

pub(super) static TABLE: [KindRow; 14] = [
    KindRow {
        plugin_path: Some("sync/devices/"),
        plugin: Essential,
        stream_path: "/dcim/devices/create/stream",
        json_since: Some(Release::new(0, 0, 3)),
        json_until: Some(Release::new(0, 0, 4)),
        command: Some(WsCommand::SyncNodes),
        object: Object::Device,
        // Its summary reports every synced object as created.
        counts: [CountOrSummary; 2],
        aliases: &["device"],
        ..plain(Kind::Devices)
    },
    KindRow {
        plugin_path: Some("sync/storage/"),
        stream_path: "/virtualization/virtual-machines/storage/create/stream",
        idle_before: Some(Release::new(0, 0, 6)),
        json_since: Some(Release::new(0, 0, 6)),
        object: Object::Storage,
        counts: [Count, RestOfDiscovered],
        after: Some(Kind::Devices),
        ..plain(Kind::Storage)
    },
    KindRow {
        plugin_path: Some("sync/virtual-machines/"),
        plugin: Essential,
        stream_path: "/virtualization/virtual-machines/create/stream",
        json_since: Some(Release::new(0, 0, 2)),
        json_until: Some(Release::new(0, 0, 6)),
        command: Some(WsCommand::SyncVirtualMachines),
        object: Object::VirtualMachine,
        counts: [CountOfRows, CountOfDiscovered],
        title: "virtual machines",
        aliases: &["virtual_machine"],
        ..plain(Kind::VirtualMachines)
    },
    KindRow {
        plugin_path: Some("sync/virtual-machines/virtual-disks/"),
        stream_path: "/virtualization/virtual-machines/virtual-disks/create/stream",
        idle_before: Some(Release::new(0, 0, 6)),
        json_since: Some(Release::new(0, 0, 6)),
        object: Object::VirtualDisk,
        counts: [LargestDiskRow, DiskRows],
        title: "virtual disks",
        aliases: &["virtual_disk"],
        after: Some(Kind::VirtualMachines),
        ..plain(Kind::VirtualDisks)
    },
    KindRow {
        plugin_path: Some("sync/virtual-machines/backups/"),
        plugin: Optional,
        stream_path: "/virtualization/virtual-machines/backups/all/create/stream",
        json_since: Some(Release::new(0, 0, 4)),
        object: Object::Backup,
        counts: [OncePerNode, Reconciled],
        aliases: &["backup"],
        after: Some(Kind::VirtualMachines),
        ..plain(Kind::Backups)
    },
    KindRow {
        plugin_path: Some("sync/virtual-machines/snapshots/"),
        plugin: Optional,
        stream_path: "/virtualization/virtual-machines/snapshots/all/create/stream",
        idle_before: Some(Release::new(0, 0, 5)),
        json_since: Some(Release::new(0, 0, 5)),
        object: Object::Snapshot,
        counts: [ByName, Written],
        aliases: &["snapshot", "vm-snapshots"],
        after: Some(Kind::VirtualMachines),
        ..plain(Kind::Snapshots)
    },
    KindRow {
        plugin_path: Some("sync/full-update/"),
        plugin: Essential,
        stream_path: "/full-update/stream",
        // The plain endpoint reports the errors of a stage inside a 200. Since 0.0.7 it answers 500 after all the
        // work. Requests for the single stages return more detail.
        command: Some(WsCommand::FullUpdate),
        object: Object::Other,
        title: "full update",
        aliases: &["stream"],
        ..plain(Kind::FullUpdate)
    },
    KindRow {
        step: "node-interfaces",
        stream_path: "/dcim/devices/interfaces/create/stream",
        object: Object::Interface,
        counts: [Count; 2],
        title: "node interfaces",
        aliases: &["node_interface", "device-interfaces"],
        ..plain(Kind::DeviceInterfaces)
    },
    KindRow {
        stream_path: "/virtualization/virtual-machines/interfaces/create/stream",
        idle_before: Some(Release::new(0, 0, 6)),
        object: Object::VmInterface,
        counts: [Count; 2],
        title: "VM interfaces",
        aliases: &["vm_interface"],
        ..plain(Kind::VmInterfaces)
    },
    KindRow {
        step: "vm-ip-addresses",
        stream_path: "/virtualization/virtual-machines/interfaces/ip-address/create/stream",
        object: Object::VmIp,
        counts: [Count; 2],
        title: "VM IP addresses",
        aliases: &["vm_ip", "ip-addresses"],
        ..plain(Kind::IpAddresses)
    },
    KindRow {
        plugin: Optional,
        stream_path: "/virtualization/virtual-machines/task-history/create/stream",
        idle_before: Some(Release::new(0, 0, 7)),
        object: Object::TaskHistory,
        title: "task history",
        aliases: &["task_history"],
        ..plain(Kind::TaskHistory)
    },
    KindRow {
        stream_path: "/proxmox/replication/stream",
        object: Object::Replication,
        counts: [Changed; 2],
        aliases: &["replication"],
        ..plain(Kind::Replications)
    },
    KindRow {
        stream_path: "/proxmox/cluster/backup/stream",
        object: Object::BackupRoutine,
        counts: [Changed; 2],
        title: "backup routines",
        aliases: &["backup_routine", "backup-routine"],
        ..plain(Kind::BackupRoutines)
    },
    KindRow {
        plugin: Optional,
        stream_path: "/proxmox/sdn/create/stream",
        object: Object::Sdn,
        counts: [Failures; 2],
        title: "SDN",
        ..plain(Kind::Sdn)
    },
];
