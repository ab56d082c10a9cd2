"""What stands in deploy/ for nginx, Caddy, HAProxy and Traefik, run in front of a bridge.

Each program is started with the files that are shipped. Replaced are addresses and paths, and where tests may run
without root, the user: see `Shipped`. A replacement that finds nothing is a failure.

It needs nginx, caddy, haproxy, openssl and curl on the PATH, traefik there or beside this Python, and the package
websockets.
"""

import asyncio
import contextlib
import grp
import hashlib
import http.client
import http.server
import json
import logging
import math
import os
import pathlib
import pwd
import random
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

import support

HTTP_VERSIONS = ["1.1", "2"]
NAME = "proxbox.example"
# What NetBox's plugin sends with every stream.
KEY = {"X-Proxbox-API-Key": "any", "Accept-Encoding": "gzip, deflate"}
STREAM = "/full-update/stream"
# The ports of `listening_place`.
GIVEN = set()


# --- the proxies -------------------------------------------------------------------------------------


class Shipped:
    """A copy of a file in deploy/ in which the documented sample values are replaced."""

    def __init__(self, name, replaced):
        text = (support.DEPLOY / name).read_text()
        for sample, value in replaced.items():
            if sample not in text:
                raise AssertionError(f"deploy/{name} does not have {sample!r}")
            text = text.replace(sample, value)
        self.text = text

    def at(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.text)
        return path


class Front:
    """A proxy before the bridge at the address `bridge`, and with `admin` before an admin listener too. At `live`
    is a bridge's /livez.

    Clients come to `address`, operators to `admin_address`.
    """

    program = None
    # The files of its configuration, and the one in which `changed` is replaced, for tests of what a line is for.
    files = []
    main = None
    # The limits that it has on silence, each with that of the bridge that it must be longer than; None: it has no
    # such limit if it is not set.
    longer = {}
    # How long it keeps a connection to the bridge that is not used.
    shorter = []
    # What it warns of in a configuration that is right.
    harmless = []
    # Whether clients come without TLS.
    plain = False

    def __init__(self, bridge, folder, admin=None, live=None, changed=None):
        self.bridge = bridge
        self.live = live or bridge
        self.admin = admin
        self.folder = pathlib.Path(folder)
        self.changed = changed or {}
        self.address = listening_place()
        self.admin_address = listening_place()
        self.home = {"HOME": str(self.folder)}
        self.write()

    def shipped(self, name, replaced):
        changed = self.changed if name == self.main else {}
        return Shipped(name, {**changed, **replaced})

    def write(self):
        """Writes its configuration into its folder."""
        raise NotImplementedError

    def command(self):
        """The command that runs it in the foreground."""
        raise NotImplementedError

    def checking(self):
        """The command that says whether the configuration is right."""
        raise NotImplementedError

    def check(self):
        """What it says about the configuration, if that is right."""
        environment = {**os.environ, **self.home}
        checked = subprocess.run(self.checking(), env=environment, capture_output=True, text=True)
        said = checked.stdout + checked.stderr
        if checked.returncode != 0:
            raise AssertionError(said)
        return said

    @contextlib.contextmanager
    def running(self):
        with support.Process(*self.command(), env=self.home) as process:

            def is_ready():
                if process.popen.poll() is not None:
                    return "ended"
                addresses = [self.address] + [self.admin_address] * bool(self.admin)
                return all(self.serves(address) for address in addresses)

            self.lines = process.lines
            if support.until(is_ready) == "ended":
                process.stop()
                raise AssertionError(f"{self.program} has ended:\n{''.join(process.lines)}")
            yield self

    def serves(self, address):
        """Whether it knows by now what to do with requests to `address`."""
        with Reading(address, "/is-it-ready", plain=self.plain) as reading:
            reading.wait_for(lambda reading: reading.ended)
            return reading.popen.wait() == 0 and reading.body != b"404 page not found\n"


class Nginx(Front):
    program = "nginx"
    main = "nginx/proxbox-bridge.conf"
    files = [main]
    longer = {"proxy_read_timeout": "response_head", "proxy_send_timeout": "client_body"}
    shorter = ["keepalive_timeout"]

    def write(self):
        tls = CERTIFICATE.for_samples("/etc/nginx/tls")
        addresses = {
            "server 127.0.0.1:8800;": f"server {self.bridge};",
            "listen 443 ssl": f"listen {self.address} ssl",
            "listen [::]:443 ssl": f"listen {listening_place()} ssl",
        }
        files = [self.shipped(self.main, {**tls, **addresses}).at(self.folder / "bridge.conf")]
        if self.admin:
            addresses = {
                "server 192.0.2.10:8801;": f"server {self.admin};",
                "listen 8843 ssl": f"listen {self.admin_address} ssl",
                "listen [::]:8843 ssl": f"listen {listening_place()} ssl",
            }
            admin = self.shipped("nginx/proxbox-bridge-admin.conf", {**tls, **addresses})
            files.append(admin.at(self.folder / "admin.conf"))
        # What is around them is the distribution's. This one compresses whatever it may, as some do.
        here = self.folder
        kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        (here / "nginx.conf").write_text(
            "\n".join(
                [
                    f"user {pwd.getpwuid(os.geteuid()).pw_name};" if os.geteuid() == 0 else "",
                    f"pid {here}/nginx.pid;",
                    "error_log stderr notice;",
                    "events {}",
                    "http {",
                    "    access_log off;",
                    "    gzip on; gzip_proxied any; gzip_min_length 1; gzip_types *;",
                    *(f"    {kind}_temp_path {here}/{kind};" for kind in kinds),
                    *(f"    include {file};" for file in files),
                    "}",
                ]
            )
        )

    def command(self):
        program = found(self.program)
        return [program, "-p", self.folder, "-c", self.folder / "nginx.conf", "-e", "stderr", "-g", "daemon off;"]

    def checking(self):
        return [*self.command(), "-t"]


class Caddy(Front):
    program = "caddy"
    main = "caddy/Caddyfile"
    files = [main]
    longer = {"read_timeout": None, "write_timeout": None, "response_header_timeout": None, "timeouts": None}
    shorter = ["keepalive"]
    harmless = ["stapling OCSP", "automatic HTTPS is completely disabled"]

    def write(self):
        tls = CERTIFICATE.for_samples("/etc/caddy/tls")
        addresses = {
            "admin localhost:2019": f"admin {listening_place()}",
            "\n:443 {": f"\n:{port(self.address)} {{\n\tbind 127.0.0.1",
            "reverse_proxy 127.0.0.1:8800": f"reverse_proxy {self.bridge}",
        }
        text = self.shipped(self.main, {**tls, **addresses}).text
        if self.admin:
            addresses = {
                "\n:8843 {": f"\n:{port(self.admin_address)} {{\n\tbind 127.0.0.1",
                "reverse_proxy 192.0.2.10:8801": f"reverse_proxy {self.admin}",
            }
            text += self.shipped("caddy/admin.caddy", {**tls, **addresses}).text
        (self.folder / "Caddyfile").write_text(text)

    def command(self):
        return [found(self.program), "run", "--config", self.folder / "Caddyfile"]

    def checking(self):
        return [found(self.program), "validate", "--config", self.folder / "Caddyfile"]


class Haproxy(Front):
    program = "haproxy"
    main = "haproxy/haproxy.cfg"
    files = [main]
    longer = {f"timeout {side}": "response_head" for side in ("client", "server", "tunnel")}
    # HAProxy closes half of them every 5 s, if nothing else is said.
    shorter = []
    certificate = "/etc/haproxy/tls/proxbox-bridge.pem"

    @property
    def plain(self):
        return any(self.certificate in line for line in self.changed)

    def write(self):
        # It is gone where `changed` takes TLS away.
        tls = {} if self.plain else {self.certificate: str(CERTIFICATE.both)}
        if os.geteuid() == 0:
            (self.folder / "empty").mkdir()
            rights = {
                "user haproxy\n": f"user {pwd.getpwuid(os.geteuid()).pw_name}\n",
                "group haproxy\n": f"group {grp.getgrgid(os.getegid()).gr_name}\n",
                "chroot /var/lib/haproxy\n": f"chroot {self.folder}/empty\n",
            }
        else:
            rights = {"    user haproxy\n": "", "    group haproxy\n": "", "    chroot /var/lib/haproxy\n": ""}
        addresses = {
            "bind :443 ": f"bind {self.address} ",
            "server bridge 127.0.0.1:8800": f"server bridge {self.bridge}",
        }
        shipped = self.shipped(self.main, {**tls, **rights, **addresses})
        self.written = [shipped.at(self.folder / "haproxy.cfg")]
        if self.admin:
            addresses = {
                "bind :8843 ": f"bind {self.admin_address} ",
                "server bridge 192.0.2.10:8801": f"server bridge {self.admin}",
            }
            self.written.append(self.shipped("haproxy/admin.cfg", {**tls, **addresses}).at(self.folder / "admin.cfg"))

    def command(self):
        return [found(self.program), "-db", *(part for file in self.written for part in ("-f", file))]

    def checking(self):
        # -dW: a warning is an error.
        return [*self.command(), "-c", "-dW"]


class Traefik(Front):
    program = "traefik"
    static = "traefik/traefik.yml"
    main = "traefik/dynamic/proxbox-bridge.yml"
    files = [static, main]
    longer = {"readTimeout": "response_head", "writeTimeout": "total", "responseHeaderTimeout": "response_head"}
    shorter = ["idleConnTimeout"]
    # Backends take encoded characters for what they are, and no header for another one.
    harmless = ["Traefik can reject some encoded characters", "aliasHeadersStrategy is not configured"]

    def write(self):
        dynamic = self.folder / "dynamic"
        static = {'":443"': f'"{self.address}"', "/etc/traefik/dynamic": str(dynamic)}
        if self.admin:
            # As the file for the admin listener says.
            entry = f'entryPoints:\n  admin:\n    address: "{self.admin_address}"\n'
            static["entryPoints:\n"] = entry
        self.file = self.shipped(self.static, static).at(self.folder / "traefik.yml")
        tls = CERTIFICATE.for_samples("/etc/traefik/tls")
        addresses = {"http://127.0.0.1:8800": f"http://{self.bridge}", "port: 8801": f"port: {port(self.live)}"}
        self.shipped(self.main, {**tls, **addresses}).at(dynamic / "proxbox-bridge.yml")
        if self.admin:
            addresses = {"http://192.0.2.10:8801": f"http://{self.admin}"}
            self.shipped("traefik/dynamic/admin.yml", addresses).at(dynamic / "admin.yml")

    def command(self):
        return [found(self.program), f"--configfile={self.file}"]

    def check(self):
        # It has no command for that: it does not start with a static configuration that is wrong, and leaves out
        # of the dynamic one what is, and says so.
        with self.running():
            pass
        return "".join(self.lines)


def listening_place():
    """An address that nobody listens on. Its port is below those that the kernel gives to clients, so that no
    connection takes it before the proxy does."""
    while True:
        number = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            if number not in GIVEN:
                probe.bind(("127.0.0.1", number))
                GIVEN.add(number)
                return f"127.0.0.1:{number}"


def port(address):
    return address.rpartition(":")[2]


def found(program):
    """The path of `program`, which may stand beside this Python, as what pip installs does, or where servers are."""
    path = shutil.which(program, path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin")
    if path is None:
        raise AssertionError(f"{program} is not installed; tests/install.sh installs it")
    return path


class Certificate:
    """A certificate that is its own authority."""

    def __init__(self, folder):
        self.chain, self.key, self.both = folder / "fullchain.pem", folder / "key.pem", folder / "both.pem"
        names = f"subjectAltName=DNS:{NAME},IP:127.0.0.1"
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        made += ["-days", "2", "-subj", f"/CN={NAME}", "-addext", names, "-keyout", self.key, "-out", self.chain]
        subprocess.run(made, check=True, capture_output=True)
        self.both.write_text(self.chain.read_text() + self.key.read_text())

    def for_samples(self, folder):
        """What the names of such files in `folder` are replaced with."""
        return {f"{folder}/{file.name}": str(file) for file in (self.chain, self.key)}

    def context(self):
        return ssl.create_default_context(cafile=self.chain)


def setUpModule():
    global CERTIFICATE
    folder = pathlib.Path(unittest.enterModuleContext(tempfile.TemporaryDirectory()))
    CERTIFICATE = Certificate(folder)


# --- clients -----------------------------------------------------------------------------------------


class Reading:
    """An answer that curl reads, as far as it has come. It is over TLS unless `plain` says otherwise."""

    def __init__(self, address, path, *more, version="1.1", headers=None, plain=False, stdin=subprocess.DEVNULL):
        url = f"{'http' if plain else 'https'}://{address}{path}"
        command = ["curl", "-sS", "-i", "-N", "-g", "--path-as-is", "--noproxy", "*", f"--http{version}"]
        command += ["--cacert", CERTIFICATE.chain, *more, url]
        for name, value in (headers or {}).items():
            command += ["-H", f"{name}: {value}"]
        self.popen = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.received = b""
        self.ended = False
        self.news = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        while piece := self.popen.stdout.read1():
            with self.news:
                self.received += piece
                self.news.notify_all()
        with self.news:
            self.ended = True
            self.news.notify_all()

    def wait_for(self, wanted):
        """Waits until `wanted` is true of what has come."""
        with self.news:
            self.news.wait_for(lambda: wanted(self) or self.ended, support.PATIENCE)
            if not wanted(self):
                raise AssertionError(f"it never came; ended: {self.ended}, received:\n{self.received.decode()}")

    def _parts(self):
        received = self.received
        while True:
            head, end, body = received.partition(b"\r\n\r\n")
            if not end or not re.match(rb"HTTP/\S+ 1\d\d", head):
                return head if end else b"", body
            received = body

    @property
    def status(self):
        return int(self._parts()[0].split()[1])

    @property
    def version(self):
        return self._parts()[0].split()[0].decode()

    @property
    def headers(self):
        lines = self._parts()[0].decode().split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def body(self):
        return self._parts()[1]

    @property
    def events(self):
        """The whole events that have come, without comments."""
        frames = self.body.decode().split("\n\n")[:-1]
        return [frame for frame in frames if not frame.startswith(":")]

    def end(self):
        """Waits for the end, and makes sure that it was a clean one."""
        self.wait_for(lambda reading: reading.ended)
        complaint = self.popen.stderr.read().decode()
        if self.popen.wait(support.PATIENCE) != 0:
            raise AssertionError(f"curl: {complaint}")
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Goes away, whether or not the answer has ended."""
        self.popen.kill()
        self.popen.wait()
        self.reader.join(support.PATIENCE)
        for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if pipe:
                pipe.close()


def answer(address, path, *more, **options):
    """The whole answer to a request."""
    with Reading(address, path, *more, **options) as reading:
        return reading.end()


# --- a backend that tests lead by the hand -----------------------------------------------------------


class Backend(http.server.ThreadingHTTPServer):
    """Says what it was asked, unless the path ends with one of these:

    /stream  an event stream of `FRAMES` frames, of which each is sent when the client has `seen` the one before
    /drop    ends the connection instead of an answer
    """

    FRAMES = 20
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Asked)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.asked = []
        self.received = 0
        self.seen = threading.Semaphore(0)
        self.left = threading.Event()

    def handle_error(self, request, client_address):
        """Connections that end early are what some tests are about."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Asked(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def pieces(self):
        """The body, as it comes."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                while size:
                    piece = self.rfile.read1(size)
                    size -= len(piece)
                    yield piece
                self.rfile.readline()
            self.rfile.readline()
        else:
            left = int(self.headers.get("Content-Length", 0))
            while left:
                piece = self.rfile.read1(left)
                if not piece:
                    return
                left -= len(piece)
                yield piece

    def answer(self):
        backend = self.server
        backend.asked.append((self.command, self.path, self.client_address))
        digest = hashlib.sha256()
        self.server.received = 0
        for piece in self.pieces():
            digest.update(piece)
            backend.received += len(piece)
        if self.path.endswith("/drop"):
            self.close_connection = True
            return
        if self.path.endswith("/stream"):
            self.stream()
            return
        said = {
            "method": self.command,
            "target": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "bytes": backend.received,
            "sha256": digest.hexdigest(),
        }
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(self.server.FRAMES):
            frame = f"data: {number}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(frame), frame))
            while not self.server.seen.acquire(timeout=0.1):
                self.connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    if not self.connection.recv(1, socket.MSG_PEEK):
                        self.server.left.set()
                        raise ConnectionError("the client has left")
                self.connection.setblocking(True)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


# --- the tests ---------------------------------------------------------------------------------------


class Behind:
    """What holds behind every proxy."""

    front = None

    def start(self, thing):
        return self.enterContext(thing)

    def folder(self):
        return pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def before(self, bridge, **options):
        """The proxy, running before the bridge at that address."""
        return self.start(self.front(bridge, self.folder(), **options).running())

    def bridge(self, backend, **variables):
        # Jobs that never end are not waited for when the test is over.
        variables = {"TRUSTED_PROXIES": "127.0.0.1", "LIMITS_DRAIN": "0s", **variables}
        environment = {f"PROXBOX_BRIDGE_{name}": value for name, value in variables.items()}
        return self.start(support.Bridge.before(backend, env=environment))

    def in_front_of(self, bridge):
        return self.before(bridge.address, live=bridge.admin)

    # Configuration

    def test_the_program_itself_finds_no_fault_with_the_configuration(self):
        backend = self.start(Backend())
        front = self.front(backend.address, self.folder(), admin=backend.address)
        said = front.check()
        for harmless in front.harmless:
            said = re.sub(f".*{harmless}.*", "", said)
        self.assertNotRegex(said, r"(?i)\b(warn|error)")

    def test_a_sample_value_that_is_not_there_is_noticed(self):
        with self.assertRaisesRegex(AssertionError, "does not have 'no such line'"):
            Shipped(self.front.main, {"no such line": ""})

    # Streams

    def test_the_events_of_a_sync_are_those_of_the_bridge(self):
        replay = self.start(support.Replay("0.0.11.post2", "--speed", "max"))
        bridge = self.bridge(replay.address)
        direct = answer(bridge.address, STREAM, headers=KEY, plain=True)
        self.assertIn("event: complete\ndata: {\"ok\": true", direct.events[-1])
        front = self.in_front_of(bridge)
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                through = answer(front.address, STREAM, headers=KEY, version=version)
                self.assertEqual(through.version, f"HTTP/{version}")
                self.assertEqual(through.status, 200)
                self.assertEqual(through.events, direct.events)
                for name in ("content-type", "cache-control", "x-accel-buffering"):
                    self.assertEqual(through.headers[name], direct.headers[name], name)
                self.assertNotIn("content-encoding", through.headers)
                self.assertNotIn("content-length", through.headers)

    def test_a_client_has_every_event_while_the_stream_is_still_open(self):
        frames = 12
        replay = self.start(support.Replay("0.0.11.post2", "--speed", "max", "--stall-after", str(frames)))
        bridge = self.bridge(replay.address)
        front = self.in_front_of(bridge)
        direct = self.start(Reading(bridge.address, STREAM, headers=KEY, plain=True))
        direct.wait_for(lambda reading: reading.headers)
        job = direct.headers["x-proxbox-bridge-job"]
        support.until(lambda: record(bridge, job)["frames_in"] == frames)
        written = record(bridge, job)["frames_out"]
        direct.wait_for(lambda reading: len(reading.events) == written)
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                through = self.start(Reading(front.address, STREAM, headers=KEY, version=version))
                through.wait_for(lambda reading: reading.events == direct.events)
                self.assertEqual(through.headers["x-proxbox-bridge-job"], job)
                self.assertFalse(through.ended)
        self.assertFalse(direct.ended)
        self.assertEqual(record(bridge, job)["frames_out"], written)

    def test_a_frame_is_not_kept_until_the_next_one_comes(self):
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                with Backend() as backend:
                    front = self.in_front_of(self.bridge(backend.address))
                    in_lockstep(backend, front.address, "/log/stream", version=version)

    def test_the_bridge_knows_at_once_when_the_client_of_a_sync_has_gone(self):
        replay = self.start(support.Replay("0.0.11.post2", "--speed", "max", "--stall-after", "12"))
        bridge = self.bridge(replay.address, JOBS_ON_DISCONNECT="cancel")
        front = self.in_front_of(bridge)
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                with Reading(front.address, STREAM, headers=KEY, version=version) as reading:
                    reading.wait_for(lambda reading: reading.events)
                    job = reading.headers["x-proxbox-bridge-job"]
                    self.assertIsNone(record(bridge, job)["outcome"])
                support.until(lambda: record(bridge, job)["outcome"] == "cancelled")

    def test_the_backend_knows_when_the_client_of_anything_else_has_gone(self):
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                with Backend() as backend:
                    front = self.in_front_of(self.bridge(backend.address))
                    with Reading(front.address, "/log/stream", version=version) as reading:
                        reading.wait_for(lambda reading: reading.events)
                        self.assertFalse(backend.left.is_set())
                    self.assertTrue(backend.left.wait(support.PATIENCE))

    # Requests

    def test_what_a_client_says_of_where_it_is_from_is_replaced(self):
        lies = {
            "X-Forwarded-For": "203.0.113.9",
            "X-Forwarded-Proto": "gopher",
            "X-Forwarded-Host": "elsewhere.example",
            "Forwarded": "for=203.0.113.9",
            "X-Forwarded-Port": "70",
            "X-Forwarded-Prefix": "/elsewhere",
            "X-Forwarded-Server": "elsewhere.example",
            "X-Forwarded-Ssl": "off",
            "X-Real-IP": "203.0.113.9",
        }
        replay = self.start(support.Replay("0.0.11.post2", "--speed", "max"))
        bridge = self.bridge(replay.address)
        front = self.in_front_of(bridge)
        backend = self.start(Backend())
        seen = self.in_front_of(self.bridge(backend.address))
        # A machine that is not the one of the proxy.
        elsewhere = ["--interface", "127.0.0.2"]
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                options = {"version": version, "headers": {**KEY, **lies}}
                through = answer(front.address, STREAM, *elsewhere, **options)
                who = record(bridge, through.headers["x-proxbox-bridge-job"])["who"]
                self.assertEqual(who["address"], "127.0.0.2")

                resolved = ["--resolve", f"{NAME}:{port(seen.address)}:127.0.0.1"]
                name = f"{NAME}:{port(seen.address)}"
                told = json.loads(answer(name, "/what", *resolved, *elsewhere, **options).body)["headers"]
                self.assertEqual(told["host"], name)
                self.assertEqual(told["x-forwarded-for"], "127.0.0.2, 127.0.0.1")
                self.assertEqual(told["x-forwarded-proto"], "https")
                self.assertEqual(told["x-forwarded-host"], name)
                for lie in list(lies)[3:]:
                    self.assertNotIn(lie.lower(), told)

    def test_headers_paths_and_queries_pass(self):
        headers = {
            "X-Proxbox-API-Key": "key",
            "X-Proxbox-Actor": "anna",
            "Last-Event-ID": "01a20e86.37",
            "Authorization": "Bearer other",
            "X-Request-Id": "7b1f",
        }
        backend = self.start(Backend())
        front = self.in_front_of(self.bridge(backend.address))
        # A head as large as the bridge takes it, nearly: 16 KiB of target, 64 KiB together.
        padding = {f"X-Padding-{n}": "x" * 15_000 for n in range(3)}
        target = f"/a//b%2Fc/caf%C3%A9?x=%zz&y=a+b&z={{}}&&p=http://h/&pad={'y' * 16_000}"
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                told = json.loads(answer(front.address, target, version=version, headers={**headers, **padding}).body)
                self.assertEqual(told["target"], target)
                for name, value in {**headers, **padding}.items():
                    self.assertEqual(told["headers"][name.lower()], value)
                # Traefik writes it as %3B.
                told = json.loads(answer(front.address, "/a?x=1;2", version=version).body)
                self.assertEqual(urllib.parse.unquote(told["target"]), "/a?x=1;2")

    def test_a_large_body_passes(self):
        backend = self.start(Backend())
        front = self.in_front_of(self.bridge(backend.address))
        body = os.urandom(1 << 20) * 20
        file = self.folder() / "body"
        file.write_bytes(body)
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                told = json.loads(answer(front.address, "/up", "--data-binary", f"@{file}", version=version).body)
                self.assertEqual(told["method"], "POST")
                self.assertEqual(told["bytes"], len(body))
                self.assertEqual(told["sha256"], hashlib.sha256(body).hexdigest())

    def test_the_bridge_may_refuse_a_body_before_it_has_come(self):
        backend = self.start(Backend())
        front = self.in_front_of(self.bridge(backend.address, LIMITS_BODY_BYTES="1024"))
        file = self.folder() / "body"
        # Of more than 256 KiB the bridge leaves the rest unread, and what it answered may be lost on the way.
        file.write_bytes(b"x" * 100_000)
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                refused = answer(front.address, "/up", "--data-binary", f"@{file}", version=version)
                self.assertEqual(refused.status, 413)
                self.assertIn("detail", json.loads(refused.body))

    def test_a_body_passes_while_it_is_sent(self):
        backend = self.start(Backend())
        front = self.in_front_of(self.bridge(backend.address))
        first, rest = b"x" * 1000, b"x" * 200_000
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                upload = ["-X", "POST", "-T", "-"]
                with Reading(front.address, "/up", *upload, version=version, stdin=subprocess.PIPE) as reading:
                    reading.popen.stdin.write(first)
                    reading.popen.stdin.flush()
                    support.until(lambda: backend.received == len(first))
                    reading.popen.stdin.write(rest)
                    reading.popen.stdin.close()
                    self.assertEqual(json.loads(reading.end().body)["bytes"], len(first + rest))

    def test_connections_to_the_bridge_are_used_again_and_a_post_is_not_repeated(self):
        # In the place of the bridge, which takes care of this itself.
        backend = self.start(Backend())
        front = self.before(backend.address)
        client = http.client.HTTPSConnection(front.address, timeout=support.PATIENCE, context=CERTIFICATE.context())
        with contextlib.closing(client):
            client.request("GET", "/warm")
            client.getresponse().read()
            client.request("POST", "/again/drop", body=b"x")
            # HAProxy closes, as a server may do with a connection that has been used.
            with contextlib.suppress(http.client.RemoteDisconnected):
                self.assertEqual(client.getresponse().status, 502)
        first = answer(front.address, "/first/drop", "--data", "x")
        self.assertEqual(first.status, 502)
        self.assertNotIn("retry-after", first.headers)
        asked = [one for one in backend.asked if one[1] in ("/warm", "/again/drop", "/first/drop")]
        self.assertEqual([path for _, path, _ in asked], ["/warm", "/again/drop", "/first/drop"])
        self.assertEqual(asked[0][2], asked[1][2])

    def test_it_is_more_patient_than_the_bridge(self):
        text = "\n".join((support.DEPLOY / name).read_text() for name in self.front.files)
        text = re.sub(r"^\s*#.*", "", text, flags=re.MULTILINE)
        limits = support.defaults()
        for key, limit in self.front.longer.items():
            if limit is None:
                self.assertNotIn(key, text)
            else:
                # For Traefik, 0 is no limit.
                self.assertGreater(seconds(text, key) or math.inf, seconds_of(limits[f"limits.{limit}"]), key)
        # And closes its connections to the bridge before the bridge does.
        for key in self.front.shorter:
            self.assertLess(seconds(text, key), seconds_of(limits["limits.client_idle"]), key)

    # WebSockets

    def test_a_page_speaks_through_it_on_ws(self):
        replay = self.start(support.Replay("0.0.2.post1", "--speed", "max"))
        bridge = self.bridge(replay.address)
        front = self.in_front_of(bridge)
        direct = asyncio.run(conversation(f"ws://{bridge.address}/ws"))
        self.assertIn("pve3", "".join(direct))
        through = asyncio.run(conversation(f"wss://{front.address}/ws", ssl=CERTIFICATE.context()))
        self.assertEqual(through, direct)

    def test_any_other_websocket_is_a_tunnel(self):
        def console(socket):
            for message in socket:
                if message == "enough":
                    return socket.close(4001, "enough said")
                socket.send(message)

        # It would complain of the request that asks whether the proxy is ready.
        quiet = logging.Logger("quiet", logging.CRITICAL + 1)
        server = self.start(serve(console, "127.0.0.1", 0, subprotocols=["binary"], logger=quiet))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        bridge = self.bridge(f"127.0.0.1:{server.socket.getsockname()[1]}")
        front = self.in_front_of(bridge)
        asyncio.run(self.at_the_console(f"wss://{front.address}/console/100?ticket=%2B"))

    async def at_the_console(self, url):
        async with asyncio.timeout(support.PATIENCE):
            async with connect(url, ssl=CERTIFICATE.context(), subprotocols=["binary"], proxy=None) as socket:
                self.assertEqual(socket.subprotocol, "binary")
                for message in ["text", b"\x00\xff", "x" * 300_000]:
                    await socket.send(message)
                    self.assertEqual(await socket.recv(), message)
                await socket.send("enough")
                with self.assertRaises(ConnectionClosed) as closed:
                    await socket.recv()
        self.assertEqual((closed.exception.rcvd.code, closed.exception.rcvd.reason), (4001, "enough said"))

    # The admin listener

    def test_what_the_admin_listener_knows_is_the_backends_to_answer(self):
        backend = self.start(Backend())
        front = self.in_front_of(self.bridge(backend.address))
        for method, path in [("GET", "/livez"), ("GET", "/metrics"), ("GET", "/jobs"), ("POST", "/reload")]:
            told = json.loads(answer(front.address, path, "-X", method).body)
            self.assertEqual((told["method"], told["target"]), (method, path))

    def test_operators_sign_in_through_the_file_for_the_admin_listener(self):
        token = "0123456789abcdef"
        file = self.folder() / "token"
        file.write_text(token)
        backend = self.start(Backend())
        bridge = self.bridge(backend.address, ADMIN_TOKEN_FILE=file)
        front = self.before(bridge.address, admin=bridge.admin, live=bridge.admin)
        name = f"{NAME}:{port(front.admin_address)}"

        def ask(path, *more, **headers):
            resolved = ["--resolve", f"{name}:127.0.0.1"]
            return answer(name, path, *resolved, *more, headers={"Origin": f"https://{name}", **headers})

        # The listener is on a loopback address here, and free to read for whoever calls it by one: not by a name.
        self.assertEqual(ask("/jobs").status, 401)
        self.assertEqual(ask("/jobs", Authorization=f"Bearer {token}").status, 200)
        # A page of this site asks, and none of another one.
        self.assertEqual(ask("/reload", "-X", "POST", Authorization=f"Bearer {token}").status, 200)
        signed_in = ask("/session", "--data", f"token={token}")
        self.assertEqual((signed_in.status, signed_in.headers["location"]), (303, "/"))
        cookie = signed_in.headers["set-cookie"]
        self.assertIn("secure", cookie.lower())
        self.assertEqual(ask("/jobs", Cookie=cookie.partition(";")[0]).status, 200)

    def test_the_file_for_the_admin_listener_lets_the_token_and_the_events_of_jobs_through(self):
        # In the place of the listener.
        listener = self.start(Backend())
        bridge = self.start(Backend())
        front = self.before(bridge.address, admin=listener.address)
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                told = json.loads(answer(front.admin_address, "/jobs", version=version).body)
                self.assertNotIn("authorization", told["headers"])
                self.assertEqual(told["headers"]["host"], front.admin_address)
                token = {"Authorization": "Bearer 0123456789abcdef", "X-Forwarded-For": "203.0.113.9"}
                told = json.loads(answer(front.admin_address, "/jobs", version=version, headers=token).body)
                self.assertEqual(told["headers"]["authorization"], "Bearer 0123456789abcdef")
                self.assertEqual(told["headers"]["x-forwarded-for"], "127.0.0.1")
                in_lockstep(listener, front.admin_address, "/jobs/1/stream", version=version)


class BehindOneThatDoesAsItIsTold(Behind):
    """What holds behind those that can be told what to say, and to add nothing: all but Traefik."""

    def test_a_bridge_that_is_away_is_worth_waiting_for(self):
        front = self.before(listening_place())
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                away = answer(front.address, "/health", version=version)
                self.assertEqual(away.status, 503)
                self.assertEqual(away.headers["retry-after"], "30")
                self.assertEqual(away.headers["content-type"], "application/json")
                self.assertEqual(sorted(json.loads(away.body)), ["detail", "message"])

    def test_a_stream_is_refused_to_a_client_of_http_1_0(self):
        backend = self.start(Backend())
        front = self.in_front_of(self.bridge(backend.address))
        for path in (STREAM, f"{STREAM}/"):
            old = answer(front.address, path, "--no-alpn", version="1.0")
            self.assertEqual(old.status, 505)
            self.assertEqual(sorted(json.loads(old.body)), ["detail", "message"])
        self.assertEqual(answer(front.address, "/other", "--no-alpn", version="1.0").status, 200)

    def test_nothing_is_asked_for_that_the_client_does_not_ask_for(self):
        backend = self.start(Backend())
        front = self.in_front_of(self.bridge(backend.address))
        told = json.loads(answer(front.address, "/what", "-H", "Accept:", "-H", "User-Agent:").body)["headers"]
        of_the_bridge = {"via", "x-request-id", "traceparent"}
        of_the_proxy = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
        self.assertEqual(set(told), {"host"} | of_the_bridge | of_the_proxy)


class BehindNginx(BehindOneThatDoesAsItIsTold, unittest.TestCase):
    front = Nginx


class BehindCaddy(BehindOneThatDoesAsItIsTold, unittest.TestCase):
    front = Caddy


class BehindHaproxy(BehindOneThatDoesAsItIsTold, unittest.TestCase):
    front = Haproxy

    def test_every_frame_would_be_late_without_http_no_delay(self):
        backend = self.start(Backend())
        bridge = self.bridge(backend.address)
        # Over TLS, HAProxy 2.6 does not wait.
        plain = {f" ssl crt {Haproxy.certificate} alpn h2,http/1.1": " "}
        took = {}
        for name, changed in [("with", {}), ("without", {"    option http-no-delay\n": ""})]:
            front = self.before(bridge.address, changed={**plain, **changed})
            began = time.monotonic()
            in_lockstep(backend, front.address, "/log/stream", plain=True)
            took[name] = time.monotonic() - began
        # The kernel holds each back for a tenth of a second at the least, on however fast a machine.
        self.assertGreater(took["without"], Backend.FRAMES * 0.1)
        self.assertLess(took["with"], took["without"] / 2)


class BehindTraefik(Behind, unittest.TestCase):
    front = Traefik

    def test_a_bridge_that_is_away_is_worth_waiting_for(self):
        front = self.before(listening_place())
        # The first ones are told 502, until Traefik has asked for /livez.
        support.until(lambda: answer(front.address, "/health").status == 503)

    def test_nothing_keeps_a_client_of_http_1_0_from_a_stream(self):
        # What the README says of Traefik. If this fails, say there that it is over.
        backend = self.start(Backend())
        front = self.in_front_of(self.bridge(backend.address))
        for _ in range(Backend.FRAMES):
            backend.seen.release()
        old = answer(front.address, "/log/stream", "--no-alpn", version="1.0")
        self.assertEqual((old.version, old.status), ("HTTP/1.0", 200))


def record(bridge, job):
    """The record of a job."""
    _, _, body = support.get(bridge.admin, f"/jobs/{job}")
    return json.loads(body)


def in_lockstep(backend, address, path, **options):
    """Reads the stream of `backend`, which sends a frame only when the one before has been seen."""
    with Reading(address, path, **options) as reading:
        for number in range(backend.FRAMES):
            reading.wait_for(lambda reading: f"data: {number}\n\n".encode() in reading.body)
            backend.seen.release()
        reading.end()
        if reading.events != [f"data: {number}" for number in range(backend.FRAMES)]:
            raise AssertionError(f"not what was sent: {reading.events}")


def seconds(text, key):
    """How many seconds the one `key` of a configuration is set to."""
    (value,) = re.findall(rf"^\s*{key}:? +(\w+);?$", text, flags=re.MULTILINE)
    return seconds_of(value)


def seconds_of(duration):
    parts = [re.fullmatch(r"(\d+)([smh])", part).groups() for part in duration.split()]
    return sum(int(amount) * {"s": 1, "m": 60, "h": 3600}[unit] for amount, unit in parts)


async def conversation(url, **options):
    """What a page is told that has the nodes synchronised."""
    told = []
    async with asyncio.timeout(support.PATIENCE), connect(url, proxy=None, **options) as socket:
        told.append(await socket.recv())
        await socket.send("Sync Nodes")
        while told[-1] != '{"object":"device","end":true}':
            told.append(await socket.recv())
    return told


if __name__ == "__main__":
    unittest.main()
