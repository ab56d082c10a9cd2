"""Starts and stops the services of the lab. All of them listen on free loopback ports only."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import httpx

import environments
import proxmox
import releases

HERE = pathlib.Path(__file__).resolve().parent
# Time for a service to start, in seconds, on a busy machine.
START_TIMEOUT = 180

NETBOX_TOKEN = "0123456789abcdef0123456789abcdef01234567"
API_KEY = "lab-proxbox-api-key-0123456789abcdef0123456789"
USER, USER_PASSWORD = "admin", "admin-of-the-lab"
# Placeholders of the secrets in recordings.
SECRETS = {
    NETBOX_TOKEN: "<netbox-token>",
    API_KEY: "<api-key>",
    proxmox.TOKEN_VALUE: "<proxmox-token>",
    proxmox.PASSWORD: "<proxmox-password>",
}

# Creates the user of NetBox, with an API token.
MAKE_USER = f"""
from django.contrib.auth import get_user_model
from users.models import Token
user = get_user_model().objects.create_superuser({USER!r}, "admin@example.invalid", {USER_PASSWORD!r})
Token(user=user, version=1, token={NETBOX_TOKEN!r}, write_enabled=True).save()
"""


class Failed(Exception):
    """A service or a command of the lab failed."""


def free_port(host="127.0.0.1"):
    """A free port. Call it late: another process may take the port before it is used."""
    with socket.socket() as taken:
        taken.bind((host, 0))
        return taken.getsockname()[1]


class Service:
    """A program that runs until it is stopped. Its output is in the file `log`."""

    stop_signal = signal.SIGTERM
    # Time for it to exit, in seconds.
    grace = 30

    def __init__(self, command, log, *, env=None, **options):
        self.command = [str(part) for part in command]
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                # Ctrl-C goes to the lab only, which stops the services in order.
                start_new_session=True,
                **options,
            )

    def wait_until(self, ready):
        """Waits until `ready` returns a true value, and returns it. Fails if the program exits."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            found = ready()
            if found:
                return found
            time.sleep(0.2)
        end = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        self.stop()
        raise Failed(f"{' '.join(self.command)} did not start. The end of {self.log}:\n{end}")

    def wait_for_http(self, url):
        """Waits until the program responds at `url`, with any status."""

        def ready():
            try:
                return httpx.get(url, timeout=10, verify=False)
            except httpx.HTTPError:
                return None

        self.wait_until(ready)

    def stop(self):
        """Stops the program and waits for it; kills its process group after `grace` seconds."""
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(self.grace)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Postgres(Service):
    """PostgreSQL. It does not run as root. Its databases are kept for the next run."""

    # A fast shutdown: closes connections.
    stop_signal = signal.SIGINT

    def __init__(self, home, log):
        programs = max(
            pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)
        )
        user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        if not (home / "PG_VERSION").is_file():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(mode=0o700, parents=True)
            if user:
                shutil.chown(home, "postgres", "postgres")
            initdb = [programs / "initdb", "-D", home, "-A", "trust", "-U", "postgres", "-E", "UTF8"]
            done = subprocess.run(
                [*initdb, "--locale=C.UTF-8"], capture_output=True, text=True, cwd="/", **user
            )
            if done.returncode:
                shutil.rmtree(home)
                hint = "The user postgres must have access to $LAB_ROOT." if user else ""
                raise Failed(f"initdb: {done.stderr.strip()} {hint}")
        self.port = free_port()
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        options = [word for setting in settings.items() for word in ("-c", "=".join(setting))]
        super().__init__([programs / "postgres", "-D", home, "-p", self.port, *options], log, cwd="/", **user)
        self.wait_until(lambda: self.query("select 1", quiet=True))

    def psql(self, *arguments, database="postgres"):
        command = ["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database]
        return subprocess.run([*command, "-X", "-q", *arguments], capture_output=True, text=True)

    def query(self, sql, database="postgres", *, quiet=False):
        """The rows of the result, as lists of strings."""
        done = self.psql("-v", "ON_ERROR_STOP=1", "-At", "-F", "\t", "-c", sql, database=database)
        if done.returncode and not quiet:
            raise Failed(f"{sql}: {done.stderr.strip()}")
        return [line.split("\t") for line in done.stdout.splitlines()]

    def has(self, database):
        return bool(self.query(f"select 1 from pg_database where datname = '{database}'"))

    def copy(self, source, target):
        """Replaces the database `target` with a copy of `source`."""
        self.query(f'drop database if exists "{target}" with (force)')
        self.query(f'create database "{target}" template "{source}"')


class Redis(Service):
    """Redis, without persistence."""

    def __init__(self, log):
        self.port = free_port()
        settings = ["--bind", "127.0.0.1", "--port", self.port, "--save", "", "--appendonly", "no"]
        super().__init__(["redis-server", *settings], log)
        self.wait_until(self.ping)

    def run_command(self, *words):
        return subprocess.run(
            ["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True
        ).stdout

    def ping(self):
        return self.run_command("ping").startswith("PONG")


class Worker(Service):
    """The RQ worker. It exits slowly even if it is idle."""

    grace = 3


class NetBox:
    """The real NetBox with the real plugin and its own database, and the RQ worker."""

    DATABASE = "netbox"

    def __init__(self, netbox, plugin, made, home, logs, postgres, redis):
        packages = (f"netbox=={netbox}", f"netbox-proxbox=={plugin}")
        self.programs = made.make(f"netbox-{netbox}-{plugin}", releases.TODAY, *packages) / "bin"
        self.home = home / f"netbox-{netbox}-{plugin}"
        self.logs, self.postgres, self.redis = logs, postgres, redis
        self.clean = "clean_" + re.sub(r"\W", "_", f"{netbox}_{plugin}")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.running = []

    def environment(self, database):
        return {
            "NETBOX_ROOT": str(self.home),
            "HOME": str(self.home),
            "LAB_DATABASE": database,
            "LAB_POSTGRES_PORT": str(self.postgres.port),
            "LAB_REDIS_PORT": str(self.redis.port),
        }

    def manage(self, database, *arguments):
        """Runs a command of NetBox on `database`."""
        done = subprocess.run(
            [self.programs / "netbox", *arguments],
            env={**os.environ, **self.environment(database)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Failed(
                f"netbox {' '.join(map(str, arguments[:1]))}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
            )

    def prepare(self):
        """Creates the template database, once: this takes minutes."""
        if not (self.home / "conf").is_dir():
            self.home.parent.mkdir(parents=True, exist_ok=True)
            self.manage(self.clean, "setup", "--target", self.home)
        shutil.copy(HERE / "netbox_configuration.py", self.home / "conf" / "configuration.py")
        if not self.postgres.has(self.clean):
            print("lab: creating NetBox's database, once; this takes some minutes", file=sys.stderr)
            making = f"{self.clean}_half"
            self.postgres.query(f'drop database if exists "{making}" with (force)')
            self.postgres.query(f'create database "{making}"')
            self.manage(making, "migrate")
            self.manage(making, "shell", "-c", MAKE_USER)
            self.postgres.query(f'alter database "{making}" rename to "{self.clean}"')

    def start(self):
        """Starts on a copy of the template database."""
        self.postgres.copy(self.clean, self.DATABASE)
        self.redis.run_command("flushall")
        environment = self.environment(self.DATABASE)
        gunicorn = [self.programs / "gunicorn", "netbox.wsgi", "--bind", f"127.0.0.1:{self.port}"]
        more = ["--workers", "2", "--threads", "6", "--timeout", "120", "--access-logfile", "-"]
        web = Service([*gunicorn, *more], self.logs / "netbox.log", env=environment, cwd=self.home)
        self.running = [web]
        web.wait_for_http(f"{self.url}/api/status/")
        worker = [self.programs / "netbox", "rqworker"]
        self.running.append(Worker(worker, self.logs / "worker.log", env=environment, cwd=self.home))

    def stop(self):
        while self.running:
            self.running.pop().stop()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()


class Proxmox(Service):
    """A mock Proxmox cluster."""

    def __init__(self, cluster, host, state, log, *, lenient):
        self.cluster, self.host = cluster, host
        # Only 127.0.0.1 has a host name.
        self.domain = "localhost" if host == "127.0.0.1" else ""
        self.port, self.control = free_port(host), free_port()
        address = ["--host", host, "--port", self.port, "--control", self.control, "--state", state / cluster]
        switch = ["--lenient"] if lenient else []
        super().__init__([sys.executable, "-B", HERE / "proxmox.py", cluster, *address, *switch], log)
        self.wait_for_http(f"http://127.0.0.1:{self.control}/requests")


class NetBoxProxy(Service):
    """netbox_proxy.py."""

    def __init__(self, netbox, secrets, log, *, port):
        self.port = port or free_port()
        command = [
            sys.executable,
            "-B",
            HERE / "netbox_proxy.py",
            "--port",
            self.port,
            "--netbox",
            netbox.url,
        ]
        super().__init__([*command, "--secrets", secrets], log)
        self.wait_for_http(f"http://127.0.0.1:{self.port}/api/status/")


class Recorder(Service):
    """recorder.py in front of `upstream`."""

    def __init__(self, upstream, secrets, output, log):
        self.output = output
        self.seen = 0
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-B", HERE / "recorder.py", "--port", self.port, "--upstream", upstream]
        super().__init__([*command, "--secrets", secrets, "--output", output], log)
        self.wait_until(self.is_listening)

    def is_listening(self):
        """Whether the port is open. It sends no request, which would be recorded."""
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def save(self, path):
        """Writes the exchanges since the last call to `path`."""
        lines = self.output.read_text().splitlines(keepends=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines[self.seen :]))
        self.seen = len(lines)


class Backend:
    """A release of proxbox-api, which runs in its own folder, with a copy of its package and its database."""

    def __init__(self, release, made, home, log):
        self.release, self.home, self.log = release, home, log
        self.environment = install(release, made)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.service = None
        shutil.rmtree(home, ignore_errors=True)
        package = home / "package" / "proxbox_api"
        shutil.copytree(environments.site_packages(self.environment) / "proxbox_api", package)
        # Some releases lack this folder, and do not start without it.
        (package / "static").mkdir(exist_ok=True)
        if release.lacks_generated:
            source = environments.site_packages(install(releases.GENERATED_SOURCE, made)) / "proxbox_api"
            there = pathlib.Path("generated", "proxmox")
            shutil.copytree(source / there, package / there, dirs_exist_ok=True)

    def start(self):
        environment = {
            "HOME": str(self.home),
            "PYTHONPATH": str(self.home / "package"),
            "PYTHONUNBUFFERED": "1",
            "PROXBOX_ENCRYPTION_KEY": "lab-only-encryption-key-0123456789abcdef",
        }
        if self.release.has_database_path:
            environment["PROXBOX_DATABASE_PATH"] = str(self.home / "database.db")
        program = [self.environment / "bin" / "python", "-m", "uvicorn", "proxbox_api.main:app"]
        address = ["--host", "127.0.0.1", "--port", self.port]
        self.service = Service([*program, *address], self.log, env=environment, cwd=self.home)
        self.service.wait_for_http(f"{self.url}/")

    def restart(self):
        """Restarts it, without its cache of NetBox responses."""
        self.stop()
        shutil.rmtree(self.home / ".config" / "netbox-sdk", ignore_errors=True)
        self.start()

    def stop(self):
        if self.service:
            self.service.stop()
            self.service = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()


def install(release, made):
    """The virtual environment of a release."""
    return made.make(release.version, release.until, f"proxbox-api=={release.version}", *release.packages)


class Bridge(Service):
    """The bridge in front of `backend`, with a NetBox listener on the port `netbox_listen` (0 is any port) unless it is
    None. Environment variables PROXBOX_BRIDGE_… add to its configuration."""

    def __init__(self, binary, backend, home, log, *, netbox_listen):
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        self.port, admin = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin = f"http://127.0.0.1:{admin}"
        flags = [
            "--backend",
            backend,
            "--listen",
            f"127.0.0.1:{self.port}",
            "--admin-listen",
            f"127.0.0.1:{admin}",
        ]
        environment = {"PROXBOX_BRIDGE_JOBS_RECORDING": "on", "PROXBOX_BRIDGE_ADMIN_OPEN_READS": "on"}
        if netbox_listen is not None:
            port = netbox_listen or free_port()
            environment["PROXBOX_BRIDGE_BACKEND_NETBOX_LISTEN"] = f"127.0.0.1:{port}"
        super().__init__([binary, "serve", *flags, "--data-dir", home], log, env=environment)
        self.wait_for_http(f"{self.admin}/livez")

    def jobs(self):
        """Its jobs, oldest first."""
        return httpx.get(f"{self.admin}/jobs", params={"limit": 200}, timeout=60).json()["results"][::-1]


def write_secrets(home):
    """Writes the files with secrets for the other programs of the lab; returns their paths."""
    home.mkdir(parents=True, exist_ok=True)
    redacted, endpoints = home / "redacted.json", home / "endpoints.json"
    redacted.write_text(json.dumps(SECRETS))
    secrets = {"password": proxmox.PASSWORD, "token_value": proxmox.TOKEN_VALUE}
    endpoints.write_text(json.dumps({cluster: secrets for cluster in proxmox.INVENTORY}))
    return redacted, endpoints
