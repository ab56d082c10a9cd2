#!/usr/bin/env python3
"""Prints the licences of the software that is compiled into the program, for packages of it.

The texts are those in the sources of the crates, and identical texts are printed once. Fails if a crate has none.
"""

import json
import pathlib
import re
import subprocess
import sys
import textwrap

TARGETS = [f"{processor}-unknown-linux-{c}" for processor in ["x86_64", "aarch64"] for c in ["gnu", "musl"]]
NAMES = re.compile(r"(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|UNLICENSE)([-._].*)?", re.IGNORECASE)
RULE = "-" * 80
# What no crate has a text for.
OTHERS = """\
SQLite, in libsqlite3-sys, is in the public domain: https://sqlite.org/copyright.html
The standard library of Rust: MIT OR Apache-2.0, Copyright (c) The Rust Project Contributors, https://www.rust-lang.org
The C library musl, in static programs: MIT, Copyright (c) 2005-2020 Rich Felker, et al., https://musl.libc.org
"""


def compiled_in():
    """The crates that are linked into the program, without this one."""
    filters = [f"--filter-platform={target}" for target in TARGETS]
    command = ["cargo", "metadata", "--locked", "--format-version=1", *filters]
    metadata = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    crates = {crate["id"]: crate for crate in metadata["packages"]}
    nodes = {node["id"]: node["deps"] for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    found, todo = set(), [root]
    while todo:
        for dependency in nodes[todo.pop()]:
            crate = dependency["pkg"]
            # Neither build scripts, nor tests, nor macros are in the program.
            is_linked = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            is_macro = any("proc-macro" in target["kind"] for target in crates[crate]["targets"])
            if is_linked and not is_macro and crate not in found:
                found.add(crate)
                todo.append(crate)
    return sorted((crates[crate] for crate in found), key=lambda crate: (crate["name"], crate["version"]))


def texts(crate):
    """The texts in the sources of a crate, those of C libraries in it included."""
    files = pathlib.Path(crate["manifest_path"]).parent.rglob("*")
    files = sorted(path for path in files if NAMES.fullmatch(path.name) and path.suffix != ".rs" and path.is_file())
    return [path.read_text(errors="replace").strip() for path in files]


def main():
    by_text = {}
    print("Licences of the software that is compiled into proxbox-bridge\n")
    for crate in compiled_in():
        name = f"{crate['name']} {crate['version']}"
        print(f"{name}: {crate['license']}, {crate['repository']}")
        own = texts(crate)
        if not own:
            sys.exit(f"licenses: {name} has no text of its licence, {crate['license']}")
        for text in own:
            _, users = by_text.setdefault(" ".join(text.split()), (text, []))
            users.append(name)
    print(f"\n{OTHERS}", end="")
    for text, users in by_text.values():
        used_by = textwrap.fill(f"Used by {', '.join(dict.fromkeys(users))}:", 80)
        print(f"\n{RULE}\n{used_by}\n\n{text}")


if __name__ == "__main__":
    main()
