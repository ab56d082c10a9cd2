"""Starts the bridge, recorded backends and other programs, and waits for conditions.

Every test stops the processes that it started. All of them listen on free loopback ports.
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
# Tests that boot a system or run an image need root, namespaces and more programs.
contained = unittest.skipUnless(os.environ.get("CONTAINERS"), "`tests/deploy/run --containers` runs it")
# For programs in another root, where the PATH of the tests does not exist.
SYSTEM_PATH = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
# Time limit of every wait, in seconds, on a busy machine.
TIMEOUT = 60


def defaults():
    """The default of every configuration key that has one, as text."""
    rows = re.findall(r"^\| `([\w.]+)` \| `([^`]+)` \|", (DEPLOY / "configuration.md").read_text(), re.MULTILINE)
    return dict(rows)


class Process:
    """A program that runs until the end of the test, with its lines of output and standard error."""

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
        self._queue = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.popen.stdout:
            self.lines.append(line)
            self._queue.put(line)
        self._queue.put(None)

    def wait_for_line(self, wanted):
        """Waits for the next line for which `wanted` returns a true value, and returns that value."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                line = self._queue.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"{self.command} did not print the expected line:\n{''.join(self.lines)}")
            found = wanted(line)
            if found:
                return found

    def stop(self):
        """Terminates it and waits; returns its exit code."""
        if self.popen.poll() is None:
            self.popen.terminate()
        try:
            self.popen.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self._reader.join(TIMEOUT)
        self.popen.stdout.close()
        return self.popen.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def listening(key):
    """A predicate for `wait_for_line`: the address in the log line about the listener `key`."""

    def wanted(line):
        with contextlib.suppress(json.JSONDecodeError):
            fields = json.loads(line)
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
    """A bridge. `address` serves clients, `admin` is the admin listener."""

    def __init__(self, *arguments, **options):
        # Reads need no token, unless a test is about tokens.
        env = {"PROXBOX_BRIDGE_ADMIN_OPEN_READS": "on"} | options.pop("env", {})
        super().__init__(BRIDGE, "serve", *arguments, env=env, **options)
        self.address = self.wait_for_line(listening("listen"))
        self.admin = self.wait_for_line(listening("admin_listen"))

    @classmethod
    def for_backend(cls, backend, *arguments, **options):
        """A bridge in front of the backend at the address `backend`, without a cool-down."""
        listeners = ("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
        env = {"PROXBOX_BRIDGE_LIMITS_COOLDOWN": "0s"} | options.pop("env", {})
        return cls("--backend", f"http://{backend}", *listeners, *arguments, env=env, **options)


def free_port():
    """A free port. Call it late: another process may take the port before it is used."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def get(address, path, method="GET", headers=None):
    """The status, the headers and the body of a response."""
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()


def until(wanted):
    """Polls `wanted` until it returns a true value, and returns it. Connection errors count as false."""
    deadline = time.monotonic() + TIMEOUT
    last = None
    while time.monotonic() < deadline:
        try:
            last = wanted()
            if last:
                return last
        except (OSError, http.client.HTTPException) as error:
            last = error
        threading.Event().wait(0.05)
    raise AssertionError(f"timed out; last result: {last!r}")
