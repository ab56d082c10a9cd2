"""Virtual environments, each with the packages as they were on a day."""

import pathlib
import shutil
import subprocess
import sys


class Environments:
    """Makes virtual environments under `root`, and keeps them for the next run."""

    def __init__(self, root):
        self.root = root

    def make(self, name, until, *packages):
        """The environment `name` with `packages`, of which nothing was published after the day `until`."""
        home = self.root / name
        wanted = "\n".join((sys.version, until, *packages))
        marker = home / "installed"
        # It is written last: a half of an environment does not count.
        if not marker.is_file() or marker.read_text() != wanted:
            shutil.rmtree(home, ignore_errors=True)
            # The one that this runs in is itself virtual.
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
            pip = [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--quiet"]
            subprocess.run([*pip, "--uploaded-prior-to", until, *packages], check=True)
            marker.write_text(wanted)
        return home


def site_packages(environment):
    """Where the packages of an environment are."""
    return next(pathlib.Path(environment, "lib").glob("python3.*")) / "site-packages"
