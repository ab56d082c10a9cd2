"""A ProxBox backend of one release that answers what a real one was recorded to answer.

`fixtures/beside/` has what each release answered beside its streams. The streams here are short and go well,
but for the one that the release itself cannot run.
"""

import collections
import contextlib
import http.server
import json
import pathlib
import re
import threading
import urllib.parse

ANSWERS = pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "other-endpoints"

MACHINES = "/virtualization/virtual-machines"
# The streams that came with each release. Which a release has decides how the bridge treats it.
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
# The stream of one virtual machine, whose path is also that of other streams, where a release does not have
# them yet, or looks for this one first.
FIRST_WITH_ONE = (0, 0, 5)
LOOKS_FOR_ONE_FIRST = {(0, 0, 5)}
OF_ONE = re.compile(f"{MACHINES}/[^/]+/create/stream")
# They read a variable that is assigned only where `netbox_vm_ids` is there.
NEEDS_VM_IDS = {(0, 0, 5), (0, 0, 6)}
UNASSIGNED = "cannot access free variable 'vm_ids' where it is not associated with a value in enclosing scope"

# What the plugin asks with, and the bridge in its place.
USUAL = {
    "source": ["database"],
    "type": ["vm"],
    "proxmox_endpoint_ids": ["1"],
    "endpoint_ids": ["1"],
    "target_name": ["lab-cluster (nb:1)"],
}

Answer = collections.namedtuple("Answer", "status reason content_type body")
NOT_FOUND = Answer(404, "Not Found", "application/json", '{"detail":"Not Found"}')
NOT_ALLOWED = Answer(405, "Method Not Allowed", "application/json", '{"detail":"Method Not Allowed"}')

NO_NUMBER = Answer(
    422,
    "Unprocessable Entity",
    "application/json",
    '{"detail":[{"type":"int_parsing","loc":["path","netbox_vm_id"],"msg":"Input should be an integer"}]}',
)


def answer(body):
    """An answer that goes well."""
    return Answer(200, "OK", "application/json", json.dumps(body))


def number(version):
    """`0.0.6.post4` as `(0, 0, 6)`."""
    return tuple(int(part) for part in version.split(".")[:3])


def question(method, target):
    """What decides about an answer: of the query only `type`, because there is one endpoint."""
    path, _, query = target.partition("?")
    return method, path, dict(urllib.parse.parse_qsl(query)).get("type")


def recorded(version):
    """The answers of `version`: where it was asked more than once, the one that went well and says most."""
    answers = {}
    for line in (ANSWERS / f"{version}.ndjson").read_text().splitlines():
        entry = json.loads(line)
        query = dict(urllib.parse.parse_qsl(entry["target"].partition("?")[2]))
        # It may have been asked too much, in other words, or about an endpoint that is not there.
        is_usual = all(query[name] in USUAL.get(name, ()) for name in query)
        if entry["status"] == 429 or not is_usual:
            continue
        answer = Answer(*(entry[name] for name in Answer._fields))
        key = question(entry["method"], entry["target"])
        best = answers.setdefault(key, answer)
        if (best.status < 400, len(best.body)) <= (answer.status < 400, len(answer.body)):
            answers[key] = answer
    return answers


class Backend:
    """A backend of `version` on its own port; `instead` has answers in place of recorded ones, by path."""

    def __init__(self, version, instead=None):
        self.release = number(version)
        # Method and target of each request.
        self.asked = []
        self._answers = recorded(version)
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
        """The first row that is listed at `path`; nothing if the release has no such list."""
        answer = self._answers[question("GET", path)]
        rows = json.loads(answer.body)
        return rows[0] if answer.status == 200 and rows else None

    def answer(self, method, target):
        """The answer to a request, or the kind of the stream that is the answer."""
        path = target.partition("?")[0]
        self.asked.append((method, target))
        if path in self._instead:
            return self._instead[path], None
        kind = self._streams.get(path)
        is_of_one = self.release >= FIRST_WITH_ONE and OF_ONE.fullmatch(path)
        if is_of_one and self.release in LOOKS_FOR_ONE_FIRST:
            kind = None
        if method != "GET" and (kind or is_of_one):
            return NOT_ALLOWED, None
        if kind:
            return None, kind
        if is_of_one:
            return NO_NUMBER, None
        return self._answers.get(question(method, target), NOT_FOUND), None

    def frames(self, kind, target):
        """What the stream of `kind` says."""
        is_given = "netbox_vm_ids" in dict(urllib.parse.parse_qsl(target.partition("?")[2]))
        title = kind.replace("-", " ").capitalize()
        if kind == "virtual-machines" and self.release in NEEDS_VM_IDS and not is_given:
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
        answer, kind = self.server.backend.answer(self.command, self.path)
        # The bridge hangs up when the one that it asks for has.
        with contextlib.suppress(ConnectionError):
            self._stream(kind) if answer is None else self._whole(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _whole(self, answer):
        body = answer.body.encode()
        self.send_response(answer.status, answer.reason)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(body)))
        if answer.status == 405:
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
        """The tests say what went wrong."""
