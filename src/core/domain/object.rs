//! The object types that a sync creates.

use crate::core::text::string_enum::string_enum;

string_enum! {
    /// An object type, named as in the `step` of its events.
    #[derive(PartialOrd, Ord)]
    pub enum Object {
        /// A Proxmox node.
        Device = "device",
        /// A storage of a cluster.
        Storage = "storage",
        /// A virtual machine or container.
        VirtualMachine = "virtual_machine",
        /// A disk of a virtual machine.
        VirtualDisk = "virtual_disk",
        /// A backup.
        Backup = "backup",
        /// A snapshot of a virtual machine.
        Snapshot = "snapshot",
        /// The interfaces of a node, in events about all of them.
        NodeInterface = "node_interface",
        /// A network interface of a node.
        Interface = "interface",
        /// A network interface of a virtual machine.
        VmInterface = "vm_interface",
        /// An IP address of a virtual machine.
        VmIp = "vm_ip",
        /// A Proxmox task.
        TaskHistory = "task_history",
        /// A replication job.
        Replication = "replication",
        /// A backup schedule.
        BackupRoutine = "backup_routine",
        /// A software-defined network.
        Sdn = "sdn",
        /// An unknown type.
        Other = "other",
    }
}

impl Object {
    /// The object type of a step, if known.
    pub fn from_step(step: &str) -> Option<Self> {
        Self::from_name(step).filter(|object| *object != Self::Other)
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
