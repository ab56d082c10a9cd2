"""Runs jobs of the real NetBox plugin through the bridge, with one real backend after the other."""

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

import environments
import other_endpoints
import plugin
import releases
import report
import services

PLUGIN = "0.0.29.post6"
NETBOX = "4.7.3"
BUTTONS = ["devices", "virtual-machines", "full-update"]
# Devices of both clusters first: several releases fail if a full update is the first sync of an empty NetBox.
TWO_ENDPOINT_BUTTONS = ["devices", "endpoint-1", "endpoint-2"]

FLAGS = {
    "--direct": "connect the plugin to the backend directly, without the bridge",
    "--two-endpoints": "add a second cluster, and press the buttons of the single endpoints",
    "--lenient": "accept any type in /cluster/resources of the mock",
    "--v2-token": "push a v2 token of NetBox to the backend instead of a v1 token",
    "--keep": "keep the last backend and everything else running until Ctrl-C",
}
DIRECTORIES = {
    "--record": "record every exchange there",
    "--answers": "record responses of backends other than streams there, and press no button",
}


def arguments():
    parser = argparse.ArgumentParser(prog="tests/lab/run", description=__doc__)
    known = ", ".join(releases.RELEASES)
    parser.add_argument("plugin", nargs="?", default=PLUGIN, help=f"default: {PLUGIN}")
    parser.add_argument("backends", nargs="*", metavar="backend", help=f"default: all of {known}")
    buttons = ", ".join(plugin.BUTTONS)
    parser.add_argument("--buttons", type=lambda text: text.split(","), help=f"separated by commas: {buttons}")
    parser.add_argument("--netbox", default=NETBOX, metavar="VERSION", help=f"default: {NETBOX}")
    for flag, text in FLAGS.items():
        parser.add_argument(flag, action="store_true", help=text)
    for flag, text in DIRECTORIES.items():
        parser.add_argument(flag, type=pathlib.Path, metavar="DIR", help=text)
    options = parser.parse_args()
    options.backends = options.backends or list(releases.RELEASES)
    options.buttons = options.buttons or (TWO_ENDPOINT_BUTTONS if options.two_endpoints else BUTTONS)
    for what, known in ((options.backends, releases.RELEASES), (options.buttons, plugin.BUTTONS)):
        unknown = [name for name in what if name not in known]
        if unknown:
            parser.error(f"unknown: {', '.join(unknown)}; expected {', '.join(known)}")
    if options.direct and options.record:
        parser.error("--record needs the bridge")
    return options


@dataclasses.dataclass
class Setup:
    """The services of one release."""

    release: releases.Release
    logs: pathlib.Path
    clusters: list[services.Proxmox] = dataclasses.field(default_factory=list)
    # The port on which the backend reaches NetBox, and the NetBox endpoint with it.
    netbox_port: int = 0
    row: dict = dataclasses.field(default_factory=dict)
    backend: services.Backend | None = None
    # Clients of NetBox and of the backend.
    user: plugin.Plugin | None = None
    client: other_endpoints.Client | None = None


class Lab:
    """The services that all backends share, and the results."""

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
        # A copy, because the bridge may be rebuilt while the lab runs.
        self.bridge = shutil.copy(os.environ["PROXBOX_BRIDGE_BINARY"], root / "proxbox-bridge")
        os.environ.pop("PROXBOX_BRIDGE_BINARY")
        self.environments = environments.Environments(root / "venvs")
        self.redacted, self.endpoints = services.write_secrets(self.run)
        for version in options.backends:
            services.install(releases.RELEASES[version], self.environments)
        self.postgres = stack.enter_context(
            services.Postgres(root / "postgres", self.results / "postgres.log")
        )
        redis = stack.enter_context(services.Redis(self.results / "redis.log"))
        versions = (options.netbox, options.plugin)
        self.netbox = services.NetBox(*versions, self.environments, root, self.results, self.postgres, redis)
        self.netbox.prepare()
        self.job_results = []

    def lock(self, stack):
        """Only one lab can run at a time, because labs would share databases."""
        file = stack.enter_context((self.root / "lock").open("w"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise services.Failed(f"another lab runs in {self.root}") from None

    def clusters(self, stack, logs, count):
        """The mock clusters, each on its own address, by which some backends distinguish them."""
        addresses = [("lab-cluster", "127.0.0.1"), ("far-cluster", "127.0.0.2")]
        lenient = self.options.lenient
        return [
            stack.enter_context(services.Proxmox(name, host, self.run, logs / f"{name}.log", lenient=lenient))
            for name, host in addresses[:count]
        ]

    def set_up(self, version, stack, clusters):
        """Starts everything but the bridge, with a backend without endpoints."""
        setup = Setup(releases.RELEASES[version], self.results / version)
        setup.clusters = self.clusters(stack, setup.logs, clusters)
        stack.enter_context(self.netbox)
        setup.netbox_port = self.netbox.port
        if setup.release.needs_proxy and not self.has_netbox_listener(setup.release):
            proxy = services.NetBoxProxy(
                self.netbox, self.endpoints, setup.logs / "netbox-proxy.log", port=setup.release.netbox_port
            )
            setup.netbox_port = stack.enter_context(proxy).port
        home = self.run / f"backend-{version}"
        backend = services.Backend(setup.release, self.environments, home, setup.logs / "backend.log")
        setup.backend = stack.enter_context(backend)
        setup.user = plugin.Plugin(self.netbox.url)
        setup.user.add_netbox(setup.netbox_port, v2_token=self.options.v2_token)
        setup.row = other_endpoints.netbox_row(plugin.NETBOX_NAME, setup.netbox_port, services.NETBOX_TOKEN)
        key = services.API_KEY if setup.release.has_keys else None
        setup.client = other_endpoints.Client(backend.url, key, services.SECRETS)
        return setup

    def has_netbox_listener(self, release):
        """Whether the bridge is also the proxy between the backend and NetBox."""
        return release.needs_proxy and not self.options.direct and not self.options.answers

    def run_jobs(self, version, stack):
        """Configures one release through the plugin, and presses the buttons."""
        setup = self.set_up(version, stack, 2 if self.options.two_endpoints else 1)
        backend, user = setup.backend, setup.user
        recorders, bridge, front = {}, None, backend
        if not self.options.direct:
            if self.options.record:
                recorders["backend"] = front = self.recorder(front, "backend", setup.logs, stack)
            home, log = self.run / f"bridge-{version}", setup.logs / "bridge.log"
            listen = setup.release.netbox_port if self.has_netbox_listener(setup.release) else None
            bridge = services.Bridge(self.bridge, front.url, home, log, netbox_listen=listen)
            front = stack.enter_context(bridge)
            if self.options.record:
                recorders["plugin"] = front = self.recorder(front, "plugin", setup.logs, stack)

        if not setup.release.stores_endpoints and not self.has_netbox_listener(setup.release):
            # It reads its NetBox endpoint when it starts, and the plugin cannot change it.
            setup.client.request("POST", "/netbox/endpoint", setup.row)
            backend.restart()
        for cluster in setup.clusters:
            user.add_proxmox(cluster)
        user.add_backend(front.port)
        cards = user.push(setup.clusters)
        # The first start with a NetBox endpoint creates tags and custom fields, the next one the objects with such
        # fields.
        backend.restart()
        backend.restart()
        if setup.release.creates_fields_on_request:
            setup.client.request("GET", "/extras/extras/custom-fields/create")
        (setup.logs / "cards.json").write_text(json.dumps([cards, user.push(setup.clusters)], indent=1))
        self.save_exchanges(recorders, version, "setup")
        if self.options.keep:
            netbox = f"NetBox {self.netbox.url} ({services.USER}, {services.USER_PASSWORD})"
            bridge_text = f"bridge {bridge.url}, admin listener {bridge.admin}" if bridge else "no bridge"
            print(f"{version}: {netbox}, {bridge_text}, backend {backend.url}", flush=True)

        for number, button in enumerate(self.options.buttons, 1):
            # Its cache would hide created objects for a minute. Operators are slower.
            if number > 1:
                backend.restart()
            result = self.press(version, button, user, bridge, setup.clusters)
            name = f"{number}-{button}"
            (setup.logs / f"job-{name}.json").write_text(json.dumps(result.job, indent=1))
            self.job_results.append(result)
            print(report.format_result(result), end="\n\n", flush=True)
            self.save_exchanges(recorders, version, name)

    def record_answers(self, version, stack):
        """Records responses other than streams, with two clusters in VERSION.two.ndjson."""
        setup = self.set_up(version, stack, 2)
        client, output = setup.client, self.options.answers
        rows = [other_endpoints.proxmox_row(cluster, number) for number, cluster in enumerate(setup.clusters, 1)]
        setup.user.add_proxmox(setup.clusters[0])
        other_endpoints.before_push(client)
        other_endpoints.push(client, setup.row, rows[0])
        setup.backend.restart()
        other_endpoints.get_all_scoped(client, rows[:1])
        client.write(output / f"{version}.ndjson")
        setup.user.add_proxmox(setup.clusters[1])
        other_endpoints.push_proxmox(client, rows[1], 2)
        other_endpoints.get_all_scoped(client, rows)
        other_endpoints.revoke(client)
        client.write(output / f"{version}.two.ndjson")
        other_endpoints.save_openapi(client, setup.logs / "openapi.json")

    def recorder(self, upstream, name, logs, stack):
        output = logs / f"{name}.ndjson"
        recorder = services.Recorder(upstream.url, self.redacted, output, logs / f"recorder-{name}.log")
        return stack.enter_context(recorder)

    def save_exchanges(self, recorders, version, name):
        """Saves the exchanges since the last call."""
        for side, recorder in recorders.items():
            recorder.save(self.options.record / version / side / f"{name}.ndjson")

    def press(self, version, button, user, bridge, clusters):
        """Presses a button, and returns its result."""
        database = self.postgres, self.netbox.DATABASE
        # The cluster that a run for one endpoint must not change.
        other = None
        if len(clusters) > 1 and button.startswith("endpoint-"):
            other = clusters[2 - int(button[-1])].cluster
        other_before = report.objects(*database, other) if other else None
        before = report.counts(*database)
        jobs = len(bridge.jobs()) if bridge else 0
        start = time.monotonic()
        job = user.press(button)
        seconds = time.monotonic() - start
        recorded = bridge.jobs()[jobs:] if bridge else []
        other_changes = report.changed_objects(other_before, report.objects(*database, other)) if other else None
        after = report.counts(*database)
        return report.Result(version, button, job, seconds, recorded, before, after, other_changes)


def main():
    options = arguments()
    # On SIGTERM, stop everything first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = False
    with contextlib.ExitStack() as stack:
        lab = Lab(options, stack)
        for version in options.backends:
            each = stack.enter_context(contextlib.ExitStack())
            try:
                (lab.record_answers if options.answers else lab.run_jobs)(version, each)
            except (services.Failed, httpx.HTTPError) as failure:
                failed = True
                print(f"{version}: {failure!r}", file=sys.stderr)
            if not options.keep or version != options.backends[-1]:
                each.close()
        if lab.job_results:
            print(report.table(lab.job_results))
            report.write(lab.results / "report.json", lab.job_results)
        print(f"Logs, jobs and report.json are in {lab.results}.")
        if options.keep:
            print("Everything keeps running until Ctrl-C.", flush=True)
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
