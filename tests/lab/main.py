"""The real NetBox with the real plugin, real backends one after the other, and the bridge in between."""

import argparse
import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import pathlib
import shutil
import signal
import sys
import time

import httpx

import beside
import environments
import plugin
import releases
import report
import services

PLUGIN = "0.0.29.post6"
NETBOX = "4.7.3"
BUTTONS = ["devices", "virtual-machines", "full-update"]
# First something of both: several releases cannot begin an empty NetBox with all there is.
BUTTONS_OF_TWO = ["devices", "endpoint-1", "endpoint-2"]

FLAGS = {
    "--direct": "the plugin asks the backend, without the bridge",
    "--two-endpoints": "a second cluster, and buttons for one of the two",
    "--lenient": "the mock takes any type in /cluster/resources",
    "--v2-token": "the plugin gives the backend a v2 token of NetBox, not a v1 token",
    "--keep": "leave the last backend and all else up until Ctrl-C",
}
DIRECTORIES = {
    "--record": "write every exchange down there",
    "--answers": "write down there what backends answer beside the streams, and press nothing",
}


def arguments():
    parser = argparse.ArgumentParser(prog="tests/lab/run", description=__doc__)
    known = ", ".join(releases.RELEASES)
    parser.add_argument("plugin", nargs="?", default=PLUGIN, help=f"{PLUGIN} if left out")
    parser.add_argument("backends", nargs="*", metavar="backend", help=f"all if left out: {known}")
    buttons = ", ".join(plugin.BUTTONS)
    parser.add_argument("--buttons", type=lambda text: text.split(","), help=f"with commas, of {buttons}")
    parser.add_argument("--netbox", default=NETBOX, metavar="VERSION", help=f"{NETBOX} if left out")
    for flag, says in FLAGS.items():
        parser.add_argument(flag, action="store_true", help=says)
    for flag, says in DIRECTORIES.items():
        parser.add_argument(flag, type=pathlib.Path, metavar="DIR", help=says)
    options = parser.parse_args()
    options.backends = options.backends or list(releases.RELEASES)
    options.buttons = options.buttons or (BUTTONS_OF_TWO if options.two_endpoints else BUTTONS)
    for what, known in ((options.backends, releases.RELEASES), (options.buttons, plugin.BUTTONS)):
        unknown = [name for name in what if name not in known]
        if unknown:
            parser.error(f"{', '.join(unknown)}: known are {', '.join(known)}")
    if options.direct and options.record:
        parser.error("--record is for what passes the bridge")
    return options


@dataclasses.dataclass
class Place:
    """What there is for one release."""

    release: releases.Release
    logs: pathlib.Path
    clusters: list[services.Proxmox] = dataclasses.field(default_factory=list)
    # Where NetBox is for the backend, and the row that says so.
    netbox_port: int = 0
    row: dict = dataclasses.field(default_factory=dict)
    backend: services.Backend | None = None
    # Who uses NetBox, and who asks the backend itself.
    person: plugin.Plugin | None = None
    asked: beside.Backend | None = None


class Lab:
    """Everything that is the same for all backends, and what was found."""

    def __init__(self, options, stack):
        self.options = options
        root = pathlib.Path(os.environ["LAB_ROOT"])
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.lock(stack)
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        self.results = root / "results" / now
        self.results.mkdir(parents=True)
        self.run = root / "run"
        # The bridge may be built anew while the lab runs.
        self.bridge = shutil.copy(os.environ["PROXBOX_BRIDGE_BINARY"], root / "proxbox-bridge")
        os.environ.pop("PROXBOX_BRIDGE_BINARY")
        self.made = environments.Environments(root / "venvs")
        self.redacted, self.endpoints = services.write_secrets(self.run)
        for version in options.backends:
            services.install(releases.RELEASES[version], self.made)
        self.postgres = stack.enter_context(
            services.Postgres(root / "postgres", self.results / "postgres.log")
        )
        redis = stack.enter_context(services.Redis(self.results / "redis.log"))
        versions = (options.netbox, options.plugin)
        self.netbox = services.NetBox(*versions, self.made, root, self.results, self.postgres, redis)
        self.netbox.prepare()
        self.pressed = []

    def lock(self, stack):
        """One lab at a time: they would share databases."""
        file = stack.enter_context((self.root / "lock").open("w"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise services.Failed(f"another lab runs in {self.root}") from None

    def clusters(self, stack, logs, count):
        """The mock clusters, each on an address of its own: some backends tell them apart by it."""
        places = [("lab-cluster", "127.0.0.1"), ("far-cluster", "127.0.0.2")]
        lenient = self.options.lenient
        return [
            stack.enter_context(services.Proxmox(*place, self.run, logs / f"{place[0]}.log", lenient=lenient))
            for place in places[:count]
        ]

    def begin(self, version, stack, clusters):
        """Starts what the lab has with and without the bridge, with a backend that has no rows."""
        place = Place(releases.RELEASES[version], self.results / version)
        place.clusters = self.clusters(stack, place.logs, clusters)
        stack.enter_context(self.netbox)
        place.netbox_port = self.netbox.port
        if place.release.front and not self.has_netbox_listener(place.release):
            front = services.Front(
                self.netbox, self.endpoints, place.logs / "front.log", port=place.release.netbox_port
            )
            place.netbox_port = stack.enter_context(front).port
        home = self.run / f"backend-{version}"
        backend = services.Backend(place.release, self.made, home, place.logs / "backend.log")
        place.backend = stack.enter_context(backend)
        place.person = plugin.Plugin(self.netbox.url)
        place.person.add_netbox(place.netbox_port, v2_token=self.options.v2_token)
        place.row = beside.netbox_row(plugin.NETBOX_NAME, place.netbox_port, services.NETBOX_TOKEN)
        key = services.API_KEY if place.release.keys else None
        place.asked = beside.Backend(backend.url, key, services.SECRETS)
        return place

    def has_netbox_listener(self, release):
        """Whether the bridge stands between the backend and NetBox, too."""
        return release.front and not self.options.direct and not self.options.answers

    def measure(self, version, stack):
        """Has the plugin set one release up, and presses the buttons."""
        place = self.begin(version, stack, 2 if self.options.two_endpoints else 1)
        backend, person = place.backend, place.person
        recorders, bridge, front = {}, None, backend
        if not self.options.direct:
            if self.options.record:
                recorders["backend"] = front = self.recorder(front, "backend", place.logs, stack)
            home, log = self.run / f"bridge-{version}", place.logs / "bridge.log"
            listen = place.release.netbox_port if self.has_netbox_listener(place.release) else None
            bridge = services.Bridge(self.bridge, front.url, home, log, netbox_listen=listen)
            front = stack.enter_context(bridge)
            if self.options.record:
                recorders["plugin"] = front = self.recorder(front, "plugin", place.logs, stack)

        if not place.release.rows and not self.has_netbox_listener(place.release):
            # It takes its NetBox from whoever installs it, and reads it when it starts.
            place.asked.ask("POST", "/netbox/endpoint", place.row)
            backend.restart()
        for cluster in place.clusters:
            person.add_proxmox(cluster)
        person.add_backend(front.port)
        cards = person.push(place.clusters)
        # It makes tags and custom fields when it starts with a NetBox that it knows,
        # and what has such fields when it starts again.
        backend.restart()
        backend.restart()
        if place.release.fields:
            place.asked.ask("GET", "/extras/extras/custom-fields/create")
        (place.logs / "cards.json").write_text(json.dumps([cards, person.push(place.clusters)], indent=1))
        self.keep(recorders, version, "setup")
        if self.options.keep:
            netbox = f"NetBox {self.netbox.url} ({services.USER}, {services.USER_PASSWORD})"
            way = f"bridge {bridge.url}, for operators {bridge.admin}" if bridge else "no bridge"
            print(f"{version}: {netbox}, {way}, backend {backend.url}", flush=True)

        for number, button in enumerate(self.options.buttons, 1):
            # What it made it does not see for a minute, if it has asked for it before. People are slower.
            if number > 1:
                backend.restart()
            pressed = self.press(version, button, person, bridge, place.clusters)
            name = f"{number}-{button}"
            (place.logs / f"job-{name}.json").write_text(json.dumps(pressed.job, indent=1))
            self.pressed.append(pressed)
            print(report.show(pressed), end="\n\n", flush=True)
            self.keep(recorders, version, name)

    def answers(self, version, stack):
        """Writes down what a release answers beside the streams; with two clusters to VERSION.two.ndjson."""
        place = self.begin(version, stack, 2)
        asked, output = place.asked, self.options.answers
        rows = [beside.proxmox_row(cluster, number) for number, cluster in enumerate(place.clusters, 1)]
        place.person.add_proxmox(place.clusters[0])
        beside.first_answers(asked)
        beside.push(asked, place.row, rows[0])
        place.backend.restart()
        beside.narrowed(asked, rows[:1])
        asked.write(output / f"{version}.ndjson")
        place.person.add_proxmox(place.clusters[1])
        beside.push_proxmox(asked, rows[1], 2)
        beside.narrowed(asked, rows)
        beside.revoke(asked)
        asked.write(output / f"{version}.two.ndjson")
        beside.openapi(asked, place.logs / "openapi.json")

    def recorder(self, upstream, name, logs, stack):
        output = logs / f"{name}.ndjson"
        recorder = services.Recorder(upstream.url, self.redacted, output, logs / f"recorder-{name}.log")
        return stack.enter_context(recorder)

    def keep(self, recorders, version, name):
        """Writes down what was recorded since the last time."""
        for side, recorder in recorders.items():
            recorder.keep(self.options.record / version / side / f"{name}.ndjson")

    def press(self, version, button, person, bridge, clusters):
        """Presses a button, and finds out what came of it."""
        where = self.postgres, self.netbox.DATABASE
        # The cluster that a run for one endpoint has to leave alone.
        other = None
        if len(clusters) > 1 and button.startswith("endpoint-"):
            other = clusters[2 - int(button[-1])].cluster
        others = report.objects(*where, other) if other else None
        before = report.counts(*where)
        jobs = len(bridge.jobs()) if bridge else 0
        start = time.monotonic()
        job = person.press(button)
        seconds = time.monotonic() - start
        recorded = bridge.jobs()[jobs:] if bridge else []
        if other:
            others = report.written(others, report.objects(*where, other))
        after = report.counts(*where)
        return report.Pressed(version, button, job, seconds, recorded, before, after, others)


def main():
    options = arguments()
    # Asked to end: everything that was started is ended first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = False
    with contextlib.ExitStack() as stack:
        lab = Lab(options, stack)
        for version in options.backends:
            each = stack.enter_context(contextlib.ExitStack())
            try:
                (lab.answers if options.answers else lab.measure)(version, each)
            except (services.Failed, httpx.HTTPError) as failure:
                failed = True
                print(f"{version}: {failure!r}", file=sys.stderr)
            if not options.keep or version != options.backends[-1]:
                each.close()
        if lab.pressed:
            print(report.table(lab.pressed))
            report.write(lab.results / "report.json", lab.pressed)
        print(f"Logs, jobs and report.json are in {lab.results}.")
        if options.keep:
            print("All of it stays up until Ctrl-C.", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except services.Failed as failure:
        sys.exit(f"lab: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
