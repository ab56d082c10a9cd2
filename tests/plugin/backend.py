"""A mock ProxBox backend of one release, with recorded responses of a real one.

`fixtures/other-endpoints/` has the responses of each release other than streams. The streams here are short and
succeed, except for one that some releases cannot run.
"""

import collections
import contextlib
import http.server
import json
import pathlib
import re
import threading
import urllib.parse

RESPONSES = pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "other-endpoints"

MACHINES = "/virtualization/virtual-machines"
# The streams that each release added. The bridge detects a release by its streams.
FIRST_WITH = {
    (0, 0, 4): {
        "devices": "/dcim/devices/create/stream",
        "virtual-machines": f"{MACHINES}/create/stream",
        "virtual-disks": f"{MACHINES}/virtual-disks/create/stream",
        "backups": f"{MACHINES}/backups/all/create/stream",
        "snapshots": f"{MACHINES}/snapshots/all/create/stream",
        "full-update": "/full-update/stream",
    },
    (0, 0, 5): {"storage": f"{MACHINES}/storage/create/stream"},
    (0, 0, 6): {
        "network-interfaces": "/dcim/devices/interfaces/create/stream",
        "vm-interfaces": f"{MACHINES}/interfaces/create/stream",
        "ip-addresses": f"{MACHINES}/interfaces/ip-address/create/stream",
    },
    (0, 0, 7): {
        "task-history": f"{MACHINES}/task-history/create/stream",
        "replications": "/proxmox/replication/stream",
        "backup-routines": "/proxmox/cluster/backup/stream",
    },
    (0, 0, 19): {"sdn": "/proxmox/sdn/create/stream"},
}
# The stream of a single virtual machine. Its route matches the paths of other streams, too, if a release lacks those
# or matches this route first.
FIRST_WITH_SINGLE_VM = (0, 0, 5)
MATCHES_SINGLE_VM_FIRST = {(0, 0, 5)}
SINGLE_VM = re.compile(f"{MACHINES}/[^/]+/create/stream")
# These releases read a variable that is only assigned if the query has `netbox_vm_ids`.
NEEDS_VM_IDS = {(0, 0, 5), (0, 0, 6)}
UNASSIGNED = "cannot access free variable 'vm_ids' where it is not associated with a value in enclosing scope"

# Query values of the plugin, and of the bridge.
KNOWN_QUERY = {
    "source": ["database"],
    "type": ["vm"],
    "proxmox_endpoint_ids": ["1"],
    "endpoint_ids": ["1"],
    "target_name": ["lab-cluster (nb:1)"],
}

Response = collections.namedtuple("Response", "status reason content_type body")
NOT_FOUND = Response(404, "Not Found", "application/json", '{"detail":"Not Found"}')
NOT_ALLOWED = Response(405, "Method Not Allowed", "application/json", '{"detail":"Method Not Allowed"}')

NOT_AN_INTEGER = Response(
    422,
    "Unprocessable Entity",
    "application/json",
    '{"detail":[{"type":"int_parsing","loc":["path","netbox_vm_id"],"msg":"Input should be an integer"}]}',
)


def response(body):
    """A successful response."""
    return Response(200, "OK", "application/json", json.dumps(body))


def release(version):
    """`0.0.6.post4` as `(0, 0, 6)`."""
    return tuple(int(part) for part in version.split(".")[:3])


def request_key(method, target):
    """The key of a recorded response: of the query only `type`, because there is one endpoint."""
    path, _, query = target.partition("?")
    return method, path, dict(urllib.parse.parse_qsl(query)).get("type")


def recorded(version):
    """The responses of `version`: for each key the longest successful one."""
    responses = {}
    for line in (RESPONSES / f"{version}.ndjson").read_text().splitlines():
        entry = json.loads(line)
        query = dict(urllib.parse.parse_qsl(entry["target"].partition("?")[2]))
        # Skips rate-limited requests, other parameters, and endpoints that do not exist.
        is_known = all(query[name] in KNOWN_QUERY.get(name, ()) for name in query)
        if entry["status"] == 429 or not is_known:
            continue
        response = Response(*(entry[name] for name in Response._fields))
        key = request_key(entry["method"], entry["target"])
        best = responses.setdefault(key, response)
        if (best.status < 400, len(best.body)) <= (response.status < 400, len(response.body)):
            responses[key] = response
    return responses


class Backend:
    """A backend of `version` on a free port. `instead` replaces recorded responses, by path."""

    def __init__(self, version, instead=None):
        self.release = release(version)
        # Method and target of each request.
        self.requests = []
        self._responses = recorded(version)
        self._instead = instead or {}
        self._streams = {
            path: kind
            for first, streams in FIRST_WITH.items()
            if self.release >= first
            for kind, path in streams.items()
        }
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.backend = self
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def row(self, path):
        """The first element of the list at `path`; None if the release has no such list."""
        response = self._responses[request_key("GET", path)]
        rows = json.loads(response.body)
        return rows[0] if response.status == 200 and rows else None

    def response(self, method, target):
        """The response to a request, or the kind of the stream."""
        path = target.partition("?")[0]
        self.requests.append((method, target))
        if path in self._instead:
            return self._instead[path], None
        kind = self._streams.get(path)
        is_single_vm = self.release >= FIRST_WITH_SINGLE_VM and SINGLE_VM.fullmatch(path)
        if is_single_vm and self.release in MATCHES_SINGLE_VM_FIRST:
            kind = None
        if method != "GET" and (kind or is_single_vm):
            return NOT_ALLOWED, None
        if kind:
            return None, kind
        if is_single_vm:
            return NOT_AN_INTEGER, None
        return self._responses.get(request_key(method, target), NOT_FOUND), None

    def frames(self, kind, target):
        """The frames of the stream of `kind`."""
        has_vm_ids = "netbox_vm_ids" in dict(urllib.parse.parse_qsl(target.partition("?")[2]))
        title = kind.replace("-", " ").capitalize()
        if kind == "virtual-machines" and self.release in NEEDS_VM_IDS and not has_vm_ids:
            yield "error", {"step": kind, "status": "failed", "error": UNASSIGNED, "detail": UNASSIGNED}
            errors = [{"detail": UNASSIGNED}]
            yield "complete", {"ok": False, "message": f"{title} sync failed.", "errors": errors}
            return
        for status, message in (
            ("started", f"Starting {title.lower()} synchronization."),
            ("progress", f"Discovered 1 {title.lower()} to synchronize"),
            ("completed", f"{title} synchronization finished."),
        ):
            yield "step", {"step": kind, "status": status, "message": message}
        yield "complete", {"ok": True, "message": f"{title} sync completed.", "result": {"count": 1}}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _serve(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        response, kind = self.server.backend.response(self.command, self.path)
        # The bridge disconnects when its client has disconnected.
        with contextlib.suppress(ConnectionError):
            self._stream(kind) if response is None else self._respond(response)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _respond(self, response):
        body = response.body.encode()
        self.send_response(response.status, response.reason)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(body)))
        if response.status == 405:
            self.send_header("Allow", "GET")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _stream(self, kind):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event, data in self.server.backend.frames(kind, self.path):
            frame = f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(frame), frame))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        """Logs nothing: the tests report failures."""
