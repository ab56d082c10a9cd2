"""A mock Proxmox VE 9 cluster: fakepve, which implements the API schema of Proxmox VE, with an inventory.

proxmox.py CLUSTER --host HOST --port PORT --control PORT --state DIR [--lenient]

CLUSTER is one of INVENTORY. The API uses HTTPS with a self-signed certificate, which is stored in DIR. The control port
uses plain HTTP:

GET /requests                                           the requests since the last call: [method, path]
GET /latency?s=0.4                                      delays every response by so many seconds
GET /fail?method=GET&suffix=/…&status=500&message=TEXT  fails requests whose path ends with `suffix`
GET /clear                                              removes delays and failures
"""

import argparse
import asyncio
import pathlib
import time

from aiohttp import web
from fakepve import FakePve, shapes
from fakepve.certs import make_cert
from fakepve.server import ok

USER_NAME = "root@pam"
TOKEN_NAME = "proxbox"
TOKEN_VALUE = "00000000-1111-2222-3333-444444444444"
PASSWORD = "lab-secret"

GIB = 1024**3
DAY = 86400

STORAGES = {
    "local": {"type": "dir", "content": "iso,vztmpl,backup", "path": "/var/lib/vz", "avail": 50 * GIB},
    "local-lvm": {"type": "lvmthin", "content": "images,rootdir", "vgname": "pve", "thinpool": "data"},
    "ceph-pool": {"type": "rbd", "content": "images,rootdir", "pool": "rbd", "shared": 1},
    "nfs-backup": {
        "type": "nfs",
        "content": "backup",
        "path": "/mnt/pve/nfs-backup",
        "server": "10.10.0.50",
        "export": "/export/backup",
        "shared": 1,
        "avail": 800 * GIB,
    },
}


def nic(vmid, index=0, tag=None):
    """A network interface of a virtual machine."""
    vlan = f",tag={tag}" if tag else ""
    return f"virtio=BC:24:11:{vmid // 256:02X}:{vmid % 256:02X}:{index:02X},bridge=vmbr0,firewall=1{vlan}"


def machine(vmid, name, node, disks, *, nics=None, running=True, cores=2, memory=2048, **more):
    """The arguments of FakePve.add_vm. `disks` are by bus, `more` is merged into the config."""
    config = {
        "cores": cores,
        "sockets": 1,
        "memory": memory,
        "ostype": "l26",
        "onboot": 1,
        "agent": "1",
        "scsihw": "virtio-scsi-single",
        "boot": "order=scsi0",
        "cpu": "host",
    }
    for number, (bus, volume) in enumerate(disks.items()):
        pool, size = volume
        config[bus] = f"{pool}:vm-{vmid}-disk-{number},size={size}G"
    for number, card in enumerate(nics or [nic(vmid)]):
        config[f"net{number}"] = card
    config.update(more)
    status = "running" if running else "stopped"
    return {"vmid": vmid, "name": name, "node": node, "status": status, "config": config}


def template(vmid, name, node):
    """A VM template."""
    config = {
        "cores": 1,
        "memory": 1024,
        "scsi0": f"local-lvm:base-{vmid}-disk-0,size=8G",
        "net0": nic(vmid),
        "template": 1,
    }
    return {"vmid": vmid, "name": name, "node": node, "status": "stopped", "config": config, "template": True}


def container(vmid, name, node, address, *, running=True):
    """The arguments of FakePve.add_ct."""
    hardware = f"BC:24:11:AA:{vmid // 256:02X}:{vmid % 256:02X}"
    config = {
        "hostname": name,
        "cores": 1,
        "memory": 512,
        "swap": 512,
        "ostype": "debian",
        "arch": "amd64",
        "unprivileged": 1,
        "rootfs": f"local-lvm:vm-{vmid}-disk-0,size=8G",
        "net0": f"name=eth0,bridge=vmbr0,hwaddr={hardware},ip={address}/24,gw=10.10.0.1,type=veth",
    }
    status = "running" if running else "stopped"
    return {"vmid": vmid, "name": name, "node": node, "status": status, "config": config}


# By cluster name.
INVENTORY = {
    "lab-cluster": {
        "nodes": {"pve1": "10.10.0.11", "pve2": "10.10.0.12", "pve3": "10.10.0.13"},
        "machines": [
            machine(
                100, "web01", "pve1", {"scsi0": ("local-lvm", 32)}, nics=[nic(100, tag=100)], tags="prod;web"
            ),
            machine(
                101, "web02", "pve1", {"scsi0": ("local-lvm", 32)}, nics=[nic(101, tag=100)], tags="prod;web"
            ),
            # Two disks, two network interfaces, and a description that must be escaped in HTML.
            machine(
                102,
                "db01",
                "pve2",
                {"scsi0": ("ceph-pool", 64), "scsi1": ("ceph-pool", 200)},
                nics=[nic(102, tag=200), nic(102, 1)],
                cores=4,
                memory=8192,
                tags="prod;db",
                description="PostgreSQL <b>primary</b> & replica source",
            ),
            machine(
                103, "app-01.lab.example", "pve2", {"virtio0": ("ceph-pool", 40)}, memory=4096, agent="0"
            ),
            machine(
                104, "win2022", "pve3", {"sata0": ("local-lvm", 80)}, running=False, cores=4, ostype="win11"
            ),
            machine(105, "café-münchen", "pve3", {"scsi0": ("local-lvm", 8)}, cores=1, memory=1024),
            machine(110, "worker00", "pve1", {"scsi0": ("ceph-pool", 20)}),
            machine(111, "worker01", "pve2", {"scsi0": ("ceph-pool", 20)}),
            template(900, "tmpl-debian13", "pve1"),
        ],
        "containers": [
            container(200, "dns01", "pve1", "10.10.0.100"),
            container(201, "cache01", "pve2", "10.10.0.101"),
            container(202, "old-ct", "pve3", "10.10.0.102", running=False),
        ],
        "agents": {100: "10.10.100.20"},
        "snapshots": {100: ["clean"], 102: ["pre-upgrade", "nightly"]},
        # Listed by every node, because their storage is shared.
        "backups": [(100, "qemu", 1), (100, "qemu", 2), (102, "qemu", 1), (104, "qemu", 1), (200, "lxc", 1)],
    },
    # The second cluster of `--two-endpoints`. No name occurs in both clusters.
    "far-cluster": {
        "nodes": {"far1": "10.20.0.11", "far2": "10.20.0.12"},
        "machines": [
            machine(300, "far-web", "far1", {"scsi0": ("local-lvm", 16)}),
            machine(301, "far-db", "far2", {"scsi0": ("ceph-pool", 48)}),
            template(950, "far-template", "far1"),
        ],
        "containers": [container(310, "far-dns", "far2", "10.20.0.100")],
        "agents": {},
        "snapshots": {301: ["before"]},
        "backups": [(300, "qemu", 1)],
    },
}


class Proxmox(FakePve):
    """FakePve with corrections where it differs from Proxmox VE and ProxBox backends depend on it."""

    def __init__(self, cluster, host, port, lenient):
        super().__init__(user=USER_NAME, password=PASSWORD, host=host, port=port)
        self.cluster_name = cluster
        self.lenient = lenient
        self.addresses = INVENTORY[cluster]["nodes"]

    async def _cluster_status(self, request):
        """Adds the addresses of nodes, and omits fakepve's `online` of the cluster, which 0.0.11 rejects."""
        quorate = 1 if self.quorate else 0
        count = len(self.nodes)
        rows = [
            {
                "type": "cluster",
                "id": "cluster",
                "name": self.cluster_name,
                "nodes": count,
                "quorate": quorate,
                "version": 3,
            }
        ]
        for number, (name, state) in enumerate(sorted(self.nodes.items()), 1):
            rows.append(
                {
                    "type": "node",
                    "id": f"node/{name}",
                    "name": name,
                    "nodeid": number,
                    "level": "",
                    "ip": self.addresses[name],
                    "online": 1 if state.get("online", True) else 0,
                    "local": 1 if number == 1 else 0,
                }
            )
        return ok(rows)

    async def _resources(self, request):
        """Rejects an unknown `type` as Proxmox VE does; a lenient mock returns no rows."""
        if not self.lenient:
            self._verify(request, dict(request.query))
        return await super()._resources(request)


def networks(context):
    """The network of a node: a bridge with its address, and two interfaces."""
    address = next(c["nodes"][context["node"]] for c in INVENTORY.values() if context["node"] in c["nodes"])
    bridge = {
        "iface": "vmbr0",
        "type": "bridge",
        "method": "static",
        "method6": "manual",
        "families": ["inet"],
        "priority": 3,
        "active": 1,
        "autostart": 1,
        "exists": 1,
        "address": address,
        "netmask": "255.255.255.0",
        "cidr": f"{address}/24",
        "gateway": "10.10.0.1",
        "bridge_ports": "eno1",
        "bridge_stp": "off",
        "bridge_fd": "0",
    }
    card = {
        "type": "eth",
        "method": "manual",
        "method6": "manual",
        "families": ["inet"],
        "active": 1,
        "exists": 1,
    }
    return [bridge, {**card, "iface": "eno1", "priority": 2}, {**card, "iface": "eno2", "priority": 4}]


def backup_jobs(_):
    """The backup jobs of a cluster: one for all guests, which lists none, and one for two of them."""
    job = {
        "type": "vzdump",
        "enabled": 1,
        "storage": "nfs-backup",
        "mode": "snapshot",
        "compress": "zstd",
        "notes-template": "{{guestname}}",
    }
    nightly = {**job, "id": "backup-0a1b2c3d-4e5f", "schedule": "02:30", "all": 1}
    hourly = {**job, "id": "backup-1b2c3d4e-5f60", "schedule": "hourly", "all": 0, "vmid": "100,102"}
    return [nightly, hourly]


# Replaces data that fakepve generates.
shapes.FIXUPS["/nodes/{node}/network"] = [shapes.replace(networks)]
shapes.FIXUPS["/cluster/backup"] = [shapes.replace(backup_jobs)]


def build(cluster, host, port, lenient):
    """The mock with the inventory of `cluster`."""
    inventory = INVENTORY[cluster]
    proxmox = Proxmox(cluster, host, port, lenient)
    proxmox.time_scale = 1.0
    proxmox.apitokens[f"{USER_NAME}!{TOKEN_NAME}"] = TOKEN_VALUE
    proxmox.nodes.clear()
    for node in inventory["nodes"]:
        proxmox.add_node(node)
    proxmox.storages.clear()
    for name, storage in STORAGES.items():
        proxmox.storages[name] = {"active": 1, "files": set(), **storage}
    for each in inventory["machines"]:
        proxmox.add_vm(**each)
    for each in inventory["containers"]:
        proxmox.add_ct(**each)

    now = int(time.time())
    for vmid, address in inventory["agents"].items():
        proxmox.vm(vmid).agent = {"interfaces": [guest_interface("lo", "00:00:00:00:00:00", "127.0.0.1", 8)]}
        hardware = proxmox.vm(vmid).config["net0"].split("=", 1)[1].split(",")[0].lower()
        proxmox.vm(vmid).agent["interfaces"].append(guest_interface("eth0", hardware, address, 24))
    for vmid, names in inventory["snapshots"].items():
        config = proxmox.vm(vmid).config
        for age, name in enumerate(names, 1):
            taken = {**config, "snaptime": now - age * 3600, "description": f"{name} of {vmid}\n"}
            proxmox.vm(vmid).snapshots[name] = taken
    volumes = proxmox.storages["nfs-backup"].setdefault("volumes", {})
    for vmid, kind, age in inventory["backups"]:
        made = now - age * DAY
        extension = "vma.zst" if kind == "qemu" else "tar.zst"
        stamp = time.strftime("%Y_%m_%d-%H_%M_%S", time.gmtime(made))
        volumes[f"backup/vzdump-{kind}-{vmid}-{stamp}.{extension}"] = {
            "content": "backup",
            "format": extension,
            "size": 3 * GIB + vmid,
            "ctime": made,
            "vmid": vmid,
            "subtype": kind,
            "notes": f"lab backup of {vmid}",
        }
    return proxmox


def guest_interface(name, hardware, address, prefix):
    """A network interface as reported by the guest agent."""
    addresses = [{"ip-address": address, "ip-address-type": "ipv4", "prefix": prefix}]
    return {"name": name, "hardware-address": hardware, "ip-addresses": addresses}


def steering(proxmox):
    """The application on the control port."""

    async def requests(request):
        seen = [[method, path] for method, path, _ in proxmox.requests]
        proxmox.requests.clear()
        return web.json_response(seen)

    async def latency(request):
        proxmox.slow_network(float(request.query["s"]))
        return web.json_response({})

    async def fail(request):
        query = request.query
        proxmox.fail(query["method"], query["suffix"], int(query["status"]), query["message"], times=None)
        return web.json_response({})

    async def clear(request):
        proxmox.failures.clear()
        proxmox.slow_network(0)
        return web.json_response({})

    application = web.Application()
    for handler in (requests, latency, fail, clear):
        application.router.add_get(f"/{handler.__name__}", handler)
    return application


async def serve(options):
    """Serves until the process is stopped."""
    options.state.mkdir(parents=True, exist_ok=True)
    certificate, key, _ = make_cert(str(options.state), hosts=(options.host,))
    proxmox = build(options.cluster, options.host, options.port, options.lenient)
    await proxmox.start(certificate, key)
    runner = web.AppRunner(steering(proxmox))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.control).start()
    await asyncio.Event().wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cluster", choices=INVENTORY)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--state", type=pathlib.Path, required=True)
    parser.add_argument("--lenient", action="store_true")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
