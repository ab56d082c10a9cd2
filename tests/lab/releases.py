"""What every release of proxbox-api needs to run today, and to be used by the plugin of today."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Release:
    """One release; what is true of most of them is the default.

    until       dependencies are as they were on this day: with those of today several releases do not start
    packages    what it imports without asking for it
    borrows     its package lacks generated/proxmox/, without which it reads little: another's is used
    database    it keeps its database where $PROXBOX_DATABASE_PATH says, not beside its package
    keys        it has API keys; before, it takes every request
    front       it does not get along with NetBox, or the plugin, of today without the bridge's NetBox listener, or
                netbox_front.py where there is no bridge
    rows        it stores what the plugin pushes about Proxmox
    fields      it makes its custom fields not when it starts, but when it is asked to
    netbox_port the one port on which it reaches NetBox without TLS; 0 is any
    """

    version: str
    until: str
    packages: tuple[str, ...] = ()
    borrows: bool = False
    database: bool = False
    keys: bool = True
    front: bool = False
    rows: bool = True
    fields: bool = False
    netbox_port: int = 0


# Of the newest things: NetBox and its plugin are pinned, what they need is of this day.
TODAY = "2026-11-29"

RELEASES = {
    release.version: release
    for release in (
        Release("0.0.1", "2025-06-15", keys=False, front=True, rows=False, netbox_port=8000),
        Release("0.0.2.post1", "2025-06-15", keys=False, front=True, rows=False),
        Release("0.0.3", "2026-03-31", packages=("requests", "playwright"), borrows=True, keys=False, front=True),
        Release("0.0.4", "2026-04-01", packages=("requests", "playwright"), borrows=True, keys=False),
        Release(
            "0.0.5",
            "2026-04-02",
            packages=("requests",),
            borrows=True,
            keys=False,
            front=True,
            fields=True,
        ),
        Release(
            "0.0.6.post4",
            "2026-04-08",
            packages=("requests",),
            borrows=True,
            keys=False,
            front=True,
            fields=True,
        ),
        Release("0.0.7.post1", "2026-04-20", front=True, fields=True),
        Release("0.0.11.post2", "2026-05-18"),
        Release("0.0.19.post5", "2026-07-04", packages=("requests",), database=True),
    )
}

# Whose generated/proxmox/ the others borrow.
LENDER = RELEASES["0.0.19.post5"]
