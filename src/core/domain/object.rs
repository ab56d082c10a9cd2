//! The object types that a sync creates.

use std::fmt;

/// An object type, named as in the `step` of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    /// A Proxmox node.
    Device,
    /// A storage of a cluster.
    Storage,
    /// A virtual machine or container.
    VirtualMachine,
    /// A disk of a virtual machine.
    VirtualDisk,
    /// A backup.
    Backup,
    /// A snapshot of a virtual machine.
    Snapshot,
    /// The interfaces of a node, in events about all of them.
    NodeInterface,
    /// A network interface of a node.
    Interface,
    /// A network interface of a virtual machine.
    VmInterface,
    /// An IP address of a virtual machine.
    VmIp,
    /// A Proxmox task.
    TaskHistory,
    /// A replication job.
    Replication,
    /// A backup schedule.
    BackupRoutine,
    /// A software-defined network.
    Sdn,
    /// An unknown type.
    Other,
}

impl Object {
    /// All object types.
    pub const ALL: [Self; 15] = [
        Self::Device,
        Self::Storage,
        Self::VirtualMachine,
        Self::VirtualDisk,
        Self::Backup,
        Self::Snapshot,
        Self::NodeInterface,
        Self::Interface,
        Self::VmInterface,
        Self::VmIp,
        Self::TaskHistory,
        Self::Replication,
        Self::BackupRoutine,
        Self::Sdn,
        Self::Other,
    ];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Storage => "storage",
            Self::VirtualMachine => "virtual_machine",
            Self::VirtualDisk => "virtual_disk",
            Self::Backup => "backup",
            Self::Snapshot => "snapshot",
            Self::NodeInterface => "node_interface",
            Self::Interface => "interface",
            Self::VmInterface => "vm_interface",
            Self::VmIp => "vm_ip",
            Self::TaskHistory => "task_history",
            Self::Replication => "replication",
            Self::BackupRoutine => "backup_routine",
            Self::Sdn => "sdn",
            Self::Other => "other",
        }
    }

    /// The object type with a backend's name, if known.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|object| object.as_str() == name && *object != Self::Other)
    }

    /// Whether each event about this type reports one object. Other events report a parent: a virtual machine whose
    /// disks were inspected is not a disk.
    pub const fn has_rows(self) -> bool {
        !matches!(self, Self::VirtualDisk | Self::Snapshot | Self::NodeInterface)
    }

    /// The plural for messages.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Device => "devices",
            Self::Storage => "storages",
            Self::VirtualMachine => "virtual machines",
            Self::VirtualDisk => "disks",
            Self::Backup => "backups",
            Self::Snapshot => "snapshots",
            Self::NodeInterface | Self::Interface => "node interfaces",
            Self::VmInterface => "VM interfaces",
            Self::VmIp => "IP addresses",
            Self::TaskHistory => "tasks",
            Self::Replication => "replications",
            Self::BackupRoutine => "backup routines",
            Self::Sdn => "SDN objects",
            Self::Other => "objects",
        }
    }

    /// Whether objects of this type share names across parents, so that the parent is part of the identity.
    pub const fn is_scoped(self) -> bool {
        matches!(self, Self::Interface | Self::VmInterface | Self::VmIp | Self::Other)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
