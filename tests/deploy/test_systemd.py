"""The systemd units: verification, sd_notify, socket activation, and the bridge under a booted systemd.

The last class boots systemd in a container without a network, on a temporary overlay of this machine. It needs root,
curl and systemd-nspawn (Debian: systemd-container).
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import tomllib
import unittest

from support import (
    BRIDGE,
    DEPLOY,
    RECORDINGS,
    SYSTEM_PATH,
    TIMEOUT,
    Bridge,
    Process,
    Replay,
    contained,
    free_port,
    get,
    until,
)

UNITS = DEPLOY / "systemd"
SERVICE = UNITS / "proxbox-bridge.service"
SAMPLE = DEPLOY / "proxbox-bridge.toml"
# The highest exposure level that `systemd-analyze security` may report, in tenths; 100 is an unprotected service.
EXPOSURE = 12
# Time for the last bytes and records after the drain, in seconds.
CLOSING = 20


def output(*command, **options):
    """The output and standard error of a command, which must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
        **options,
    )
    if done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def directives(unit):
    """The directives `key=value` of a unit, in order."""
    lines = unit.read_text().splitlines()
    return [tuple(line.split("=", 1)) for line in lines if re.match(r"[A-Za-z]+=", line)]


def assignments(text):
    """The variables of an environment file, including those that are commented out."""
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", text, re.MULTILINE))


def run_check(environment):
    """The exit code and the verdict of `check` with these variables, and its output."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PROXBOX_BRIDGE_")}
    done = subprocess.run(
        [BRIDGE, "check", "--json"],
        env={**clean, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return (done.returncode, json.loads(done.stdout)["verdict"]), done.stdout + done.stderr


class Units(unittest.TestCase):
    def setUp(self):
        """Creates a root directory with the files that the units need, and the units of systemd."""
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="proxbox-bridge-units-"))
        self.addCleanup(shutil.rmtree, self.root)
        own = self.root / "etc/systemd/system"
        (own / "proxbox-bridge.service.d").mkdir(parents=True)
        for name in ["proxbox-bridge.service", "proxbox-bridge.socket", "proxbox-bridge-admin.socket"]:
            shutil.copy(UNITS / name, own)
        shutil.copy(UNITS / "credentials.conf", own / "proxbox-bridge.service.d")
        shutil.copytree("/lib/systemd/system", self.root / "lib/systemd/system", symlinks=True)
        for program in ["/usr/local/bin/proxbox-bridge", "/bin/kill"]:
            there = self.root / program[1:]
            there.parent.mkdir(parents=True, exist_ok=True)
            there.touch(0o755)

    def analyze(self, verb, *arguments):
        return output("systemd-analyze", verb, f"--root={self.root}", *arguments)

    def test_systemd_analyze_verify_reports_nothing(self):
        for name in ["proxbox-bridge.service", "proxbox-bridge.socket", "proxbox-bridge-admin.socket"]:
            with self.subTest(name):
                self.assertEqual(self.analyze("verify", "--man=no", name), "")

    def test_the_exposure_level_stays_low(self):
        arguments = ["--offline=true", f"--threshold={EXPOSURE}", "--no-pager", "proxbox-bridge.service"]
        self.assertIn("Overall exposure level", self.analyze("security", *arguments))

    def test_the_socket_units_belong_to_the_service_and_have_its_descriptor_names(self):
        for name, descriptor in [("proxbox-bridge.socket", "listen"), ("proxbox-bridge-admin.socket", "admin")]:
            unit = dict(directives(UNITS / name))
            self.assertEqual(unit["FileDescriptorName"], descriptor)
            self.assertEqual(unit.get("Service", name.replace(".socket", ".service")), SERVICE.name)
            # The sockets have the addresses of the sample configuration.
            key = {"listen": "listen", "admin": "admin_listen"}[descriptor]
            self.assertEqual(unit["ListenStream"], tomllib.loads(SAMPLE.read_text())[key])

    def test_the_stop_timeout_covers_the_drain_and_the_last_bytes(self):
        drain = tomllib.loads(SAMPLE.read_text())["limits"]["drain"]
        self.assertRegex(drain, r"^\d+s$")
        stop = int(dict(directives(SERVICE))["TimeoutStopSec"])
        self.assertGreaterEqual(stop, int(drain[:-1]) + CLOSING)

    def test_a_hung_bridge_is_killed(self):
        self.assertEqual(dict(directives(SERVICE))["WatchdogSignal"], "SIGKILL")

    def test_sysusers_creates_the_user_of_the_service(self):
        (self.root / "usr/lib/sysusers.d").mkdir(parents=True)
        shutil.copy(UNITS / "proxbox-bridge.sysusers.conf", self.root / "usr/lib/sysusers.d/proxbox-bridge.conf")
        output("systemd-sysusers", f"--root={self.root}")
        (line,) = (self.root / "etc/passwd").read_text().splitlines()
        name, _, uid, _, _, home, shell = line.split(":")
        service = dict(directives(SERVICE))
        self.assertEqual((name, name), (service["User"], service["Group"]))
        self.assertNotEqual(uid, "0")
        self.assertEqual(home, "/var/lib/" + service["StateDirectory"])
        self.assertTrue(shell.endswith("/nologin"), shell)


class Variables(unittest.TestCase):
    """The variables of the environment file and of the units, checked by the bridge."""

    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="proxbox-bridge-variables-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.environment = assignments((UNITS / "proxbox-bridge.env").read_text())
        for unit in [SERVICE, UNITS / "credentials.conf"]:
            text = unit.read_text()
            self.environment.update(re.findall(r"^#?Environment=(\w+)=(.*)$", text, re.MULTILINE))
        # Replaces files and directories that do not exist on this machine.
        for number, name in enumerate(self.environment):
            if name.endswith("_FILE"):
                secret = self.directory / name
                secret.write_text(f"{number:032x}\n")
                secret.chmod(0o600)
                self.environment[name] = str(secret)
        self.environment["PROXBOX_BRIDGE_DATA_DIR"] = str(self.directory / "data")
        # A closed port: the backend is not under test.
        self.environment["PROXBOX_BRIDGE_BACKEND_URL"] = f"http://127.0.0.1:{free_port()}"

    def test_the_bridge_accepts_every_variable_and_sample(self):
        self.assertIn("PROXBOX_BRIDGE_ADMIN_TOKEN_FILE", self.environment)
        result, output_text = run_check(self.environment)
        self.assertEqual(result, (1, "failed"), output_text)

    def test_an_unknown_variable_is_refused(self):
        result, output_text = run_check({**self.environment, "PROXBOX_BRIDGE_LIMITS_DRAINS": "30s"})
        self.assertEqual(result, (78, "misconfigured"), output_text)

    def test_every_sample_is_commented_out_and_has_a_comment(self):
        lines = (UNITS / "proxbox-bridge.env").read_text().splitlines()
        for before, line in zip(lines, lines[1:]):
            if assignments(line):
                self.assertTrue(line.startswith("#PROXBOX_BRIDGE_"), line)
                self.assertTrue(before.startswith("# "), f"{line} has no comment")


def reloads(metrics):
    """The number of configuration reloads, by result."""
    counts = re.findall(r'^proxbox_bridge_reloads_total\{result="(\w+)"\} (\d+)$', metrics, re.MULTILINE)
    return {result: int(count) for result, count in counts}


class Manager:
    """A service manager for sd_notify: a datagram socket."""

    def __init__(self, test):
        directory = tempfile.mkdtemp(prefix="proxbox-bridge-notify-")
        test.addCleanup(shutil.rmtree, directory)
        self.path = os.path.join(directory, "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        test.addCleanup(self._socket.close)
        self._socket.bind(self.path)
        self.received = []

    def wait_for(self, wanted):
        """Waits for a message with the line `wanted`; returns its assignments."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                lines = self._socket.recv(65536).decode().splitlines()
            except TimeoutError:
                raise AssertionError(f"did not receive {wanted}, but {self.received}") from None
            self.received.append(lines)
            if wanted in lines:
                return dict(line.split("=", 1) for line in lines)


def now():
    """CLOCK_MONOTONIC in microseconds, as in MONOTONIC_USEC."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


class Notify(unittest.TestCase):
    def setUp(self):
        self.manager = Manager(self)
        self.file = pathlib.Path(self.manager.path).with_name("proxbox-bridge.toml")
        self.configure("")

    def configure(self, more):
        self.file.write_text(
            'listen = "127.0.0.1:0"\nadmin_listen = "127.0.0.1:0"\n'
            f'backend = {{ url = "http://127.0.0.1:{free_port()}" }}\n{more}'
        )

    def start(self, **environment):
        bridge = Bridge("--config", self.file, env={"NOTIFY_SOCKET": self.manager.path, **environment})
        self.addCleanup(bridge.stop)
        self.manager.wait_for("READY=1")
        return bridge

    def reload(self, bridge):
        before = now()
        bridge.popen.send_signal(signal.SIGHUP)
        reloading = self.manager.wait_for("RELOADING=1")
        self.assertTrue(before <= int(reloading["MONOTONIC_USEC"]) <= now(), reloading)
        self.manager.wait_for("READY=1")

    def test_it_is_ready_when_it_listens(self):
        bridge = self.start()
        # No retry: units that are ordered after it make none.
        self.assertEqual(get(bridge.admin, "/livez")[0], 200)

    def test_a_reload_is_announced_and_ends(self):
        bridge = self.start()
        self.reload(bridge)
        until(lambda: reloads(get(bridge.admin, "/metrics")[2]) == {"success": 1, "failure": 0})

    def test_a_failed_reload_ends_too(self):
        bridge = self.start()
        self.configure("limits = { no_such_limit = 1 }\n")
        self.reload(bridge)
        until(lambda: reloads(get(bridge.admin, "/metrics")[2]) == {"success": 0, "failure": 1})

    def test_it_announces_that_it_stops(self):
        bridge = self.start()
        bridge.popen.send_signal(signal.SIGTERM)
        self.manager.wait_for("STOPPING=1")
        self.assertEqual(bridge.stop(), 0)

    def test_it_feeds_the_watchdog(self):
        self.start(WATCHDOG_USEC="1000000")
        # Repeatedly: the first one could be that of the start.
        for _ in range(4):
            self.manager.wait_for("WATCHDOG=1")

    def test_it_runs_without_a_manager(self):
        # Without NOTIFY_SOCKET.
        with Bridge("--config", self.file, env={"WATCHDOG_USEC": "1000000"}) as bridge:
            self.assertEqual(get(bridge.admin, "/livez")[0], 200)
        self.assertEqual(bridge.popen.returncode, 0)


class Activation(unittest.TestCase):
    """Socket activation."""

    def activated(self, names, *arguments):
        """Starts systemd-socket-activate, which executes the bridge on the first connection."""
        addresses = [f"127.0.0.1:{free_port()}" for _ in names]
        listening = [f"--listen={address}" for address in addresses]
        command = ["systemd-socket-activate", *listening, f"--fdname={':'.join(names)}", BRIDGE, "serve"]
        process = Process(*command, *arguments)
        self.addCleanup(process.stop)
        return process, addresses

    def test_clients_and_operators_are_served_on_passed_sockets(self):
        with Replay("0.0.2.post1", "--speed", "50") as backend:
            sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
            for one in sockets:
                self.addCleanup(one.close)
            # These addresses are in use, so the bridge must not bind them.
            first, second = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
            arguments = ["--backend", f"http://{backend.address}", "--listen", first, "--admin-listen", second]
            _, (clients, operators) = self.activated(["listen", "admin"], *arguments)
            status, _, body = until(lambda: get(clients, "/full-update/stream"))
            self.assertEqual(status, 200)
            self.assertRegex(body, r'event: complete\ndata: \{"ok": true')
            self.assertEqual(get(operators, "/livez")[0], 200)

    def test_one_socket_may_be_passed_and_the_other_bound(self):
        admin = f"127.0.0.1:{free_port()}"
        arguments = ["--backend", f"http://127.0.0.1:{free_port()}", "--admin-listen", admin]
        process, (clients,) = self.activated(["listen"], *arguments)
        until(lambda: get(clients, "/health"))
        self.assertEqual(get(admin, "/livez")[0], 200)
        self.assertEqual(process.stop(), 0)

    def test_an_unused_socket_is_a_configuration_error(self):
        own = f"[backend]\nurl = 'http://127.0.0.1:{free_port()}'\nlisten = '127.0.0.1:{free_port()}'\n"
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(own)
            file.flush()
            for names, wanted in [(["listen"], "called listen"), (["clients"], "FileDescriptorName")]:
                process, (address,) = self.activated(names, "--config", file.name)
                with self.subTest(names), socket.create_connection(("127.0.0.1", port_of(address, process))):
                    self.assertTrue(process.wait_for_line(lambda line, wanted=wanted: wanted in line))
                    self.assertEqual(process.popen.wait(TIMEOUT), 78)


def port_of(address, process):
    """The port of `address`, once `process` listens there."""
    process.wait_for_line(lambda line: "Listening on" in line)
    return int(address.rpartition(":")[2])


BOOT = """
mount -t tmpfs -o mode=755 machine "$1"
mkdir "$1/changes" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/changes,workdir=$1/work" machine "$1/root"
shift
exec "$@"
"""


class Machine:
    """A booted systemd with the programs of this machine, but none of its services."""

    def __init__(self, binds):
        self.directory = tempfile.mkdtemp(prefix="proxbox-bridge-machine-")
        place = pathlib.Path(self.directory)
        (place / "tree").mkdir()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(place / "ready"))
            ready.settimeout(TIMEOUT)
            self.process = Process(
                # The mounts exist only in its namespace.
                *["unshare", "--mount", "--propagation", "private", "sh", "-ec", BOOT, "sh", place / "tree"],
                *["systemd-nspawn", "--quiet", f"--directory={place / 'tree/root'}", f"--machine=bridge{os.getpid()}"],
                *["--register=no", "--keep-unit", "--private-network", "--link-journal=no", "--console=pipe"],
                *[f"--bind-ro={there}:{here}" for here, there in binds.items()],
                *["--notify-ready=yes", "--boot", "--", "systemd.unit=basic.target"],
                env={"NOTIFY_SOCKET": str(place / "ready")},
            )
            messages = ""
            try:
                while "READY=1" not in messages.splitlines():
                    messages += ready.recv(65536).decode() + "\n"
            except TimeoutError:
                self.stop()
                raise AssertionError(f"it did not boot: {messages}{''.join(self.process.lines)}") from None
        self.leader = re.search(r"^X_NSPAWN_LEADER_PID=(\d+)$", messages, re.MULTILINE)[1]

    def run(self, *command):
        """The output of a command in the machine, which must succeed."""
        return output("nsenter", f"--target={self.leader}", "--all", *command, env=SYSTEM_PATH)

    def shell(self, script):
        return self.run("sh", "-euc", script)

    def shown(self, *properties, unit="proxbox-bridge.service"):
        lines = self.run("systemctl", "show", unit, *[f"--property={name}" for name in properties]).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def log(self):
        return self.run("journalctl", "--no-pager", "--output=cat", "--unit=proxbox-bridge.service")

    def stop(self):
        self.process.stop()
        shutil.rmtree(self.directory)


@contained
class UnderSystemd(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.machine = Machine({"/srv/deploy": DEPLOY, "/srv/recordings": RECORDINGS, "/srv/proxbox-bridge": BRIDGE})
        cls.addClassCleanup(cls.machine.stop)
        cls.machine.shell("""
            install -m 755 /srv/proxbox-bridge /usr/local/bin/proxbox-bridge
            install -D -m 644 /srv/deploy/systemd/proxbox-bridge.sysusers.conf /usr/lib/sysusers.d/proxbox-bridge.conf
            systemd-sysusers
            install -D -m 644 /srv/deploy/proxbox-bridge.toml /etc/proxbox-bridge/proxbox-bridge.toml
            install -m 600 /srv/deploy/systemd/proxbox-bridge.env /etc/proxbox-bridge/proxbox-bridge.env
            install -m 644 /srv/deploy/systemd/*.service /srv/deploy/systemd/*.socket /etc/systemd/system/
            systemd-run --quiet --unit=backend --property=Type=exec /usr/local/bin/proxbox-bridge \\
                replay /srv/recordings/0.0.2.post1 --listen 127.0.0.1:8802 --speed 50
        """)

    def setUp(self):
        self.addCleanup(self.reset)
        self.machine.run("systemctl", "daemon-reload")

    def reset(self):
        self.machine.shell("""
            systemctl stop proxbox-bridge.socket proxbox-bridge-admin.socket proxbox-bridge.service
            systemctl reset-failed
            rm -rf /etc/systemd/system/proxbox-bridge.service.d
            install -m 644 /srv/deploy/proxbox-bridge.toml /etc/proxbox-bridge/proxbox-bridge.toml
            journalctl --quiet --rotate --vacuum-time=1s
        """)

    def drop_in(self, text):
        self.machine.shell(f"""
            mkdir -p /etc/systemd/system/proxbox-bridge.service.d
            printf '%s' '{text}' >/etc/systemd/system/proxbox-bridge.service.d/test.conf
            systemctl daemon-reload
        """)

    def drain(self, value):
        """Changes limits.drain in the configuration."""
        self.machine.run("sed", "-i", f's/^drain = .*/drain = "{value}"/', "/etc/proxbox-bridge/proxbox-bridge.toml")

    def curl(self, *arguments):
        return self.machine.run("curl", "--silent", "--show-error", "--no-buffer", "--max-time", TIMEOUT, *arguments)

    def test_it_runs_in_the_sandbox_of_the_unit(self):
        self.machine.run("systemctl", "start", "proxbox-bridge")
        # Started means ready: no retry.
        self.curl("--fail", "http://127.0.0.1:8801/livez")
        stream = self.curl("--fail", "http://127.0.0.1:8800/full-update/stream")
        self.assertRegex(stream, r'event: complete\ndata: \{"ok": true')

        shown = self.machine.shown("MainPID", "ActiveState", "NRestarts")
        self.assertEqual((shown["ActiveState"], shown["NRestarts"]), ("active", "0"))
        status = self.machine.run("cat", f"/proc/{shown['MainPID']}/status")
        status = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        uid = self.machine.run("id", "-u", "proxbox-bridge").strip()
        self.assertEqual(set(status["Uid"].split()), {uid})
        self.assertNotEqual(uid, "0")
        self.assertEqual(int(status["CapBnd"], 16), 0)
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))

        # The ledger exists, and only the user of the service can read it.
        kept = self.machine.run("find", "/var/lib/proxbox-bridge", "-printf", "%U %m %f\n").splitlines()
        self.assertIn(f"{uid} 600 ledger.sqlite3", kept)
        self.assertIn(f"{uid} 700 proxbox-bridge", kept)

    def test_a_reload_applies_the_new_configuration_and_an_invalid_one_changes_nothing(self):
        self.drop_in("[Service]\nEnvironment=PROXBOX_BRIDGE_ADMIN_OPEN_METRICS=on\n")
        self.machine.run("systemctl", "start", "proxbox-bridge")
        pid = self.machine.shown("MainPID")
        for value, counts in [("29s", {"success": 1, "failure": 0}), ("late", {"success": 1, "failure": 1})]:
            self.drain(value)
            self.machine.run("systemctl", "reload", "proxbox-bridge")
            until(lambda counts=counts: reloads(self.curl("http://127.0.0.1:8801/metrics")) == counts)
            # The reload has ended for systemd.
            until(lambda: self.machine.shown("SubState") == {"SubState": "running"})
        self.assertEqual(self.machine.shown("MainPID"), pid)

    def test_it_is_stopped_without_a_failure(self):
        self.machine.run("systemctl", "start", "proxbox-bridge")
        self.machine.run("systemctl", "stop", "proxbox-bridge")
        self.assertEqual(self.machine.shown("Result", "ExecMainStatus"), {"Result": "success", "ExecMainStatus": "0"})

    def test_a_hung_bridge_is_restarted(self):
        self.drop_in("[Service]\nWatchdogSec=2\nRestartSec=0\n")
        self.machine.run("systemctl", "start", "proxbox-bridge")
        pid = self.machine.shown("MainPID")["MainPID"]
        # After more than WatchdogSec=, only the keep-alive messages explain that it still runs.
        watchdog = "WatchdogTimestampMonotonic"
        begin = int(self.machine.shown(watchdog)[watchdog])
        until(lambda: int(self.machine.shown(watchdog)[watchdog]) > begin + 3_000_000)
        self.assertEqual(self.machine.shown("MainPID", "NRestarts"), {"MainPID": pid, "NRestarts": "0"})

        self.machine.run("kill", "-STOP", pid)
        until(lambda: self.machine.shown("NRestarts", "ActiveState") == {"NRestarts": "1", "ActiveState": "active"})
        self.assertIn("Watchdog timeout", self.machine.log())
        self.curl("--fail", "http://127.0.0.1:8801/livez")

    def test_an_invalid_configuration_is_not_restarted(self):
        self.drain("late")
        with self.assertRaises(AssertionError):
            self.machine.run("systemctl", "start", "proxbox-bridge")
        shown = self.machine.shown("ActiveState", "ExecMainStatus", "NRestarts")
        self.assertEqual(shown, {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"})
        self.assertIn("limits.drain", self.machine.log())

    def test_the_sockets_start_it_and_outlive_it(self):
        self.machine.run("systemctl", "start", "proxbox-bridge.socket", "proxbox-bridge-admin.socket")
        self.assertEqual(self.machine.shown("ActiveState")["ActiveState"], "inactive")
        self.assertRegex(self.curl("http://127.0.0.1:8800/full-update/stream"), r'"ok": true')
        self.curl("--fail", "http://127.0.0.1:8801/livez")
        self.assertEqual(self.machine.shown("ActiveState")["ActiveState"], "active")
        # Connections during the restart wait instead of being refused.
        self.machine.shell("""
            systemctl restart --no-block proxbox-bridge
            for i in $(seq 50); do
                curl --silent --show-error --fail --max-time 60 --output /dev/null http://127.0.0.1:8800/health
            done
        """)
        until(lambda: self.machine.shown("ActiveState")["ActiveState"] == "active")

    def test_the_token_is_a_credential_that_only_root_can_read(self):
        self.machine.shell("""
            (umask 077; head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n' >/etc/proxbox-bridge/admin-token)
            install -D -m 644 /srv/deploy/systemd/credentials.conf \\
                /etc/systemd/system/proxbox-bridge.service.d/credentials.conf
            systemctl daemon-reload
        """)
        self.machine.run("systemctl", "start", "proxbox-bridge")
        self.curl("--fail", "http://127.0.0.1:8801/livez")
        with self.assertRaises(AssertionError):
            self.curl("--fail", "http://127.0.0.1:8801/metrics")
        token = self.machine.run("cat", "/etc/proxbox-bridge/admin-token")
        bearer = f"Authorization: Bearer {token}"
        self.assertIn("proxbox_bridge_", self.curl("--fail", "--header", bearer, "http://127.0.0.1:8801/metrics"))
        mode = self.machine.run("stat", "--format=%U %a", "/etc/proxbox-bridge/admin-token").strip()
        self.assertEqual(mode, "root 600")


if __name__ == "__main__":
    unittest.main()
