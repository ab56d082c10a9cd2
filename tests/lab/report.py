"""What a run found: what NetBox says of its job, what the bridge recorded, and what NetBox then holds."""

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
    """How many objects of each kind NetBox holds."""
    query = " union all ".join(f"select '{name}', count(*) from {table}" for name, table in TABLES.items())
    return {name: int(count) for name, count in postgres.ask(query, database)}


def objects(postgres, database, cluster):
    """What NetBox holds of a cluster: the name and the time of the last change, by kind and id."""
    inventory = proxmox.INVENTORY[cluster]
    names = [
        *inventory["nodes"],
        *(each["name"] for each in (*inventory["machines"], *inventory["containers"])),
    ]
    named = f"name in ({', '.join(f"'{name}'" for name in names)})"
    within = f"cluster_id in (select id from {TABLES['clusters']} where name = '{cluster}')"
    query = " union all ".join(
        f"select '{kind}', id, name, last_updated from {TABLES[kind]} where {condition}"
        for kind, condition in (("devices", named), ("vms", named), ("storages", within))
    )
    return {(kind, number): rest for kind, number, *rest in postgres.ask(query, database)}


def written(before, after):
    """What was made, changed, moved elsewhere or deleted between two answers of `objects`."""
    keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return [f"{kind}: {(before.get((kind, number)) or after[kind, number])[0]}" for kind, number in keys]


@dataclasses.dataclass
class Pressed:
    """One button that was pressed. Where there is no bridge in between, it has no jobs."""

    backend: str
    button: str
    job: dict
    seconds: float
    bridge: list
    before: dict
    after: dict
    # What was written of the other cluster, if there are two and one of them was synchronised.
    others: list | None = None

    @property
    def status(self):
        return self.job["status"]["value"]

    def said(self):
        """What NetBox says of the job: its error, and the warnings in its log."""
        error = [self.job["error"]] if self.job["error"] else []
        log = self.job["log_entries"] or []
        return error + [f"warning: {entry['message']}" for entry in log if entry["level"] == "warning"]

    def changes(self):
        """What NetBox holds, before and after."""
        return [
            f"{name} {before}" if before == self.after[name] else f"{name} {before} → {self.after[name]}"
            for name, before in self.before.items()
            if before or self.after[name]
        ]


def of_bridge(job):
    """A job of the bridge, on one line."""
    objects = "; ".join(
        f"{kind}: {', '.join(f'{count} {what}' for what, count in numbers.items() if count) or 'none'}"
        for kind, numbers in job["data"]["counts"].items()
    )
    cause = f" ({job['cause']})" if job["cause"] else ""
    parts = [f"{job['kind']} {job['outcome']}{cause}", *filter(None, [objects, job["message"]])]
    return ", ".join(parts)


def show(pressed):
    """A button that was pressed, as text."""
    lines = [f"{pressed.backend}  {pressed.button}  {pressed.status}  {pressed.seconds:.0f} s"]
    lines += paragraph("job", pressed.said())
    lines += paragraph("bridge", [of_bridge(job) for job in pressed.bridge])
    lines += paragraph("NetBox", [", ".join(pressed.changes())])
    if pressed.others is not None:
        lines += paragraph(
            "other", [f"written of the other cluster: {', '.join(pressed.others) or 'nothing'}"]
        )
    return "\n".join(lines)


def paragraph(name, texts):
    """Texts one below the other, the first beside its name."""
    lines = []
    for text in texts:
        lines += textwrap.wrap(textwrap.shorten(text, 600, placeholder=" …"), 98, break_long_words=False)
    return [f"  {name if number == 0 else '':8}{line}" for number, line in enumerate(lines)]


def table(all_pressed):
    """The status of every job, per backend and button."""
    buttons = list(dict.fromkeys(pressed.button for pressed in all_pressed))
    rows = {}
    for pressed in all_pressed:
        rows.setdefault(pressed.backend, {}).setdefault(pressed.button, []).append(pressed.status)
    cells = [["backend", *buttons]]
    for backend, row in rows.items():
        cells.append([backend, *(", ".join(row.get(button, ["–"])) for button in buttons)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def write(path, all_pressed):
    """Everything for programs."""
    path.write_text(json.dumps([dataclasses.asdict(pressed) for pressed in all_pressed], indent=1))
