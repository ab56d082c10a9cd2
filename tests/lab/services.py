"""Starts and ends what the lab consists of. All of it listens on loopback only, on ports that were free."""

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
# How long anything may take to start, in seconds, on a machine that does other things too.
PATIENCE = 180

NETBOX_TOKEN = "0123456789abcdef0123456789abcdef01234567"
API_KEY = "lab-proxbox-api-key-0123456789abcdef0123456789"
USER, USER_PASSWORD = "admin", "admin-of-the-lab"
# By what each secret is replaced in everything that is recorded.
SECRETS = {
    NETBOX_TOKEN: "<netbox-token>",
    API_KEY: "<api-key>",
    proxmox.TOKEN_VALUE: "<proxmox-token>",
    proxmox.PASSWORD: "<proxmox-password>",
}

# Who uses NetBox: a person, and programs by a token.
MAKE_USER = f"""
from django.contrib.auth import get_user_model
from users.models import Token
user = get_user_model().objects.create_superuser({USER!r}, "admin@example.invalid", {USER_PASSWORD!r})
Token(user=user, version=1, token={NETBOX_TOKEN!r}, write_enabled=True).save()
"""


class Failed(Exception):
    """Something of the lab did not do its part."""


def free_port(host="127.0.0.1"):
    """A port that nobody listens on. Somebody else may take it before it is used, so ask late."""
    with socket.socket() as taken:
        taken.bind((host, 0))
        return taken.getsockname()[1]


class Service:
    """A program that runs until it is stopped. What it says is in the file `log`."""

    stop_signal = signal.SIGTERM
    # How long it may take to end, in seconds.
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
                # An interrupt at the terminal is for the lab, which ends everything in its order.
                start_new_session=True,
                **options,
            )

    def until(self, ready):
        """Waits until `ready` gives something that is true, and gives it; fails if the program ends."""
        deadline = time.monotonic() + PATIENCE
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

    def answers(self, url):
        """Waits until the program answers there, whatever it says."""

        def ready():
            try:
                return httpx.get(url, timeout=10, verify=False)
            except httpx.HTTPError:
                return None

        self.until(ready)

    def stop(self):
        """Asks the program to end, and waits until it and what it has started have."""
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
    """PostgreSQL, which never runs as root. Its databases are kept for the next run."""

    # Ends connections, too, in place of waiting for them.
    stop_signal = signal.SIGINT

    def __init__(self, home, log):
        programs = max(
            pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)
        )
        who = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        if not (home / "PG_VERSION").is_file():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(mode=0o700, parents=True)
            if who:
                shutil.chown(home, "postgres", "postgres")
            initdb = [programs / "initdb", "-D", home, "-A", "trust", "-U", "postgres", "-E", "UTF8"]
            done = subprocess.run(
                [*initdb, "--locale=C.UTF-8"], capture_output=True, text=True, cwd="/", **who
            )
            if done.returncode:
                shutil.rmtree(home)
                hint = "Everybody must be able to enter $LAB_ROOT and what is above it." if who else ""
                raise Failed(f"initdb: {done.stderr.strip()} {hint}")
        self.port = free_port()
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        options = [word for setting in settings.items() for word in ("-c", "=".join(setting))]
        super().__init__([programs / "postgres", "-D", home, "-p", self.port, *options], log, cwd="/", **who)
        self.until(lambda: self.ask("select 1", quiet=True))

    def psql(self, *arguments, database="postgres"):
        command = ["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database]
        return subprocess.run([*command, "-X", "-q", *arguments], capture_output=True, text=True)

    def ask(self, query, database="postgres", *, quiet=False):
        """The rows that a query gives, as lists of strings."""
        done = self.psql("-v", "ON_ERROR_STOP=1", "-At", "-F", "\t", "-c", query, database=database)
        if done.returncode and not quiet:
            raise Failed(f"{query}: {done.stderr.strip()}")
        return [line.split("\t") for line in done.stdout.splitlines()]

    def has(self, database):
        return bool(self.ask(f"select 1 from pg_database where datname = '{database}'"))

    def copy(self, source, target):
        """Makes the database `target` anew, as a copy of `source`."""
        self.ask(f'drop database if exists "{target}" with (force)')
        self.ask(f'create database "{target}" template "{source}"')


class Redis(Service):
    """Redis, which keeps nothing."""

    def __init__(self, log):
        self.port = free_port()
        settings = ["--bind", "127.0.0.1", "--port", self.port, "--save", "", "--appendonly", "no"]
        super().__init__(["redis-server", *settings], log)
        self.until(self.ping)

    def ask(self, *words):
        return subprocess.run(
            ["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True
        ).stdout

    def ping(self):
        return self.ask("ping").startswith("PONG")


class Worker(Service):
    """The worker of RQ. It lingers when it is asked to end, although it has nothing to do."""

    grace = 3


class NetBox:
    """The real NetBox with the real plugin, on a database of its own, and the worker that runs its jobs."""

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
        """Makes the clean database, once: it takes minutes."""
        if not (self.home / "conf").is_dir():
            self.home.parent.mkdir(parents=True, exist_ok=True)
            self.manage(self.clean, "setup", "--target", self.home)
        shutil.copy(HERE / "netbox_configuration.py", self.home / "conf" / "configuration.py")
        if not self.postgres.has(self.clean):
            print("lab: making NetBox's database, which takes some minutes, once", file=sys.stderr)
            making = f"{self.clean}_half"
            self.postgres.ask(f'drop database if exists "{making}" with (force)')
            self.postgres.ask(f'create database "{making}"')
            self.manage(making, "migrate")
            self.manage(making, "shell", "-c", MAKE_USER)
            self.postgres.ask(f'alter database "{making}" rename to "{self.clean}"')

    def start(self):
        """Starts on a clean database."""
        self.postgres.copy(self.clean, self.DATABASE)
        self.redis.ask("flushall")
        environment = self.environment(self.DATABASE)
        gunicorn = [self.programs / "gunicorn", "netbox.wsgi", "--bind", f"127.0.0.1:{self.port}"]
        more = ["--workers", "2", "--threads", "6", "--timeout", "120", "--access-logfile", "-"]
        web = Service([*gunicorn, *more], self.logs / "netbox.log", env=environment, cwd=self.home)
        self.running = [web]
        web.answers(f"{self.url}/api/status/")
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
        # Of the addresses on loopback only one has a name.
        self.domain = "localhost" if host == "127.0.0.1" else ""
        self.port, self.control = free_port(host), free_port()
        where = ["--host", host, "--port", self.port, "--control", self.control, "--state", state / cluster]
        switch = ["--lenient"] if lenient else []
        super().__init__([sys.executable, "-B", HERE / "proxmox.py", cluster, *where, *switch], log)
        self.answers(f"http://127.0.0.1:{self.control}/requests")


class Front(Service):
    """netbox_front.py."""

    def __init__(self, netbox, secrets, log, *, port):
        self.port = port or free_port()
        command = [
            sys.executable,
            "-B",
            HERE / "netbox_front.py",
            "--port",
            self.port,
            "--netbox",
            netbox.url,
        ]
        super().__init__([*command, "--secrets", secrets], log)
        self.answers(f"http://127.0.0.1:{self.port}/api/status/")


class Recorder(Service):
    """recorder.py before `upstream`."""

    def __init__(self, upstream, secrets, output, log):
        self.output = output
        self.seen = 0
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-B", HERE / "recorder.py", "--port", self.port, "--upstream", upstream]
        super().__init__([*command, "--secrets", secrets, "--output", output], log)
        self.until(self.listens)

    def listens(self):
        """Whether somebody listens there: a request would be recorded."""
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def keep(self, path):
        """Writes the exchanges since the last time to `path`."""
        lines = self.output.read_text().splitlines(keepends=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines[self.seen :]))
        self.seen = len(lines)


class Backend:
    """A release of proxbox-api, with a folder of its own in which it finds itself and keeps its database."""

    def __init__(self, release, made, home, log):
        self.release, self.home, self.log = release, home, log
        self.environment = install(release, made)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.service = None
        shutil.rmtree(home, ignore_errors=True)
        package = home / "package" / "proxbox_api"
        shutil.copytree(environments.site_packages(self.environment) / "proxbox_api", package)
        # Some packages lack it, and do not start without.
        (package / "static").mkdir(exist_ok=True)
        if release.borrows:
            lender = environments.site_packages(install(releases.LENDER, made)) / "proxbox_api"
            there = pathlib.Path("generated", "proxmox")
            shutil.copytree(lender / there, package / there, dirs_exist_ok=True)

    def start(self):
        environment = {
            "HOME": str(self.home),
            "PYTHONPATH": str(self.home / "package"),
            "PYTHONUNBUFFERED": "1",
            "PROXBOX_ENCRYPTION_KEY": "lab-only-encryption-key-0123456789abcdef",
        }
        if self.release.database:
            environment["PROXBOX_DATABASE_PATH"] = str(self.home / "database.db")
        program = [self.environment / "bin" / "python", "-m", "uvicorn", "proxbox_api.main:app"]
        where = ["--host", "127.0.0.1", "--port", self.port]
        self.service = Service([*program, *where], self.log, env=environment, cwd=self.home)
        self.service.answers(f"{self.url}/")

    def restart(self):
        """Starts it again, without the answers of NetBox that it keeps on disk."""
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
    """The environment of a release."""
    return made.make(release.version, release.until, f"proxbox-api=={release.version}", *release.packages)


class Bridge(Service):
    """The bridge before `backend`, with a NetBox listener on the port `netbox_listen`, unless that is None; 0 is any
    port. More of its configuration is in the environment, as PROXBOX_BRIDGE_…."""

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
        self.answers(f"{self.admin}/livez")

    def jobs(self):
        """Its jobs, the oldest first."""
        return httpx.get(f"{self.admin}/jobs", params={"limit": 200}, timeout=60).json()["results"][::-1]


def write_secrets(home):
    """Writes the files from which the other programs of the lab know secrets; where they are."""
    home.mkdir(parents=True, exist_ok=True)
    redacted, endpoints = home / "redacted.json", home / "endpoints.json"
    redacted.write_text(json.dumps(SECRETS))
    secrets = {"password": proxmox.PASSWORD, "token_value": proxmox.TOKEN_VALUE}
    endpoints.write_text(json.dumps({cluster: secrets for cluster in proxmox.INVENTORY}))
    return redacted, endpoints
