"""The Debian package: its files, and how it is installed, upgraded, removed and purged.

Needs cargo-deb. The tests in containers need root, mmdebstrap, lintian, and what test_systemd.py needs, and make a bare Debian
with the sources of this machine.
"""

import contextlib
import gzip
import json
import os
import pathlib
import re
import shutil
import sqlite3
import subprocess
import tempfile
import tomllib
import unittest

from support import (
    BRIDGE,
    DEPLOY,
    RECORDINGS,
    ROOT,
    SYSTEM_PATH,
    TIMEOUT,
    Process,
    Replay,
    contained,
    get,
    listening,
    until,
)
from test_docker import run
from test_systemd import Machine

VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
CONFIG = "etc/proxbox-bridge/proxbox-bridge.toml"
TOKEN = "etc/proxbox-bridge/admin-token"
LEDGER = "var/lib/proxbox-bridge/ledger.sqlite3"
PROGRAM = "usr/bin/proxbox-bridge"
# Three jobs, the last of which was running when the bridge was killed.
OLD_LEDGER = ROOT / "fixtures/ledger/4.sql"


def build(package):
    """Builds the package of the program under test, without its debugging information, as in a release."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1767225600"}
    with tempfile.TemporaryDirectory() as directory:
        program = pathlib.Path(directory) / "proxbox-bridge"
        run("strip", "-o", program, BRIDGE)
        run(DEPLOY / "debian/build.sh", program, package, "--fast", env=environment)
    return package


def older(package, directory):
    """The package as an earlier version, with another sample configuration."""
    tree = directory / "older"
    run("dpkg-deb", "--raw-extract", package, tree)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*$", "Version: 0.0.1-1", control.read_text(), flags=re.MULTILINE))
    with (tree / CONFIG).open("a") as config:
        config.write("# Of the older version.\n")
    result = directory / "older.deb"
    run("dpkg-deb", "--build", "-Zgzip", "-z1", tree, result)
    shutil.rmtree(tree)
    return result


class Directory(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = pathlib.Path(tempfile.mkdtemp(prefix="proxbox-bridge-package-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        cls.package = build(cls.directory / "proxbox-bridge.deb")


class Package(Directory):
    def setUp(self):
        lines = run("dpkg-deb", "--contents", self.package).splitlines()
        self.files = {line.split()[5].removeprefix("."): line.split()[0] for line in lines if line[0] == "-"}
        control = self.directory / self.id()
        run("dpkg-deb", "--control", self.package, control)
        self.control = {path.name: path.read_text() for path in control.iterdir()}

    def field(self, name):
        return run("dpkg-deb", "--field", self.package, name).strip()

    def test_it_has_the_program_its_units_manual_pages_completions_and_documents(self):
        self.assertEqual(self.field("Version"), f"{VERSION}-1")
        pages = {path for path in self.files if path.startswith("/usr/share/man/man1/")}
        self.assertIn("/usr/share/man/man1/proxbox-bridge-serve.1.gz", pages)
        documents = {f"/usr/share/doc/proxbox-bridge/deploy/{path.name}" for path in DEPLOY.glob("*.md")}
        systemd = "/usr/lib/systemd/system/proxbox-bridge"
        self.assertEqual(
            self.files.keys() - pages - documents,
            {
                "/" + CONFIG,
                "/" + PROGRAM,
                "/etc/proxbox-bridge/proxbox-bridge.env",
                f"{systemd}-admin.socket",
                f"{systemd}.service",
                f"{systemd}.service.d/credentials.conf",
                f"{systemd}.socket",
                "/usr/lib/sysusers.d/proxbox-bridge.sysusers.conf",
                "/usr/share/bash-completion/completions/proxbox-bridge",
                "/usr/share/doc/proxbox-bridge/README.md",
                "/usr/share/doc/proxbox-bridge/THIRD-PARTY-LICENSES.gz",
                "/usr/share/doc/proxbox-bridge/changelog.Debian.gz",
                "/usr/share/doc/proxbox-bridge/copyright",
                "/usr/share/fish/vendor_completions.d/proxbox-bridge.fish",
                "/usr/share/lintian/overrides/proxbox-bridge",
                "/usr/share/zsh/vendor-completions/_proxbox-bridge",
            },
        )
        # Only root reads the variables, which may have secrets.
        self.assertEqual(self.files["/etc/proxbox-bridge/proxbox-bridge.env"], "-rw-------")

    def test_the_licences_of_what_is_compiled_in_are_there_with_their_texts(self):
        tree = self.directory / "licences"
        run("dpkg-deb", "--extract", self.package, tree)
        packed = tree / "usr/share/doc/proxbox-bridge/THIRD-PARTY-LICENSES.gz"
        text = gzip.decompress(packed.read_bytes()).decode()
        for name in ["tokio", "hyper", "libsqlite3-sys"]:
            self.assertRegex(text, rf"(?m)^{name} [\d.]+: MIT, https://")
        self.assertIn("SQLite, in libsqlite3-sys, is in the public domain", text)
        for part in ["Copyright (c) 2014-2026 Sean McArthur", "Copyright (c) Tokio Contributors", "jemalloc"]:
            self.assertIn(part, text)
        # Neither tests nor macros are in the program.
        for name in ["insta", "serde_derive"]:
            self.assertNotRegex(text, rf"(?m)^{name} ")

    def test_files_in_etc_are_configuration_that_upgrades_keep(self):
        configuration = {path for path in self.files if path.startswith("/etc/")}
        self.assertEqual(set(self.control["conffiles"].split()), configuration)

    def test_its_scripts_are_valid_and_name_files_of_the_package(self):
        for name in ["postinst", "postrm", "prerm"]:
            run("sh", "-n", self.directory / self.id() / name)
            units = set(re.findall(r"proxbox-bridge[\w-]*\.(?:service|socket)", self.control[name]))
            installed = {pathlib.Path(path).name for path in self.files if "/systemd/system/" in path}
            self.assertEqual(units, installed - {"credentials.conf"})
        (users,) = re.findall(r"systemd-sysusers .* (\S+)$", self.control["postinst"], re.MULTILINE)
        self.assertIn(f"/usr/lib/sysusers.d/{users}", self.files)

    def test_the_same_program_makes_the_same_package(self):
        again = build(self.directory / "again.deb")
        self.assertEqual(again.read_bytes(), self.package.read_bytes())

    @contained
    def test_lintian_reports_nothing(self):
        # The program under test has debugging information.
        suppressed = "--suppress-tags=unstripped-binary-or-object"
        # It runs many programs.
        self.assertEqual(run("lintian", "--allow-root", suppressed, self.package, env=SYSTEM_PATH), "")


class Release(unittest.TestCase):
    def test_versions_that_the_files_do_not_have_are_refused(self):
        done = subprocess.run(
            [DEPLOY / "release.sh", "9.9.9"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(done.stderr, "release: the version in Cargo.toml is not 9.9.9\n")


@contained
class BareSystem(Directory):
    """The life of the package in a Debian without a running systemd."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.root = cls.directory / "root"
        (suite,) = re.findall(r"^VERSION_CODENAME=(\w+)$", pathlib.Path("/etc/os-release").read_text(), re.MULTILINE)
        lists = [pathlib.Path("/etc/apt", name) for name in ["sources.list.d/debian.sources", "sources.list"]]
        sources = next(path for path in lists if path.exists())
        run("mmdebstrap", "--variant=minbase", "--include=systemd-standalone-sysusers", suite, cls.root, sources)

    def inside(self, *command):
        return run("chroot", self.root, *command, env=SYSTEM_PATH)

    def dpkg(self, *arguments):
        return self.inside("dpkg", *arguments)

    def install(self, package):
        shutil.copy(package, self.root / "package.deb")
        # Keeps a changed configuration file without a question.
        self.dpkg("--force-confold", "--install", "/package.deb")

    def owner(self, path):
        return self.inside("stat", "--format=%U %a", "/" + path).strip()

    def bridge(self):
        """The installed program, run as its user with its files."""
        variables = {
            "PROXBOX_BRIDGE_ADMIN_LISTEN": "127.0.0.1:0",
            "PROXBOX_BRIDGE_ADMIN_OPEN_READS": "on",
            "PROXBOX_BRIDGE_BACKEND_URL": f"http://{self.backend.address}",
            "PROXBOX_BRIDGE_DATA_DIR": "/var/lib/proxbox-bridge",
            "PROXBOX_BRIDGE_LIMITS_COOLDOWN": "0s",
            "PROXBOX_BRIDGE_LISTEN": "127.0.0.1:0",
        }
        command = ["chroot", "--userspec=proxbox-bridge:proxbox-bridge", self.root, "/" + PROGRAM]
        bridge = Process(*command, "serve", "--config", "/" + CONFIG, env=variables)
        self.addCleanup(bridge.stop)
        bridge.address = bridge.wait_for_line(listening("listen"))
        bridge.admin = bridge.wait_for_line(listening("admin_listen"))
        return bridge

    def outcomes(self, bridge):
        """The outcomes of all jobs, the newest first."""
        return [job["outcome"] for job in json.loads(get(bridge.admin, "/jobs")[2])["results"]]

    def write_old_ledger(self):
        """Writes the ledger of an older release with the owner of the directory."""
        path = self.root / LEDGER
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript(OLD_LEDGER.read_text())
        directory = path.parent.stat()
        os.chown(path, directory.st_uid, directory.st_gid)

    def test_upgrades_migrate_the_ledger_removal_keeps_data_and_purge_removes_everything(self):
        self.backend = Replay("0.0.2.post1", "--speed", "50")
        self.addCleanup(self.backend.stop)
        old = older(self.package, self.directory)

        self.install(old)
        self.inside("/" + PROGRAM, "version")
        self.assertEqual(self.owner("var/lib/proxbox-bridge"), "proxbox-bridge 700")
        self.assertEqual(self.owner(TOKEN), "root 600")
        token = (self.root / TOKEN).read_text()
        self.assertRegex(token, r"^[0-9a-f]{64}$")
        # Neither enabled nor started.
        self.assertEqual(list((self.root / "etc/systemd/system").glob("**/proxbox-bridge*")), [])
        self.write_old_ledger()

        edited = (self.root / CONFIG).read_text() + '[shims]\nversion = "off"\n'
        (self.root / CONFIG).write_text(edited)
        self.install(self.package)
        self.assertEqual((self.root / CONFIG).read_text(), edited)
        sample = (DEPLOY / "proxbox-bridge.toml").read_text()
        self.assertEqual((self.root / f"{CONFIG}.dpkg-dist").read_text(), sample)
        self.assertEqual((self.root / TOKEN).read_text(), token)
        bridge = self.bridge()
        self.assertRegex(get(bridge.address, "/full-update/stream")[2], r'event: complete\ndata: \{"ok": true')
        wanted = ["completed", "interrupted", "completed", "completed"]
        until(lambda: self.outcomes(bridge) == wanted)
        self.assertEqual(bridge.stop(), 0)

        self.dpkg("--remove", "proxbox-bridge")
        self.assertFalse((self.root / PROGRAM).exists())
        for path in [CONFIG, TOKEN, LEDGER]:
            self.assertTrue((self.root / path).exists(), path)
        self.install(self.package)
        self.assertEqual((self.root / TOKEN).read_text(), token)

        self.dpkg("--purge", "proxbox-bridge")
        left = [path for path in self.root.rglob("*proxbox*") if "proc" not in path.parts]
        self.assertEqual(left, [])
        self.assertNotIn("proxbox-bridge", (self.root / "etc/passwd").read_text() + (self.root / "etc/group").read_text())


@contained
class UnderSystemd(Directory):
    """The package on a machine with a running systemd."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        older(cls.package, cls.directory)
        cls.machine = Machine({"/srv/packages": cls.directory, "/srv/recordings": RECORDINGS})
        cls.addClassCleanup(cls.machine.stop)
        # The policy of this machine, which may be a container, does not let packages restart services.
        cls.machine.run("rm", "--force", "/usr/sbin/policy-rc.d")

    def dpkg(self, *arguments):
        # apt is not under test: the dependencies are installed on this machine.
        self.machine.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--force-confold", *arguments)

    def curl(self, *arguments):
        return self.machine.run("curl", "--silent", "--show-error", "--fail", "--max-time", TIMEOUT, *arguments)

    def jobs(self):
        token = self.machine.run("cat", "/" + TOKEN)
        return self.curl("--header", f"Authorization: Bearer {token}", "http://127.0.0.1:8801/jobs")

    def test_the_service_is_restarted_by_an_upgrade_and_stopped_by_removal(self):
        self.dpkg("--install", "/srv/packages/older.deb")
        shown = self.machine.shown("ActiveState", "UnitFileState")
        self.assertEqual(shown, {"ActiveState": "inactive", "UnitFileState": "disabled"})
        self.machine.shell("""
            systemd-run --quiet --unit=backend --property=Type=exec /usr/bin/proxbox-bridge \\
                replay /srv/recordings/0.0.2.post1 --listen 127.0.0.1:8802 --speed 50
            systemctl enable --now proxbox-bridge.socket proxbox-bridge-admin.socket
            systemctl enable --now proxbox-bridge.service
        """)
        self.assertRegex(self.curl("http://127.0.0.1:8800/full-update/stream"), r'"ok": true')
        before = self.machine.shown("MainPID")
        # The admin listener requires the token of the package.
        with self.assertRaisesRegex(AssertionError, "401"):
            self.curl("http://127.0.0.1:8801/jobs")
        self.assertRegex(self.jobs(), r'"outcome": ?"completed"')

        self.dpkg("--install", "/srv/packages/proxbox-bridge.deb")
        until(lambda: self.machine.shown("ActiveState") == {"ActiveState": "active"})
        self.assertNotEqual(self.machine.shown("MainPID"), before)
        self.assertEqual(self.machine.shown("ActiveState", unit="proxbox-bridge.socket"), {"ActiveState": "active"})
        self.assertRegex(self.jobs(), r'"outcome": ?"completed"')

        self.dpkg("--remove", "proxbox-bridge")
        self.assertEqual(self.machine.shown("ActiveState"), {"ActiveState": "inactive"})
        self.machine.run("test", "-s", "/" + LEDGER)
        self.dpkg("--purge", "proxbox-bridge")
        found = self.machine.run("find", "/etc", "/var/lib", "-name", "*proxbox-bridge*")
        self.assertEqual(found, "")


if __name__ == "__main__":
    unittest.main()
