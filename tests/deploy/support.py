"""Starts the bridge, recorded backends and other programs, and waits for what they do.

Every process is ended by the test that started it. Everything listens on loopback, on ports that are free.
"""

import contextlib
import http.client
import json
import os
import pathlib
import queue
import re
import socket
import subprocess
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RECORDINGS = ROOT / "fixtures" / "recordings"
BRIDGE = pathlib.Path(os.environ["PROXBOX_BRIDGE_BINARY"])
# What boots a system or runs an image wants root, namespaces and programs that not every machine lets have.
contained = unittest.skipUnless(os.environ.get("CONTAINERS"), "`tests/deploy/run --containers` runs it")
# How long anything may take on a machine that does other things too, in seconds.
PATIENCE = 60


def defaults():
    """The default of every configuration key that has one, as a text."""
    rows = re.findall(r"^\| `([\w.]+)` \| `([^`]+)` \|", (DEPLOY / "configuration.md").read_text(), re.MULTILINE)
    return dict(rows)


class Process:
    """A program that runs until the test is over; its lines, standard error included, as they come."""

    def __init__(self, *command, **options):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PROXBOX_BRIDGE_")}
        environment.update(options.pop("env", {}))
        self.command = [str(part) for part in command]
        self.popen = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            **options,
        )
        self.lines = []
        self._coming = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.popen.stdout:
            self.lines.append(line)
            self._coming.put(line)
        self._coming.put(None)

    def wait_for_line(self, wanted):
        """The first line not yet waited for of which `wanted` gives something that is true; what it gives."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                line = self._coming.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"{self.command} did not say it:\n{''.join(self.lines)}")
            found = wanted(line)
            if found:
                return found

    def stop(self):
        """Asks it to end, and waits until it has."""
        if self.popen.poll() is None:
            self.popen.terminate()
        try:
            self.popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self._reader.join(PATIENCE)
        self.popen.stdout.close()
        return self.popen.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def listening(key):
    """What finds the address in a line of the log that says where `key` listens."""

    def wanted(line):
        with contextlib.suppress(json.JSONDecodeError):
            fields = json.loads(line).get("fields", {})
            if fields.get("message", "").startswith("Listening") and fields.get("key", key) == key:
                return fields["address"]
        return None

    return wanted


class Replay(Process):
    """A recorded backend, on `address`."""

    def __init__(self, recording, *arguments, listen="127.0.0.1:0"):
        super().__init__(BRIDGE, "replay", RECORDINGS / recording, "--listen", listen, *arguments)
        self.address = self.wait_for_line(listening("listen"))


class Bridge(Process):
    """A bridge; clients come to `address`, operators to `admin`."""

    def __init__(self, *arguments, **options):
        # What is read of it is read without a token, unless a test is about that.
        env = {"PROXBOX_BRIDGE_ADMIN_OPEN_READS": "on"} | options.pop("env", {})
        super().__init__(BRIDGE, "serve", *arguments, env=env, **options)
        self.address = self.wait_for_line(listening("listen"))
        self.admin = self.wait_for_line(listening("admin_listen"))

    @classmethod
    def before(cls, backend, *arguments, **options):
        """A bridge in front of the backend at the address `backend`, which does not go on with a job that has ended."""
        anywhere = ("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
        env = {"PROXBOX_BRIDGE_LIMITS_COOLDOWN": "0s"} | options.pop("env", {})
        return cls("--backend", f"http://{backend}", *anywhere, *arguments, env=env, **options)


def free_port():
    """A port that nobody listens on. Somebody else may take it before you do, so ask late."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def get(address, path, method="GET", headers=None):
    """The status, the headers and the body of an answer."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()


def until(wanted):
    """Asks until `wanted` gives something that is true, and gives that. A refused connection is not true."""
    deadline = time.monotonic() + PATIENCE
    last = None
    while time.monotonic() < deadline:
        try:
            last = wanted()
            if last:
                return last
        except (OSError, http.client.HTTPException) as error:
            last = error
        threading.Event().wait(0.05)
    raise AssertionError(f"it never came about; last: {last!r}")
