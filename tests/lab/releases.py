"""What each release of proxbox-api needs to run today with today's plugin."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Release:
    """One release. Defaults hold for most releases.

    until                       newest date of its dependencies: several releases do not start with today's
    packages                    dependencies that its package does not declare
    lacks_generated             its package lacks generated/proxmox/, without which it reads little of Proxmox; another
                                release's is used
    has_database_path           its database is at $PROXBOX_DATABASE_PATH, not in its package
    has_keys                    it requires API keys
    needs_proxy                 it is incompatible with today's NetBox or plugin without the bridge's NetBox listener,
                                or netbox_proxy.py if there is no bridge
    stores_endpoints            it stores the Proxmox endpoints that the plugin pushes
    creates_fields_on_request   it creates its custom fields on request, not when it starts
    netbox_port                 the only port on which it connects to NetBox without TLS; 0 is any
    """

    version: str
    until: str
    packages: tuple[str, ...] = ()
    lacks_generated: bool = False
    has_database_path: bool = False
    has_keys: bool = True
    needs_proxy: bool = False
    stores_endpoints: bool = True
    creates_fields_on_request: bool = False
    netbox_port: int = 0


# The newest date of the dependencies of NetBox and the plugin, whose own versions are pinned.
TODAY = "2026-11-29"

RELEASES = {
    release.version: release
    for release in (
        Release("0.0.1", "2025-06-15", has_keys=False, needs_proxy=True, stores_endpoints=False, netbox_port=8000),
        Release("0.0.2.post1", "2025-06-15", has_keys=False, needs_proxy=True, stores_endpoints=False),
        Release(
            "0.0.3",
            "2026-03-31",
            packages=("requests", "playwright"),
            lacks_generated=True,
            has_keys=False,
            needs_proxy=True,
        ),
        Release("0.0.4", "2026-04-01", packages=("requests", "playwright"), lacks_generated=True, has_keys=False),
        Release(
            "0.0.5",
            "2026-04-02",
            packages=("requests",),
            lacks_generated=True,
            has_keys=False,
            needs_proxy=True,
            creates_fields_on_request=True,
        ),
        Release(
            "0.0.6.post4",
            "2026-04-08",
            packages=("requests",),
            lacks_generated=True,
            has_keys=False,
            needs_proxy=True,
            creates_fields_on_request=True,
        ),
        Release("0.0.7.post1", "2026-04-20", needs_proxy=True, creates_fields_on_request=True),
        Release("0.0.11.post2", "2026-05-18"),
        Release("0.0.19.post5", "2026-07-04", packages=("requests",), has_database_path=True),
    )
}

# The release whose generated/proxmox/ is used for those that lack it.
GENERATED_SOURCE = RELEASES["0.0.19.post5"]
