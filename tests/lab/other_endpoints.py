"""Records the responses of a backend to the requests of the plugin other than streams, one JSON object per line.

Fields: method, target, status, reason, content_type and body, which is a string. Secrets are REDACTED.
"""

import contextlib
import http.client
import json
import time
from urllib.parse import quote, urlencode, urlsplit

import proxmox

# Long, because some releases generate their OpenAPI document on request.
TIMEOUT = 120

# Paths to request before the backend has any endpoint.
BASIC_PATHS = [
    "/",
    "/health",
    "/version",
    "/auth/bootstrap-status",
    "/auth/keys",
    "/sync/active",
    "/netbox/endpoint",
    "/proxmox/endpoints",
]
# Paths of Proxmox data, which the plugin may scope to one Proxmox endpoint.
PROXMOX_PATHS = [
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


class Client:
    """A client of a backend. It records every exchange in `lines`."""

    def __init__(self, base, key, secrets):
        self.address = urlsplit(base).netloc
        self.key = key
        self.secrets = secrets
        self.lines = []

    def request(self, method, target, body=None, *, key=True):
        """Sends a request, with or without the key. Records and returns the response."""
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
            # 0.0.7 allows 60 requests a minute.
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
    """`path` with additional query parameters."""
    return path + ("&" if "?" in path else "?") + urlencode(more, quote_via=quote)


def get_all(backend, scope):
    """Requests PROXMOX_PATHS, with the query parameters in `scope`."""
    for path in PROXMOX_PATHS:
        backend.request("GET", with_query(path, source="database", **scope) if scope else path)


def before_push(backend):
    """Requests before the first push, with the key, and for some paths also without it."""
    for path in BASIC_PATHS:
        backend.request("GET", path)
    for path in ("/version", "/auth/keys", "/netbox/endpoint", "/proxmox/endpoints"):
        backend.request("GET", path, key=False)
    if backend.key:
        backend.request(
            "POST", "/auth/register-key", {"api_key": backend.key, "label": "NetBox plugin"}, key=False
        )
        for path in ("/auth/bootstrap-status", "/auth/keys", "/version"):
            backend.request("GET", path)
        backend.request("GET", "/auth/keys", key=False)


def netbox_row(name, port, token):
    """The NetBox endpoint as the plugin pushes it."""
    where = {"ip_address": "127.0.0.1", "domain": "localhost", "port": port, "verify_ssl": False}
    return {"name": name, **where, "token_version": "v1", "token": token}


def proxmox_row(cluster, number):
    """The Proxmox endpoint `number` as the plugin pushes it."""
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
    """Pushes endpoints as the plugin does, updates them, and reads them back."""
    backend.request("POST", "/netbox/endpoint", netbox)
    backend.request("GET", "/netbox/endpoint")
    backend.request("GET", "/netbox/endpoint/1")
    backend.request("PUT", "/netbox/endpoint/1", netbox)
    backend.request("PUT", "/netbox/endpoint/999", netbox)
    backend.request("POST", "/netbox/endpoint", {**netbox, "name": "another"})
    backend.request("GET", "/netbox/endpoint")
    # As the plugin pushes an endpoint without an IP address.
    backend.request("POST", "/proxmox/endpoints", {**proxmox, "ip_address": None})
    push_proxmox(backend, proxmox, 1)


def push_proxmox(backend, proxmox, number):
    """Pushes one Proxmox endpoint, which gets the id `number`."""
    backend.request("POST", "/proxmox/endpoints", proxmox)
    backend.request("GET", "/proxmox/endpoints")
    backend.request("GET", f"/proxmox/endpoints/{number}")
    backend.request("PUT", f"/proxmox/endpoints/{number}", proxmox)
    backend.request("POST", "/proxmox/endpoints", proxmox)
    backend.request("GET", "/proxmox/endpoints/999")
    backend.request("PUT", "/proxmox/endpoints/999", proxmox)


def get_all_scoped(backend, rows):
    """Requests PROXMOX_PATHS unscoped, and with each scope parameter of any release, valid and invalid."""
    backend.request("GET", "/health")
    backend.request("GET", "/netbox/status")
    get_all(backend, {})
    for number, row in enumerate(rows, 1):
        get_all(backend, {"proxmox_endpoint_ids": number})
        get_all(backend, {"endpoint_ids": number})
        for key in ("name", "domain", "ip_address"):
            if row[key]:
                get_all(backend, {key: row[key]})
    for scope in (
        {"proxmox_endpoint_ids": 999},
        {"endpoint_ids": 999},
        {"name": "nobody"},
        {"domain": "nobody"},
    ):
        for path in ("/proxmox/cluster/status", "/proxmox/sessions"):
            backend.request("GET", with_query(path, source="database", **scope))
    backend.request("GET", "/proxmox/endpoints?limit=0")
    backend.request("GET", "/proxmox/api2/nodes/pve1/time?source=database&target_name=nobody")
    backend.request("GET", "/proxmox/firewall/nodes/pve1/rules?source=database&proxmox_endpoint_ids=1")


def revoke(backend):
    """Disables an endpoint as the plugin does, and reads it back."""
    backend.request("PUT", "/proxmox/endpoints/1", {"enabled": False, "allow_packer_template_builds": False})
    backend.request("GET", "/proxmox/endpoints/1")
    backend.request("GET", "/proxmox/cluster/status?source=database&proxmox_endpoint_ids=1")


def save_openapi(backend, path):
    """Saves the OpenAPI document of the release to a separate file, because it is large."""
    _, text = backend.request("GET", "/openapi.json")
    backend.lines.pop()
    path.write_text(text)
