"""The configurations of nginx, Caddy, HAProxy and Traefik in deploy/, run in front of a bridge.

Each program runs with the shipped files, in which addresses, paths and, without root, the user are replaced
(`Shipped`). A sample value that is not found is a failure.

Needs nginx, caddy, haproxy, openssl and curl on the PATH, traefik there or in the environment of this Python, and the
package websockets.
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
# Headers of the NetBox plugin on streams.
KEY = {"X-Proxbox-API-Key": "any", "Accept-Encoding": "gzip, deflate"}
STREAM = "/full-update/stream"
# Ports that `free_address` has returned.
USED_PORTS = set()


# --- the proxies -------------------------------------------------------------------------------------


class Shipped:
    """A copy of a file in deploy/ with the sample values replaced."""

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


class Proxy:
    """A proxy in front of the bridge at the address `bridge` and, if set, of the admin listener at `admin`. `live` is
    the address of a bridge's /livez.

    `address` serves clients, `admin_address` operators.
    """

    program = None
    # The configuration files, and the one to which `changed` applies.
    files = []
    main = None
    # The file for the admin listener, and the changes with which it serves it under a path.
    admin_file = None
    under_path = {}
    # Its timeouts, each with the limit of the bridge that it must exceed. None: the timeout must not be set.
    timeouts = {}
    # Its timeouts of idle connections to the bridge.
    idle_timeouts = []
    # Expected warnings.
    expected_warnings = []
    # Whether clients connect without TLS.
    plain = False

    def __init__(self, bridge, folder, admin=None, live=None, changed=None, path=""):
        self.bridge = bridge
        self.live = live or bridge
        self.admin = admin
        self.folder = pathlib.Path(folder)
        self.changed = {self.main: changed or {}, self.admin_file: self.under_path if path else {}}
        self.path = path
        self.address = free_address()
        self.admin_address = free_address()
        self.home = {"HOME": str(self.folder)}
        self.write()

    def shipped(self, name, replaced):
        return Shipped(name, {**self.changed.get(name, {}), **replaced})

    def write(self):
        """Writes the configuration."""
        raise NotImplementedError

    def command(self):
        """The command that runs the proxy in the foreground."""
        raise NotImplementedError

    def check_command(self):
        """The command that checks the configuration."""
        raise NotImplementedError

    def check(self):
        """The output of the check of the configuration, which must succeed."""
        environment = {**os.environ, **self.home}
        checked = subprocess.run(self.check_command(), env=environment, capture_output=True, text=True)
        output = checked.stdout + checked.stderr
        if checked.returncode != 0:
            raise AssertionError(output)
        return output

    @contextlib.contextmanager
    def running(self):
        with support.Process(*self.command(), env=self.home) as process:

            def is_ready():
                if process.popen.poll() is not None:
                    return "ended"
                return self.serves(self.address) and (not self.admin or self.serves(self.admin_address, self.path))

            self.lines = process.lines
            if support.until(is_ready) == "ended":
                process.stop()
                raise AssertionError(f"{self.program} has ended:\n{''.join(process.lines)}")
            yield self

    def serves(self, address, path=""):
        """Whether the proxy is ready for requests to `address` below `path`."""
        with CurlResponse(address, f"{path}/is-it-ready", plain=self.plain) as reading:
            reading.wait_for(lambda reading: reading.ended)
            return reading.popen.wait() == 0 and reading.body != b"404 page not found\n"


class Nginx(Proxy):
    program = "nginx"
    main = "nginx/proxbox-bridge.conf"
    files = [main]
    admin_file = "nginx/proxbox-bridge-admin.conf"
    under_path = {"    location / {": "    location /proxbox-bridge/ {"}
    timeouts = {"proxy_read_timeout": "response_head", "proxy_send_timeout": "client_body"}
    idle_timeouts = ["keepalive_timeout"]

    def write(self):
        tls = CERTIFICATE.for_samples("/etc/nginx/tls")
        addresses = {
            "server 127.0.0.1:8800;": f"server {self.bridge};",
            "listen 443 ssl": f"listen {self.address} ssl",
            "listen [::]:443 ssl": f"listen {free_address()} ssl",
        }
        files = [self.shipped(self.main, {**tls, **addresses}).at(self.folder / "bridge.conf")]
        if self.admin:
            addresses = {
                "server 192.0.2.10:8801;": f"server {self.admin};",
                "listen 8843 ssl": f"listen {self.admin_address} ssl",
                "listen [::]:8843 ssl": f"listen {free_address()} ssl",
            }
            admin = self.shipped(self.admin_file, {**tls, **addresses})
            files.append(admin.at(self.folder / "admin.conf"))
        # In place of the distribution's nginx.conf. It enables compression, as some distributions do.
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

    def check_command(self):
        return [*self.command(), "-t"]


class Caddy(Proxy):
    program = "caddy"
    main = "caddy/Caddyfile"
    files = [main]
    admin_file = "caddy/admin.caddy"
    under_path = {"reverse_proxy 192.0.2.10:8801": "reverse_proxy /proxbox-bridge* 192.0.2.10:8801"}
    timeouts = {"read_timeout": None, "write_timeout": None, "response_header_timeout": None, "timeouts": None}
    idle_timeouts = ["keepalive"]
    expected_warnings = ["stapling OCSP", "automatic HTTPS is completely disabled"]

    def write(self):
        tls = CERTIFICATE.for_samples("/etc/caddy/tls")
        addresses = {
            "admin localhost:2019": f"admin {free_address()}",
            "\n:443 {": f"\n:{port(self.address)} {{\n\tbind 127.0.0.1",
            "reverse_proxy 127.0.0.1:8800": f"reverse_proxy {self.bridge}",
        }
        text = self.shipped(self.main, {**tls, **addresses}).text
        if self.admin:
            addresses = {
                "\n:8843 {": f"\n:{port(self.admin_address)} {{\n\tbind 127.0.0.1",
                " 192.0.2.10:8801 {": f" {self.admin} {{",
            }
            text += self.shipped(self.admin_file, {**tls, **addresses}).text
        (self.folder / "Caddyfile").write_text(text)

    def command(self):
        return [found(self.program), "run", "--config", self.folder / "Caddyfile"]

    def check_command(self):
        return [found(self.program), "validate", "--config", self.folder / "Caddyfile"]


class Haproxy(Proxy):
    program = "haproxy"
    main = "haproxy/haproxy.cfg"
    files = [main]
    admin_file = "haproxy/admin.cfg"
    under_path = {
        "    default_backend proxbox_bridge_admin": "    use_backend proxbox_bridge_admin if { path_beg /proxbox-bridge }"
    }
    timeouts = {f"timeout {side}": "response_head" for side in ("client", "server", "tunnel")}
    # By default HAProxy closes half of them every 5 s.
    idle_timeouts = []
    certificate = "/etc/haproxy/tls/proxbox-bridge.pem"

    @property
    def plain(self):
        return any(self.certificate in line for line in self.changed[self.main])

    def write(self):
        # `changed` may have removed TLS.
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
            self.written.append(self.shipped(self.admin_file, {**tls, **addresses}).at(self.folder / "admin.cfg"))

    def command(self):
        return [found(self.program), "-db", *(part for file in self.written for part in ("-f", file))]

    def check_command(self):
        # -dW: warnings are errors.
        return [*self.command(), "-c", "-dW"]


class Traefik(Proxy):
    program = "traefik"
    static = "traefik/traefik.yml"
    main = "traefik/dynamic/proxbox-bridge.yml"
    files = [static, main]
    admin_file = "traefik/dynamic/admin.yml"
    under_path = {"rule: PathPrefix(`/`)": "rule: PathPrefix(`/proxbox-bridge`)"}
    timeouts = {"readTimeout": "response_head", "writeTimeout": "total", "responseHeaderTimeout": "response_head"}
    idle_timeouts = ["idleConnTimeout"]
    # Neither applies: backends decode paths themselves and use no header aliases.
    expected_warnings = ["Traefik can reject some encoded characters", "aliasHeadersStrategy is not configured"]

    def write(self):
        dynamic = self.folder / "dynamic"
        static = {'":443"': f'"{self.address}"', "/etc/traefik/dynamic": str(dynamic)}
        if self.admin:
            # As described in admin.yml.
            entry = f'entryPoints:\n  admin:\n    address: "{self.admin_address}"\n'
            static["entryPoints:\n"] = entry
        self.file = self.shipped(self.static, static).at(self.folder / "traefik.yml")
        tls = CERTIFICATE.for_samples("/etc/traefik/tls")
        addresses = {"http://127.0.0.1:8800": f"http://{self.bridge}", "port: 8801": f"port: {port(self.live)}"}
        self.shipped(self.main, {**tls, **addresses}).at(dynamic / "proxbox-bridge.yml")
        if self.admin:
            addresses = {"http://192.0.2.10:8801": f"http://{self.admin}"}
            self.shipped(self.admin_file, addresses).at(dynamic / "admin.yml")

    def command(self):
        return [found(self.program), f"--configfile={self.file}"]

    def check(self):
        # Traefik has no such command. It does not start with an invalid static configuration, and logs errors of the
        # dynamic one.
        with self.running():
            pass
        return "".join(self.lines)


def free_address():
    """A free address. Its port is below the ephemeral ports, so that no client connection takes it before the proxy."""
    while True:
        number = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            if number not in USED_PORTS:
                probe.bind(("127.0.0.1", number))
                USED_PORTS.add(number)
                return f"127.0.0.1:{number}"


def port(address):
    return address.rpartition(":")[2]


def found(program):
    """The path of `program`: in the environment of this Python, on the PATH, or in /usr/sbin."""
    path = shutil.which(program, path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin")
    if path is None:
        raise AssertionError(f"{program} is not installed; tests/install.sh installs it")
    return path


class Certificate:
    """A self-signed certificate."""

    def __init__(self, folder):
        self.chain, self.key, self.both = folder / "fullchain.pem", folder / "key.pem", folder / "both.pem"
        names = f"subjectAltName=DNS:{NAME},IP:127.0.0.1"
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        made += ["-days", "2", "-subj", f"/CN={NAME}", "-addext", names, "-keyout", self.key, "-out", self.chain]
        subprocess.run(made, check=True, capture_output=True)
        self.both.write_text(self.chain.read_text() + self.key.read_text())

    def for_samples(self, folder):
        """Replacements for the sample paths in `folder`."""
        return {f"{folder}/{file.name}": str(file) for file in (self.chain, self.key)}

    def context(self):
        return ssl.create_default_context(cafile=self.chain)


def setUpModule():
    global CERTIFICATE
    folder = pathlib.Path(unittest.enterModuleContext(tempfile.TemporaryDirectory()))
    CERTIFICATE = Certificate(folder)


# --- clients -----------------------------------------------------------------------------------------


class CurlResponse:
    """A response that curl reads, as received so far. It uses TLS unless `plain` is set."""

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
        """Waits until `wanted` is true for the response so far."""
        with self.news:
            self.news.wait_for(lambda: wanted(self) or self.ended, support.TIMEOUT)
            if not wanted(self):
                raise AssertionError(f"timed out or ended; ended: {self.ended}, received:\n{self.received.decode()}")

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
        """The complete events so far, without comments."""
        frames = self.body.decode().split("\n\n")[:-1]
        return [frame for frame in frames if not frame.startswith(":")]

    def end(self):
        """Waits for the end, which must not be an error."""
        self.wait_for(lambda reading: reading.ended)
        complaint = self.popen.stderr.read().decode()
        if self.popen.wait(support.TIMEOUT) != 0:
            raise AssertionError(f"curl: {complaint}")
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Disconnects, also before the end of the response."""
        self.popen.kill()
        self.popen.wait()
        self.reader.join(support.TIMEOUT)
        for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if pipe:
                pipe.close()


def fetch(address, path, *more, **options):
    """The complete response to a request."""
    with CurlResponse(address, path, *more, **options) as reading:
        return reading.end()


# --- a mock backend ----------------------------------------------------------------------------------


class Backend(http.server.ThreadingHTTPServer):
    """Responds with a description of the request, except to paths that end with:

    /stream  an event stream of `FRAMES` frames, of which each is sent after the test has `seen` the previous one
    /drop    closes the connection without a response
    """

    FRAMES = 20
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.requests = []
        self.received = 0
        self.seen = threading.Semaphore(0)
        self.left = threading.Event()

    def handle_error(self, request, client_address):
        """Ignores connections that end early, as in some tests."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def pieces(self):
        """The body in chunks."""
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

    def respond(self):
        backend = self.server
        backend.requests.append((self.command, self.path, self.client_address))
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
        description = {
            "method": self.command,
            "target": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "bytes": backend.received,
            "sha256": digest.hexdigest(),
        }
        body = json.dumps(description).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = respond

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


class ProxyTests:
    """Tests for every proxy."""

    proxy_class = None

    def start(self, thing):
        return self.enterContext(thing)

    def folder(self):
        return pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def start_proxy(self, bridge, **options):
        """Starts the proxy in front of the bridge at that address."""
        return self.start(self.proxy_class(bridge, self.folder(), **options).running())

    def bridge(self, backend, **variables):
        # The end of a test does not wait for running jobs.
        variables = {"TRUSTED_PROXIES": "127.0.0.1", "LIMITS_DRAIN": "0s", **variables}
        environment = {f"PROXBOX_BRIDGE_{name}": value for name, value in variables.items()}
        return self.start(support.Bridge.for_backend(backend, env=environment))

    def proxy_for(self, bridge):
        return self.start_proxy(bridge.address, live=bridge.admin)

    # Configuration

    def test_the_proxy_accepts_the_configuration(self):
        backend = self.start(Backend())
        proxy = self.proxy_class(backend.address, self.folder(), admin=backend.address)
        output = proxy.check()
        for warning in proxy.expected_warnings:
            output = re.sub(f".*{warning}.*", "", output)
        self.assertNotRegex(output, r"(?i)\b(warn|error)")

    def test_a_missing_sample_value_is_an_error(self):
        with self.assertRaisesRegex(AssertionError, "does not have 'no such line'"):
            Shipped(self.proxy_class.main, {"no such line": ""})

    # Streams

    def test_the_events_of_a_sync_are_forwarded_unchanged(self):
        replay = self.start(support.Replay("0.0.11.post2", "--speed", "max"))
        bridge = self.bridge(replay.address)
        direct = fetch(bridge.address, STREAM, headers=KEY, plain=True)
        self.assertIn("event: complete\ndata: {\"ok\": true", direct.events[-1])
        proxy = self.proxy_for(bridge)
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                through = fetch(proxy.address, STREAM, headers=KEY, version=version)
                self.assertEqual(through.version, f"HTTP/{version}")
                self.assertEqual(through.status, 200)
                self.assertEqual(through.events, direct.events)
                for name in ("content-type", "cache-control", "x-accel-buffering"):
                    self.assertEqual(through.headers[name], direct.headers[name], name)
                self.assertNotIn("content-encoding", through.headers)
                self.assertNotIn("content-length", through.headers)

    def test_events_arrive_while_the_stream_is_open(self):
        frames = 12
        replay = self.start(support.Replay("0.0.11.post2", "--speed", "max", "--stall-after", str(frames)))
        bridge = self.bridge(replay.address)
        proxy = self.proxy_for(bridge)
        direct = self.start(CurlResponse(bridge.address, STREAM, headers=KEY, plain=True))
        direct.wait_for(lambda reading: reading.headers)
        job = direct.headers["x-proxbox-bridge-job"]
        support.until(lambda: record(bridge, job)["frames_in"] == frames)
        written = record(bridge, job)["frames_out"]
        direct.wait_for(lambda reading: len(reading.events) == written)
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                through = self.start(CurlResponse(proxy.address, STREAM, headers=KEY, version=version))
                through.wait_for(lambda reading: reading.events == direct.events)
                self.assertEqual(through.headers["x-proxbox-bridge-job"], job)
                self.assertFalse(through.ended)
        self.assertFalse(direct.ended)
        self.assertEqual(record(bridge, job)["frames_out"], written)

    def test_frames_are_not_buffered(self):
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                with Backend() as backend:
                    proxy = self.proxy_for(self.bridge(backend.address))
                    in_lockstep(backend, proxy.address, "/log/stream", version=version)

    def test_a_disconnect_from_a_sync_reaches_the_bridge(self):
        replay = self.start(support.Replay("0.0.11.post2", "--speed", "max", "--stall-after", "12"))
        bridge = self.bridge(replay.address, JOBS_ON_DISCONNECT="cancel")
        proxy = self.proxy_for(bridge)
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                with CurlResponse(proxy.address, STREAM, headers=KEY, version=version) as reading:
                    reading.wait_for(lambda reading: reading.events)
                    job = reading.headers["x-proxbox-bridge-job"]
                    self.assertIsNone(record(bridge, job)["outcome"])
                support.until(lambda: record(bridge, job)["outcome"] == "cancelled")

    def test_a_disconnect_from_another_stream_reaches_the_backend(self):
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                with Backend() as backend:
                    proxy = self.proxy_for(self.bridge(backend.address))
                    with CurlResponse(proxy.address, "/log/stream", version=version) as reading:
                        reading.wait_for(lambda reading: reading.events)
                        self.assertFalse(backend.left.is_set())
                    self.assertTrue(backend.left.wait(support.TIMEOUT))

    # Requests

    def test_forwarding_headers_of_clients_are_replaced(self):
        spoofed = {
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
        proxy = self.proxy_for(bridge)
        backend = self.start(Backend())
        seen = self.proxy_for(self.bridge(backend.address))
        # An address other than that of the proxy.
        elsewhere = ["--interface", "127.0.0.2"]
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                options = {"version": version, "headers": {**KEY, **spoofed}}
                through = fetch(proxy.address, STREAM, *elsewhere, **options)
                who = record(bridge, through.headers["x-proxbox-bridge-job"])["who"]
                self.assertEqual(who["address"], "127.0.0.2")

                resolved = ["--resolve", f"{NAME}:{port(seen.address)}:127.0.0.1"]
                name = f"{NAME}:{port(seen.address)}"
                request = json.loads(fetch(name, "/what", *resolved, *elsewhere, **options).body)["headers"]
                self.assertEqual(request["host"], name)
                self.assertEqual(request["x-forwarded-for"], "127.0.0.2, 127.0.0.1")
                self.assertEqual(request["x-forwarded-proto"], "https")
                self.assertEqual(request["x-forwarded-host"], name)
                for header in list(spoofed)[3:]:
                    self.assertNotIn(header.lower(), request)

    def test_headers_paths_and_queries_are_forwarded(self):
        headers = {
            "X-Proxbox-API-Key": "key",
            "X-Proxbox-Actor": "anna",
            "Last-Event-ID": "01a20e86.37",
            "Authorization": "Bearer other",
            "X-Request-Id": "7b1f",
        }
        backend = self.start(Backend())
        proxy = self.proxy_for(self.bridge(backend.address))
        # Nearly the largest head that the bridge accepts: 16 KiB of target, 64 KiB in total.
        padding = {f"X-Padding-{n}": "x" * 15_000 for n in range(3)}
        target = f"/a//b%2Fc/caf%C3%A9?x=%zz&y=a+b&z={{}}&&p=http://h/&pad={'y' * 16_000}"
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                request = json.loads(fetch(proxy.address, target, version=version, headers={**headers, **padding}).body)
                self.assertEqual(request["target"], target)
                for name, value in {**headers, **padding}.items():
                    self.assertEqual(request["headers"][name.lower()], value)
                # Traefik encodes `;` as %3B.
                request = json.loads(fetch(proxy.address, "/a?x=1;2", version=version).body)
                self.assertEqual(urllib.parse.unquote(request["target"]), "/a?x=1;2")

    def test_a_large_body_is_forwarded(self):
        backend = self.start(Backend())
        proxy = self.proxy_for(self.bridge(backend.address))
        body = os.urandom(1 << 20) * 20
        file = self.folder() / "body"
        file.write_bytes(body)
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                request = json.loads(fetch(proxy.address, "/up", "--data-binary", f"@{file}", version=version).body)
                self.assertEqual(request["method"], "POST")
                self.assertEqual(request["bytes"], len(body))
                self.assertEqual(request["sha256"], hashlib.sha256(body).hexdigest())

    def test_the_bridge_can_refuse_a_body_early(self):
        backend = self.start(Backend())
        proxy = self.proxy_for(self.bridge(backend.address, LIMITS_BODY_BYTES="1024"))
        file = self.folder() / "body"
        # The bridge does not read more than 256 KiB of a refused body, and the response could be lost.
        file.write_bytes(b"x" * 100_000)
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                refused = fetch(proxy.address, "/up", "--data-binary", f"@{file}", version=version)
                self.assertEqual(refused.status, 413)
                self.assertIn("detail", json.loads(refused.body))

    def test_a_body_is_forwarded_while_it_is_sent(self):
        backend = self.start(Backend())
        proxy = self.proxy_for(self.bridge(backend.address))
        first, rest = b"x" * 1000, b"x" * 200_000
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                upload = ["-X", "POST", "-T", "-"]
                with CurlResponse(proxy.address, "/up", *upload, version=version, stdin=subprocess.PIPE) as reading:
                    reading.popen.stdin.write(first)
                    reading.popen.stdin.flush()
                    support.until(lambda: backend.received == len(first))
                    reading.popen.stdin.write(rest)
                    reading.popen.stdin.close()
                    self.assertEqual(json.loads(reading.end().body)["bytes"], len(first + rest))

    def test_connections_to_the_bridge_are_reused_and_a_post_is_not_retried(self):
        # A mock bridge, because the real one does not retry either.
        backend = self.start(Backend())
        proxy = self.start_proxy(backend.address)
        client = http.client.HTTPSConnection(proxy.address, timeout=support.TIMEOUT, context=CERTIFICATE.context())
        with contextlib.closing(client):
            client.request("GET", "/warm")
            client.getresponse().read()
            client.request("POST", "/again/drop", body=b"x")
            # HAProxy closes the connection, as a server may close a reused one.
            with contextlib.suppress(http.client.RemoteDisconnected):
                self.assertEqual(client.getresponse().status, 502)
        first = fetch(proxy.address, "/first/drop", "--data", "x")
        self.assertEqual(first.status, 502)
        self.assertNotIn("retry-after", first.headers)
        requests = [one for one in backend.requests if one[1] in ("/warm", "/again/drop", "/first/drop")]
        self.assertEqual([path for _, path, _ in requests], ["/warm", "/again/drop", "/first/drop"])
        self.assertEqual(requests[0][2], requests[1][2])

    def test_its_timeouts_exceed_those_of_the_bridge(self):
        text = "\n".join((support.DEPLOY / name).read_text() for name in self.proxy_class.files)
        text = re.sub(r"^\s*#.*", "", text, flags=re.MULTILINE)
        limits = support.defaults()
        for key, limit in self.proxy_class.timeouts.items():
            if limit is None:
                self.assertNotIn(key, text)
            else:
                # In Traefik, 0 is no limit.
                self.assertGreater(seconds(text, key) or math.inf, seconds_of(limits[f"limits.{limit}"]), key)
        # Idle connections are closed before the bridge closes them.
        for key in self.proxy_class.idle_timeouts:
            self.assertLess(seconds(text, key), seconds_of(limits["limits.client_idle"]), key)

    # WebSockets

    def test_a_page_uses_ws_through_it(self):
        replay = self.start(support.Replay("0.0.2.post1", "--speed", "max"))
        bridge = self.bridge(replay.address)
        proxy = self.proxy_for(bridge)
        direct = asyncio.run(ws_messages(f"ws://{bridge.address}/ws"))
        self.assertIn("pve3", "".join(direct))
        through = asyncio.run(ws_messages(f"wss://{proxy.address}/ws", ssl=CERTIFICATE.context()))
        self.assertEqual(through, direct)

    def test_other_websockets_are_tunnels(self):
        def console(socket):
            for message in socket:
                if message == "enough":
                    return socket.close(4001, "done")
                socket.send(message)

        # It would log errors about the readiness request.
        quiet = logging.Logger("quiet", logging.CRITICAL + 1)
        server = self.start(serve(console, "127.0.0.1", 0, subprotocols=["binary"], logger=quiet))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        bridge = self.bridge(f"127.0.0.1:{server.socket.getsockname()[1]}")
        proxy = self.proxy_for(bridge)
        asyncio.run(self.use_console(f"wss://{proxy.address}/console/100?ticket=%2B"))

    async def use_console(self, url):
        async with asyncio.timeout(support.TIMEOUT):
            async with connect(url, ssl=CERTIFICATE.context(), subprotocols=["binary"], proxy=None) as socket:
                self.assertEqual(socket.subprotocol, "binary")
                for message in ["text", b"\x00\xff", "x" * 300_000]:
                    await socket.send(message)
                    self.assertEqual(await socket.recv(), message)
                await socket.send("enough")
                with self.assertRaises(ConnectionClosed) as closed:
                    await socket.recv()
        self.assertEqual((closed.exception.rcvd.code, closed.exception.rcvd.reason), (4001, "done"))

    # The admin listener

    def test_admin_paths_on_the_client_port_reach_the_backend(self):
        backend = self.start(Backend())
        proxy = self.proxy_for(self.bridge(backend.address))
        for method, path in [("GET", "/livez"), ("GET", "/metrics"), ("GET", "/jobs"), ("POST", "/reload")]:
            request = json.loads(fetch(proxy.address, path, "-X", method).body)
            self.assertEqual((request["method"], request["target"]), (method, path))

    def test_operators_sign_in_through_the_admin_file(self):
        token = "0123456789abcdef"
        file = self.folder() / "token"
        file.write_text(token)
        backend = self.start(Backend())
        bridge = self.bridge(backend.address, ADMIN_TOKEN_FILE=file)
        proxy = self.start_proxy(bridge.address, admin=bridge.admin, live=bridge.admin)
        name = f"{NAME}:{port(proxy.admin_address)}"

        def get(path, *more, **headers):
            resolved = ["--resolve", f"{name}:127.0.0.1"]
            return fetch(name, path, *resolved, *more, headers={"Origin": f"https://{name}", **headers})

        # The admin listener is on a loopback address, but a request with a host name needs the token.
        self.assertEqual(get("/jobs").status, 401)
        self.assertEqual(get("/jobs", Authorization=f"Bearer {token}").status, 200)
        # The origin is that of the site.
        self.assertEqual(get("/reload", "-X", "POST", Authorization=f"Bearer {token}").status, 200)
        signed_in = get("/session", "--data", f"token={token}")
        self.assertEqual((signed_in.status, signed_in.headers["location"]), (303, "/"))
        cookie = signed_in.headers["set-cookie"]
        self.assertIn("secure", cookie.lower())
        self.assertEqual(get("/jobs", Cookie=cookie.partition(";")[0]).status, 200)

    def test_the_page_works_under_a_path(self):
        file = self.folder() / "token"
        file.write_text("0123456789abcdef")
        backend = self.start(Backend())
        bridge = self.bridge(backend.address, ADMIN_TOKEN_FILE=file, ADMIN_BASE_PATH="/proxbox-bridge/")
        options = {"admin": bridge.admin, "live": bridge.admin, "path": "/proxbox-bridge"}
        proxy = self.start_proxy(bridge.address, **options)
        headers = {"Origin": f"https://{proxy.admin_address}"}

        def get(path, *more):
            return fetch(proxy.admin_address, path, *more, headers=headers)

        moved = get("/proxbox-bridge")
        self.assertIn(moved.status, (301, 308))
        self.assertTrue(moved.headers["location"].endswith("/proxbox-bridge/"), moved.headers)
        self.assertIn(b'action="session"', get("/proxbox-bridge/").body)
        signed_in = get("/proxbox-bridge/session", "--data", "token=0123456789abcdef")
        self.assertEqual((signed_in.status, signed_in.headers["location"]), (303, "/proxbox-bridge/"))
        cookie = signed_in.headers["set-cookie"]
        self.assertIn("Path=/proxbox-bridge/;", cookie)
        headers["Cookie"] = cookie.partition(";")[0]
        page = get("/proxbox-bridge/")
        self.assertEqual(page.status, 200)
        links = re.findall(rb' (?:href|src)="([^"#:]+)"', page.body)
        self.assertGreater(len(links), 20)
        for link in links:
            self.assertEqual(get(f"/proxbox-bridge/{link.decode()}").status, 200, link)
        # What is not under the path is not for the bridge.
        self.assertNotIn(b"results", get("/jobs").body)
        with CurlResponse(proxy.admin_address, "/proxbox-bridge/events", headers=headers) as events:
            events.wait_for(lambda events: b"event: bridge\n" in events.body)

    def test_the_admin_file_forwards_the_token_and_the_events_of_jobs(self):
        # A mock admin listener.
        listener = self.start(Backend())
        bridge = self.start(Backend())
        proxy = self.start_proxy(bridge.address, admin=listener.address)
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                request = json.loads(fetch(proxy.admin_address, "/jobs", version=version).body)
                self.assertNotIn("authorization", request["headers"])
                self.assertEqual(request["headers"]["host"], proxy.admin_address)
                token = {"Authorization": "Bearer 0123456789abcdef", "X-Forwarded-For": "203.0.113.9"}
                request = json.loads(fetch(proxy.admin_address, "/jobs", version=version, headers=token).body)
                self.assertEqual(request["headers"]["authorization"], "Bearer 0123456789abcdef")
                self.assertEqual(request["headers"]["x-forwarded-for"], "127.0.0.1")
                in_lockstep(listener, proxy.admin_address, "/jobs/1/stream", version=version)


class CustomErrorTests(ProxyTests):
    """Tests for all proxies but Traefik, which cannot send custom errors."""

    def test_requests_get_503_while_the_bridge_is_down(self):
        proxy = self.start_proxy(free_address())
        for version in HTTP_VERSIONS:
            with self.subTest(http=version):
                away = fetch(proxy.address, "/health", version=version)
                self.assertEqual(away.status, 503)
                self.assertEqual(away.headers["retry-after"], "30")
                self.assertEqual(away.headers["content-type"], "application/json")
                self.assertEqual(sorted(json.loads(away.body)), ["detail", "message"])

    def test_streams_over_http_1_0_are_refused(self):
        backend = self.start(Backend())
        proxy = self.proxy_for(self.bridge(backend.address))
        for path in (STREAM, f"{STREAM}/"):
            old = fetch(proxy.address, path, "--no-alpn", version="1.0")
            self.assertEqual(old.status, 505)
            # The bridge gives a code, too.
            self.assertEqual(set(json.loads(old.body)) - {"code"}, {"detail", "message"})
        self.assertEqual(fetch(proxy.address, "/other", "--no-alpn", version="1.0").status, 200)

    def test_no_headers_are_added_to_a_request(self):
        backend = self.start(Backend())
        proxy = self.proxy_for(self.bridge(backend.address))
        request = json.loads(fetch(proxy.address, "/what", "-H", "Accept:", "-H", "User-Agent:").body)["headers"]
        of_the_bridge = {"via", "x-request-id", "traceparent"}
        of_the_proxy = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
        self.assertEqual(set(request), {"host"} | of_the_bridge | of_the_proxy)


class NginxTest(CustomErrorTests, unittest.TestCase):
    proxy_class = Nginx


class CaddyTest(CustomErrorTests, unittest.TestCase):
    proxy_class = Caddy


class HaproxyTest(CustomErrorTests, unittest.TestCase):
    proxy_class = Haproxy

    def test_frames_are_delayed_without_http_no_delay(self):
        backend = self.start(Backend())
        bridge = self.bridge(backend.address)
        # HAProxy 2.6 corks only connections without TLS.
        plain = {f" ssl crt {Haproxy.certificate} alpn h2,http/1.1": " "}
        took = {}
        for name, changed in [("with", {}), ("without", {"    option http-no-delay\n": ""})]:
            proxy = self.start_proxy(bridge.address, changed={**plain, **changed})
            began = time.monotonic()
            in_lockstep(backend, proxy.address, "/log/stream", plain=True)
            took[name] = time.monotonic() - began
        # The kernel delays each frame by at least 0.1 s.
        self.assertGreater(took["without"], Backend.FRAMES * 0.1)
        self.assertLess(took["with"], took["without"] / 2)


class TraefikTest(ProxyTests, unittest.TestCase):
    proxy_class = Traefik

    def test_requests_get_503_while_the_bridge_is_down(self):
        proxy = self.start_proxy(free_address())
        # It answers 502 until the first health check.
        support.until(lambda: fetch(proxy.address, "/health").status == 503)

    def test_streams_over_http_1_0_are_not_refused(self):
        # A limitation that deploy/README.md describes. If this fails, update it.
        backend = self.start(Backend())
        proxy = self.proxy_for(self.bridge(backend.address))
        for _ in range(Backend.FRAMES):
            backend.seen.release()
        old = fetch(proxy.address, "/log/stream", "--no-alpn", version="1.0")
        self.assertEqual((old.version, old.status), ("HTTP/1.0", 200))


def record(bridge, job):
    """The record of a job."""
    _, _, body = support.get(bridge.admin, f"/jobs/{job}")
    return json.loads(body)


def in_lockstep(backend, address, path, **options):
    """Reads the stream of `backend`, which sends a frame only after the previous one was received."""
    with CurlResponse(address, path, **options) as reading:
        for number in range(backend.FRAMES):
            reading.wait_for(lambda reading: f"data: {number}\n\n".encode() in reading.body)
            backend.seen.release()
        reading.end()
        if reading.events != [f"data: {number}" for number in range(backend.FRAMES)]:
            raise AssertionError(f"unexpected events: {reading.events}")


def seconds(text, key):
    """The value of `key` in a configuration, in seconds."""
    (value,) = re.findall(rf"^\s*{key}:? +(\w+);?$", text, flags=re.MULTILINE)
    return seconds_of(value)


def seconds_of(duration):
    parts = [re.fullmatch(r"(\d+)([smh])", part).groups() for part in duration.split()]
    return sum(int(amount) * {"s": 1, "m": 60, "h": 3600}[unit] for amount, unit in parts)


async def ws_messages(url, **options):
    """The messages of a sync of the nodes over /ws."""
    messages = []
    async with asyncio.timeout(support.TIMEOUT), connect(url, proxy=None, **options) as socket:
        messages.append(await socket.recv())
        await socket.send("Sync Nodes")
        while messages[-1] != '{"object":"device","end":true}':
            messages.append(await socket.recv())
    return messages


if __name__ == "__main__":
    unittest.main()
