"""What a backend answers to everything that the plugin asks beside the streams, one JSON object per line.

Fields: method, target, status, reason, content_type and body, which is a string. Secrets are REDACTED.
"""

import contextlib
import http.client
import json
import time
from urllib.parse import quote, urlencode, urlsplit

import proxmox

# Generous: some releases make their OpenAPI document when they are asked for it.
TIMEOUT = 120

# What may be asked before the backend has any row.
META = [
    "/",
    "/health",
    "/version",
    "/auth/bootstrap-status",
    "/auth/keys",
    "/sync/active",
    "/netbox/endpoint",
    "/proxmox/endpoints",
]
# What the plugin reads of Proxmox, and may narrow to one of its endpoints.
READS = [
    "/proxmox/sessions",
    "/proxmox/version",
    "/proxmox/cluster/status",
    "/proxmox/cluster/resources",
    "/proxmox/cluster/resources?type=vm",
    "/proxmox/nodes/",
    "/proxmox/nodes/pve1/qemu",
    "/proxmox/nodes/pve2/qemu",
    "/proxmox/nodes/pve3/qemu",
    "/proxmox/pve1/qemu/100/config",
    "/proxmox/pve1/qemu/900/config",
    "/proxmox/pve1/lxc/200/config",
    "/proxmox/pve2/lxc/201/config",
    "/proxmox/pve3/lxc/202/config",
    "/proxmox/firewall/summary",
    "/proxmox/datacenter/cpu-models",
    "/proxmox/cluster/ha/summary",
    "/proxmox/storage",
]


class Backend:
    """A backend that is asked; every exchange is kept in `lines`."""

    def __init__(self, base, key, secrets):
        self.address = urlsplit(base).netloc
        self.key = key
        self.secrets = secrets
        self.lines = []

    def ask(self, method, target, body=None, *, key=True):
        """Asks with or without the key, and keeps and gives the answer."""
        headers = {"X-Proxbox-API-Key": self.key} if key and self.key else {}
        if body is not None:
            body = json.dumps(body)
            headers["Content-Type"] = "application/json"
        while True:
            connection = http.client.HTTPConnection(self.address, timeout=TIMEOUT)
            with contextlib.closing(connection):
                connection.request(method, target, body, headers)
                response = connection.getresponse()
                text = response.read().decode()
            # 0.0.7 takes 60 requests a minute.
            if response.status != http.HTTPStatus.TOO_MANY_REQUESTS:
                break
            time.sleep(10)
        self.lines.append(
            {
                "method": method,
                "target": self.without_secrets(target),
                "status": response.status,
                "reason": response.reason,
                "content_type": response.getheader("content-type"),
                "body": self.without_secrets(text),
            }
        )
        return response.status, text

    def without_secrets(self, text):
        for secret in self.secrets:
            text = text.replace(secret, "REDACTED")
        return text

    def write(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self.lines))


def with_query(path, **more):
    """`path` with more parameters in its query."""
    return path + ("&" if "?" in path else "?") + urlencode(more, quote_via=quote)


def reads(backend, scope):
    """Everything in READS, narrowed by the parameters of `scope`."""
    for path in READS:
        backend.ask("GET", with_query(path, source="database", **scope) if scope else path)


def first_answers(backend):
    """What a backend says before anybody has pushed rows, with the key and, where it matters, without."""
    for path in META:
        backend.ask("GET", path)
    for path in ("/version", "/auth/keys", "/netbox/endpoint", "/proxmox/endpoints"):
        backend.ask("GET", path, key=False)
    if backend.key:
        backend.ask(
            "POST", "/auth/register-key", {"api_key": backend.key, "label": "NetBox plugin"}, key=False
        )
        for path in ("/auth/bootstrap-status", "/auth/keys", "/version"):
            backend.ask("GET", path)
        backend.ask("GET", "/auth/keys", key=False)


def netbox_row(name, port, token):
    """The row of NetBox as the plugin pushes it."""
    where = {"ip_address": "127.0.0.1", "domain": "localhost", "port": port, "verify_ssl": False}
    return {"name": name, **where, "token_version": "v1", "token": token}


def proxmox_row(cluster, number):
    """The row of a cluster as the plugin pushes it for its endpoint with this number."""
    return {
        "name": f"{cluster.cluster} (nb:{number})",
        "node_device_name_template": "",
        "ip_address": cluster.host,
        "domain": cluster.domain or None,
        "port": cluster.port,
        "username": proxmox.USER_NAME,
        "password": None,
        "verify_ssl": False,
        "timeout": 5,
        "max_retries": 0,
        "retry_backoff": 0.5,
        "token_name": proxmox.TOKEN_NAME,
        "token_value": proxmox.TOKEN_VALUE,
        "enabled": True,
        "allow_packer_template_builds": False,
        "access_methods": "api",
        **{f"{kind}_{what}": None for kind in ("site", "tenant") for what in ("id", "slug", "name")},
    }


def push(backend, netbox, proxmox):
    """Pushes rows as the plugin does, changes them, and reads them back."""
    backend.ask("POST", "/netbox/endpoint", netbox)
    backend.ask("GET", "/netbox/endpoint")
    backend.ask("GET", "/netbox/endpoint/1")
    backend.ask("PUT", "/netbox/endpoint/1", netbox)
    backend.ask("PUT", "/netbox/endpoint/999", netbox)
    backend.ask("POST", "/netbox/endpoint", {**netbox, "name": "another"})
    backend.ask("GET", "/netbox/endpoint")
    # What the plugin sends for an endpoint that has a domain and no address.
    backend.ask("POST", "/proxmox/endpoints", {**proxmox, "ip_address": None})
    push_proxmox(backend, proxmox, 1)


def push_proxmox(backend, proxmox, number):
    """Pushes one row of Proxmox, which gets the id `number`."""
    backend.ask("POST", "/proxmox/endpoints", proxmox)
    backend.ask("GET", "/proxmox/endpoints")
    backend.ask("GET", f"/proxmox/endpoints/{number}")
    backend.ask("PUT", f"/proxmox/endpoints/{number}", proxmox)
    backend.ask("POST", "/proxmox/endpoints", proxmox)
    backend.ask("GET", "/proxmox/endpoints/999")
    backend.ask("PUT", "/proxmox/endpoints/999", proxmox)


def narrowed(backend, rows):
    """The reads unscoped, and by every parameter that some release understands, right and wrong."""
    backend.ask("GET", "/health")
    backend.ask("GET", "/netbox/status")
    reads(backend, {})
    for number, row in enumerate(rows, 1):
        reads(backend, {"proxmox_endpoint_ids": number})
        reads(backend, {"endpoint_ids": number})
        for key in ("name", "domain", "ip_address"):
            if row[key]:
                reads(backend, {key: row[key]})
    for scope in (
        {"proxmox_endpoint_ids": 999},
        {"endpoint_ids": 999},
        {"name": "nobody"},
        {"domain": "nobody"},
    ):
        for path in ("/proxmox/cluster/status", "/proxmox/sessions"):
            backend.ask("GET", with_query(path, source="database", **scope))
    backend.ask("GET", "/proxmox/endpoints?limit=0")
    backend.ask("GET", "/proxmox/api2/nodes/pve1/time?source=database&target_name=nobody")
    backend.ask("GET", "/proxmox/firewall/nodes/pve1/rules?source=database&proxmox_endpoint_ids=1")


def revoke(backend):
    """How the plugin takes a row back when its endpoint is disabled, and what becomes of the row."""
    backend.ask("PUT", "/proxmox/endpoints/1", {"enabled": False, "allow_packer_template_builds": False})
    backend.ask("GET", "/proxmox/endpoints/1")
    backend.ask("GET", "/proxmox/cluster/status?source=database&proxmox_endpoint_ids=1")


def openapi(backend, path):
    """Keeps the OpenAPI document of the release in a file of its own: it is large."""
    _, text = backend.ask("GET", "/openapi.json")
    backend.lines.pop()
    path.write_text(text)
