//! The sorts of objects that a sync is made of.

use std::fmt;

/// A sort of object, as the `step` of its events names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    /// A Proxmox node.
    Device,
    /// A storage of the cluster.
    Storage,
    /// A virtual machine or container.
    VirtualMachine,
    /// The disks of one virtual machine.
    VirtualDisk,
    /// A backup.
    Backup,
    /// The snapshots of one virtual machine.
    Snapshot,
    /// The interfaces of one node, as a piece of work.
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
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|object| object.as_str() == word && *object != Self::Other)
    }

    /// Whether two objects of this sort may bear the same name, so that only what they belong to tells
    /// them apart.
    pub const fn is_scoped(self) -> bool {
        matches!(self, Self::Interface | Self::VmInterface | Self::VmIp)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
