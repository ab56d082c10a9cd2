"""The part of the README about schedules: its commands run, its units are verified, and its output is real."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile
import unittest

import yaml
from support import BRIDGE, ROOT, TIMEOUT, Bridge, Replay
from test_systemd import directives, output

# The directory that the examples name.
INSTALLED = "/etc/proxbox-bridge"
TOKEN = "0123456789abcdef0123456789abcdef"
SECTION = (ROOT / "README.md").read_text().partition("\n## On a schedule\n")[2].partition("\n## ")[0]
CRON, SERVICE, TIMER, TASK, JOB = re.findall(r"^```\w+\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)


class Schedules(unittest.TestCase):
    def setUp(self):
        """Starts a bridge, and writes its token and its configuration into `directory`."""
        temporary = tempfile.TemporaryDirectory(prefix="proxbox-bridge-schedules-")
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name)
        (self.directory / "proxbox-bridge").symlink_to(BRIDGE)
        (self.directory / "admin-token").write_text(TOKEN)

    def start(self, recording, **variables):
        replay = Replay(recording, "--speed", "50")
        self.addCleanup(replay.stop)
        variables = {"ADMIN_TOKEN_FILE": self.directory / "admin-token", **variables}
        variables = {f"PROXBOX_BRIDGE_{name}": str(value) for name, value in variables.items()}
        bridge = Bridge.for_backend(replay.address, env=variables)
        self.addCleanup(bridge.stop)
        (self.directory / "proxbox-bridge.toml").write_text(
            f'admin_listen = "{bridge.admin}"\nadmin_token_file = "{self.directory}/admin-token"\n'
        )
        return bridge

    def ended(self, command, **variables):
        """The exit code, the output and the errors of a command in this directory in place of the installed one."""
        own = {name: value.replace(INSTALLED, str(self.directory)) for name, value in variables.items()}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PROXBOX_BRIDGE_")}
        done = subprocess.run(
            command if isinstance(command, list) else ["sh", "-c", command.replace(INSTALLED, str(self.directory))],
            env={**clean, **own, "PATH": f"{self.directory}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def assert_synced(self, ended):
        code, printed, errors = ended
        self.assertEqual((code, errors), (0, ""), printed)
        return printed

    def test_each_is_at_most_five_lines(self):
        for example in [CRON, SERVICE, TIMER, TASK, JOB]:
            self.assertLessEqual(len(example.splitlines()), 5, example)

    def test_the_command_of_cron_prints_nothing_but_errors(self):
        *variables, entry = CRON.splitlines()
        variables = dict(line.split("=", 1) for line in variables)
        *times, user, command = entry.split(maxsplit=6)
        self.assertEqual((len(times), user), (5, "root"))
        # cron would make a line end of it.
        self.assertNotIn("%", command)
        bridge = self.start("0.0.2.post1")
        self.assertEqual(self.ended(command, **variables), (0, "", ""))
        bridge.stop()
        code, printed, errors = self.ended(command, **variables)
        self.assertEqual((code, printed), (1, ""))
        self.assertIn("cannot connect to the bridge", errors)

    def test_the_units_are_verified_and_the_command_of_the_service_runs(self):
        root = self.directory / "root"
        for name, text in [("service", SERVICE), ("timer", TIMER)]:
            unit = root / f"etc/systemd/system/proxbox-sync.{name}"
            unit.parent.mkdir(parents=True, exist_ok=True)
            unit.write_text(text)
        program = root / "usr/local/bin/proxbox-bridge"
        program.parent.mkdir(parents=True)
        program.touch(0o755)
        shutil.copytree("/lib/systemd/system", root / "lib/systemd/system", symlinks=True)
        units = ["proxbox-sync.service", "proxbox-sync.timer"]
        self.assertEqual(output("systemd-analyze", "verify", "--man=no", f"--root={root}", *units), "")

        service = dict(directives(root / "etc/systemd/system/proxbox-sync.service"))
        self.start("0.0.2.post1")
        credential, source = service["LoadCredential"].split(":")
        self.assertEqual(source, f"{INSTALLED}/admin-token")
        (self.directory / credential).write_text(TOKEN)
        variables = dict([service["Environment"].split("=", 1)])
        variables["CREDENTIALS_DIRECTORY"] = str(self.directory)
        self.assert_synced(self.ended(service["ExecStart"], **variables))

    def remote(self, command, bridge):
        """The command for this bridge instead of that of the example."""
        remote, changed = re.subn(r"https://netbox\.example/\S*", f"http://{bridge.admin}", command)
        self.assertEqual(changed, 1)
        return remote

    def test_the_task_of_ansible_runs_without_a_shell(self):
        (task,) = yaml.safe_load(TASK)
        (variable,) = task["environment"]
        command = self.remote(task["ansible.builtin.command"], self.start("0.0.2.post1"))
        self.assert_synced(self.ended(shlex.split(command), **{variable: TOKEN}))

    def test_the_job_of_gitlab_ci_runs_on_a_schedule(self):
        job = yaml.safe_load(JOB)["sync"]
        self.assertEqual(job["rules"], [{"if": '$CI_PIPELINE_SOURCE == "schedule"'}])
        ((variable, value),) = job["variables"].items()
        self.assertTrue(value.startswith("$"))
        command = self.remote(job["script"], self.start("0.0.2.post1"))
        self.assert_synced(self.ended(command, **{variable: TOKEN}))

    def test_the_output_is_real(self):
        key = self.directory / "key"
        key.write_text("lab-key-0123456789abcdef0123456789abcdef")
        self.start("0.0.11.post2", BACKEND_API_KEY_FILE=key)
        shown = re.search(r"^```\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)[1]
        variables = {"PROXBOX_BRIDGE_CONFIG": f"{INSTALLED}/proxbox-bridge.toml"}
        for part in shown.split("$ proxbox-bridge ")[1:]:
            command, *lines = part.splitlines()
            _, printed, errors = self.ended(f"proxbox-bridge {command}", **variables)
            real = iter([same_job(line) for line in (errors + printed).splitlines()])
            for line in lines:
                # In this order: what was found is not looked at again.
                self.assertTrue(line == "…" or same_job(line) in real, f"{line}\n{errors}{printed}")


def same_job(line):
    """A line with the id and the times of one job."""
    line = re.sub(r"\b[0-9a-f]{8}-[0-9a-f]{4}[0-9a-f-]*", "ID", line)
    line = re.sub(r"\b\d\d-\d\d \d\d:\d\d\b|\b\d+(\.\d)?s\b", "TIME", line)
    return " ".join(line.split())


if __name__ == "__main__":
    unittest.main()
