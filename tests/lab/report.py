"""The results of a run: the job in NetBox, the records of the bridge, and the objects in NetBox."""

import dataclasses
import json
import textwrap

import proxmox

TABLES = {
    "devices": "dcim_device",
    "interfaces": "dcim_interface",
    "clusters": "virtualization_cluster",
    "vms": "virtualization_virtualmachine",
    "vm-disks": "virtualization_virtualdisk",
    "vm-interfaces": "virtualization_vminterface",
    "ips": "ipam_ipaddress",
    "nodes": "netbox_proxbox_proxmoxnode",
    "storages": "netbox_proxbox_proxmoxstorage",
    "backups": "netbox_proxbox_vmbackup",
    "snapshots": "netbox_proxbox_vmsnapshot",
    "vm-templates": "netbox_proxbox_proxmoxvmtemplate",
    "task-history": "netbox_proxbox_vmtaskhistory",
    "replications": "netbox_proxbox_replication",
    "backup-routines": "netbox_proxbox_backuproutine",
}


def counts(postgres, database):
    """The number of objects of each type in NetBox."""
    query = " union all ".join(f"select '{name}', count(*) from {table}" for name, table in TABLES.items())
    return {name: int(count) for name, count in postgres.query(query, database)}


def objects(postgres, database, cluster):
    """The objects of a cluster in NetBox: name and time of the last change, by type and id."""
    inventory = proxmox.INVENTORY[cluster]
    names = [
        *inventory["nodes"],
        *(guest["name"] for guest in (*inventory["machines"], *inventory["containers"])),
    ]
    named = f"name in ({', '.join(f"'{name}'" for name in names)})"
    within = f"cluster_id in (select id from {TABLES['clusters']} where name = '{cluster}')"
    query = " union all ".join(
        f"select '{kind}', id, name, last_updated from {TABLES[kind]} where {condition}"
        for kind, condition in (("devices", named), ("vms", named), ("storages", within))
    )
    return {(kind, number): rest for kind, number, *rest in postgres.query(query, database)}


def changed_objects(before, after):
    """The objects that were created, changed, moved or deleted between two results of `objects`."""
    keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return [f"{kind}: {(before.get((kind, number)) or after[kind, number])[0]}" for kind, number in keys]


@dataclasses.dataclass
class Result:
    """The result of one button. Without the bridge, `bridge` is empty."""

    backend: str
    button: str
    job: dict
    seconds: float
    bridge: list
    before: dict
    after: dict
    # Changed objects of the other cluster, if there are two and one of them was synced.
    other_changes: list | None = None

    @property
    def status(self):
        return self.job["status"]["value"]

    def messages(self):
        """The error of the job in NetBox, and the warnings in its log."""
        error = [self.job["error"]] if self.job["error"] else []
        log = self.job["log_entries"] or []
        return error + [f"warning: {entry['message']}" for entry in log if entry["level"] == "warning"]

    def changes(self):
        """The numbers of objects in NetBox, before and after."""
        return [
            f"{name} {before}" if before == self.after[name] else f"{name} {before} → {self.after[name]}"
            for name, before in self.before.items()
            if before or self.after[name]
        ]


def format_bridge_job(job):
    """A job of the bridge, on one line."""
    objects = "; ".join(
        f"{kind}: {', '.join(f'{count} {what}' for what, count in numbers.items() if count) or 'none'}"
        for kind, numbers in job["data"]["counts"].items()
    )
    cause = f" ({job['cause']})" if job["cause"] else ""
    parts = [f"{job['kind']} {job['outcome']}{cause}", *filter(None, [objects, job["message"]])]
    return ", ".join(parts)


def format_result(result):
    """A result as text."""
    lines = [f"{result.backend}  {result.button}  {result.status}  {result.seconds:.0f} s"]
    lines += paragraph("job", result.messages())
    lines += paragraph("bridge", [format_bridge_job(job) for job in result.bridge])
    lines += paragraph("NetBox", [", ".join(result.changes())])
    if result.other_changes is not None:
        lines += paragraph(
            "other", [f"written of the other cluster: {', '.join(result.other_changes) or 'nothing'}"]
        )
    return "\n".join(lines)


def paragraph(name, texts):
    """Lines of texts, the first line with the name."""
    lines = []
    for text in texts:
        lines += textwrap.wrap(textwrap.shorten(text, 600, placeholder=" …"), 98, break_long_words=False)
    return [f"  {name if number == 0 else '':8}{line}" for number, line in enumerate(lines)]


def table(results):
    """The status of every job, by backend and button."""
    buttons = list(dict.fromkeys(result.button for result in results))
    rows = {}
    for result in results:
        rows.setdefault(result.backend, {}).setdefault(result.button, []).append(result.status)
    cells = [["backend", *buttons]]
    for backend, row in rows.items():
        cells.append([backend, *(", ".join(row.get(button, ["–"])) for button in buttons)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def write(path, results):
    """Writes all results as JSON."""
    path.write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=1))
