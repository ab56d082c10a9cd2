"""Virtual environments with packages as of a given date."""

import pathlib
import shutil
import subprocess
import sys


class Environments:
    """Creates virtual environments under `root` and keeps them for the next run."""

    def __init__(self, root):
        self.root = root

    def make(self, name, until, *packages):
        """The environment `name` with `packages` and dependencies published before `until`."""
        home = self.root / name
        wanted = "\n".join((sys.version, until, *packages))
        marker = home / "installed"
        # Written last, so that an incomplete environment is replaced.
        if not marker.is_file() or marker.read_text() != wanted:
            shutil.rmtree(home, ignore_errors=True)
            # Uses the pip of the environment that this runs in.
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
            pip = [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--quiet"]
            subprocess.run([*pip, "--uploaded-prior-to", until, *packages], check=True)
            marker.write_text(wanted)
        return home


def site_packages(environment):
    """The site-packages directory of an environment."""
    return next(pathlib.Path(environment, "lib").glob("python3.*")) / "site-packages"
