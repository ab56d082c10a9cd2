//! The sorts of objects that a sync is made of.

use std::fmt;

/// A sort of object, as the `step` of its events names it.
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
    /// An interface of a node, in the events that are about all of them.
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
    /// A sort that no release had when this was written.
    Other,
}

impl Object {
    /// Every sort.
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

    /// The word on the wire.
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

    /// The sort that a backend means by `word`, if it is one that we know.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|object| object.as_str() == name && *object != Self::Other)
    }

    /// Whether the events about single objects of this sort are about one each. The others are about what
    /// they belong to: a virtual machine whose disks were looked at is no disk.
    pub const fn has_rows(self) -> bool {
        !matches!(self, Self::VirtualDisk | Self::Snapshot | Self::NodeInterface)
    }

    /// The word for several of them, in what a person reads.
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

    /// Whether objects of this sort bear the same name in many places, so that what they belong to is a part of it.
    pub const fn is_scoped(self) -> bool {
        matches!(self, Self::Interface | Self::VmInterface | Self::VmIp | Self::Other)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
