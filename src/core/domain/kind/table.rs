//! The rows of the table, in the order of the enum.

use super::PluginStage::{Essential, Optional, Required};
use super::{Kind, KindRow, WorkingReleases, WsCommand};
use crate::core::domain::object::Object;
use crate::core::domain::release::Release;

const fn since(from: Release) -> Option<WorkingReleases> {
    Some(WorkingReleases { from, to: None })
}

const fn between(from: Release, to: Release) -> Option<WorkingReleases> {
    Some(WorkingReleases { from, to: Some(to) })
}

/// What most rows have in common.
const PLAIN: KindRow = KindRow {
    kind: Kind::Devices,
    step: "",
    plugin_path: None,
    plugin: Required,
    stream_path: "",
    idle_before: None,
    json: None,
    command: None,
    object: Object::Other,
    title: "",
    aliases: &[],
    counted: true,
    after: None,
};

pub(super) static TABLE: [KindRow; 14] = [
    KindRow {
        kind: Kind::Devices,
        step: "devices",
        plugin_path: Some("sync/devices/"),
        plugin: Essential,
        stream_path: "/dcim/devices/create/stream",
        json: between(Release::new(0, 0, 3), Release::new(0, 0, 4)),
        command: Some(WsCommand::SyncNodes),
        object: Object::Device,
        title: "devices",
        aliases: &["device"],
        ..PLAIN
    },
    KindRow {
        kind: Kind::Storage,
        step: "storage",
        plugin_path: Some("sync/storage/"),
        stream_path: "/virtualization/virtual-machines/storage/create/stream",
        idle_before: Some(Release::new(0, 0, 6)),
        json: since(Release::new(0, 0, 6)),
        object: Object::Storage,
        title: "storage",
        after: Some(Kind::Devices),
        ..PLAIN
    },
    KindRow {
        kind: Kind::VirtualMachines,
        step: "virtual-machines",
        plugin_path: Some("sync/virtual-machines/"),
        plugin: Essential,
        stream_path: "/virtualization/virtual-machines/create/stream",
        json: between(Release::new(0, 0, 2), Release::new(0, 0, 6)),
        command: Some(WsCommand::SyncVirtualMachines),
        object: Object::VirtualMachine,
        title: "virtual machines",
        aliases: &["virtual_machine"],
        ..PLAIN
    },
    KindRow {
        kind: Kind::VirtualDisks,
        step: "virtual-disks",
        plugin_path: Some("sync/virtual-machines/virtual-disks/"),
        stream_path: "/virtualization/virtual-machines/virtual-disks/create/stream",
        idle_before: Some(Release::new(0, 0, 6)),
        json: since(Release::new(0, 0, 6)),
        object: Object::VirtualDisk,
        title: "virtual disks",
        aliases: &["virtual_disk"],
        after: Some(Kind::VirtualMachines),
        ..PLAIN
    },
    KindRow {
        kind: Kind::Backups,
        step: "backups",
        plugin_path: Some("sync/virtual-machines/backups/"),
        plugin: Optional,
        stream_path: "/virtualization/virtual-machines/backups/all/create/stream",
        json: since(Release::new(0, 0, 4)),
        object: Object::Backup,
        title: "backups",
        aliases: &["backup"],
        after: Some(Kind::VirtualMachines),
        ..PLAIN
    },
    KindRow {
        kind: Kind::Snapshots,
        step: "snapshots",
        plugin_path: Some("sync/virtual-machines/snapshots/"),
        plugin: Optional,
        stream_path: "/virtualization/virtual-machines/snapshots/all/create/stream",
        idle_before: Some(Release::new(0, 0, 5)),
        json: since(Release::new(0, 0, 5)),
        object: Object::Snapshot,
        title: "snapshots",
        aliases: &["snapshot", "vm-snapshots"],
        after: Some(Kind::VirtualMachines),
        ..PLAIN
    },
    KindRow {
        kind: Kind::FullUpdate,
        step: "full-update",
        plugin_path: Some("sync/full-update/"),
        plugin: Essential,
        stream_path: "/full-update/stream",
        // The plain endpoint reports the errors of a stage inside a 200. Since 0.0.7 it answers 500 after all the
        // work. Requests for the single stages return more detail.
        command: Some(WsCommand::FullUpdate),
        object: Object::Other,
        title: "full update",
        aliases: &["stream"],
        counted: false,
        ..PLAIN
    },
    KindRow {
        kind: Kind::DeviceInterfaces,
        step: "node-interfaces",
        stream_path: "/dcim/devices/interfaces/create/stream",
        object: Object::Interface,
        title: "node interfaces",
        aliases: &["node_interface", "device-interfaces"],
        ..PLAIN
    },
    KindRow {
        kind: Kind::VmInterfaces,
        step: "vm-interfaces",
        stream_path: "/virtualization/virtual-machines/interfaces/create/stream",
        idle_before: Some(Release::new(0, 0, 6)),
        object: Object::VmInterface,
        title: "VM interfaces",
        aliases: &["vm_interface"],
        ..PLAIN
    },
    KindRow {
        kind: Kind::IpAddresses,
        step: "vm-ip-addresses",
        stream_path: "/virtualization/virtual-machines/interfaces/ip-address/create/stream",
        object: Object::VmIp,
        title: "VM IP addresses",
        aliases: &["vm_ip", "ip-addresses"],
        ..PLAIN
    },
    KindRow {
        kind: Kind::TaskHistory,
        step: "task-history",
        plugin: Optional,
        stream_path: "/virtualization/virtual-machines/task-history/create/stream",
        idle_before: Some(Release::new(0, 0, 7)),
        object: Object::TaskHistory,
        title: "task history",
        aliases: &["task_history"],
        counted: false,
        ..PLAIN
    },
    KindRow {
        kind: Kind::Replications,
        step: "replications",
        stream_path: "/proxmox/replication/stream",
        object: Object::Replication,
        title: "replications",
        aliases: &["replication"],
        ..PLAIN
    },
    KindRow {
        kind: Kind::BackupRoutines,
        step: "backup-routines",
        stream_path: "/proxmox/cluster/backup/stream",
        object: Object::BackupRoutine,
        title: "backup routines",
        aliases: &["backup_routine", "backup-routine"],
        ..PLAIN
    },
    KindRow {
        kind: Kind::Sdn,
        step: "sdn",
        plugin: Optional,
        stream_path: "/proxmox/sdn/create/stream",
        object: Object::Sdn,
        title: "SDN",
        ..PLAIN
    },
];
