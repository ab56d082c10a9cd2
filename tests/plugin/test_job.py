"""Whole jobs of the newest plugin through the bridge, with recorded responses of backends of all ages.

The plugin's own code runs the jobs with stubs of NetBox (`netbox_stub.py`), so outcomes, deletions and logs are those
of a real NetBox. `fixtures/plugin/` has the requests of such jobs in a real NetBox, and the jobs here must send the same
ones.

`PROXBOX_PLUGIN` is the directory of the plugin, and `PROXBOX_BRIDGE_BINARY` the bridge.
"""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

import requests

import backend
import plugin_requests
import netbox_stub
import support

FIXTURES = pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "plugin" / "0.0.29.post6"
KEY = "k" * 40
# The sync types that each button of the plugin enqueues (views/sync.py), in the order in which they are pressed here.
BUTTONS = {
    "devices": ["devices"],
    "virtual-machines": ["virtual-machines", "vm-disks"],
    "full-update": ["all"],
}
# The required stages of the plugin for which releases before 0.0.6 have no stream.
BEFORE_0_0_6 = [
    "storage",
    "vm-disks",
    "network-interfaces",
    "vm-interfaces",
    "ip-addresses",
    "replications",
    "backup-routines",
]
# The skipped stages of a full update, and the optional ones that fail with a warning.
SKIPPED = {
    "0.0.4": (BEFORE_0_0_6, ["task-history", "vm-snapshots"]),
    "0.0.5": (BEFORE_0_0_6, ["task-history"]),
    "0.0.6.post4": (["replications", "backup-routines"], ["task-history"]),
    "0.0.7.post1": ([], []),
    "0.0.11.post2": ([], []),
    "0.0.19.post5": ([], []),
}
WORKING = list(SKIPPED)
FIRST_WITH_FIREWALL = (0, 0, 13)
OLDEST = "0.0.2.post1"
NO_ENDPOINTS = (
    "proxbox-api 0.0.2 reads its Proxmox credentials from NetBox, and today's "
    "netbox-proxbox does not return them there. Use proxbox-api 0.0.4 or newer, or set backend.netbox_listen."
)
# The least time between two frames that the plugin logs, in seconds (sync_stages.py).
THROTTLE = 1.5
# The time by which two frames may arrive closer together than they were sent, in seconds, on a busy machine.
JITTER = 0.1
# The one template among the twelve guests of the recorded cluster.
TEMPLATE = (900, "qemu")
NODES = ["pve1", "pve2", "pve3"]
# The firewall and CPU model objects in NetBox before the first job, all with the status active.
INVENTORY = {
    "ProxmoxFirewallSecurityGroup": {},
    "ProxmoxFirewallRule": {"zone": "datacenter"},
    "ProxmoxFirewallIPSet": {"scope": "datacenter"},
    "ProxmoxFirewallAlias": {"scope": "datacenter"},
    "ProxmoxFirewallOptions": {"zone": "datacenter"},
    "ProxmoxDatacenterCpuModel": {"cputype": "custom"},
}


class Replay:
    """Runs jobs of one NetBox in sequence, through a bridge with `settings` in front of one backend."""

    def __init__(self, version, buttons=tuple(BUTTONS), settings=None, instead=None, nodes=()):
        instead = {path: backend.response(body) for path, body in (instead or {}).items()}
        self.version = version
        self.netbox = netbox_stub.NetBox()
        self.jobs = {}
        netbox_stub.CURRENT.set(self.netbox)
        environment = {f"PROXBOX_BRIDGE_{name}": value for name, value in (settings or {}).items()}
        with contextlib.ExitStack() as running:
            self.backend = running.enter_context(backend.Backend(version, instead))
            bridge = running.enter_context(support.Bridge.for_backend(self.backend.address, env=environment))
            self.url = f"http://{bridge.address}"
            self._fill(bridge.address, nodes)
            self._register()
            for button in buttons:
                self.jobs[button] = self._press(button)
            self.responses = {path: self._get(path) for path in ("/version", "/proxmox/endpoints")}
            self.forecast = self._check(environment)

    def _fill(self, address, nodes):
        """Fills NetBox with endpoints and with objects of earlier syncs."""
        models = netbox_stub.plugin("models")
        host, _, port = address.partition(":")
        self.netbox.add(models.FastAPIEndpoint, enabled=True, ip_address=host, port=int(port), token=KEY)
        row = self.backend.row("/netbox/endpoint")
        # The token is redacted in recordings.
        same = {name: row[name] for name in ("name", "domain", "port", "verify_ssl")}
        self.netbox.add(models.NetBoxEndpoint, enabled=True, effective_token_value="REDACTED", **same)
        row = self.backend.row("/proxmox/endpoints") or {"port": 8006}
        self.endpoint = self.netbox.add(
            models.ProxmoxEndpoint,
            enabled=True,
            name="lab-cluster",
            domain="localhost",
            ip_address="127.0.0.1",
            port=row["port"],
            username="root@pam",
            token_name="proxbox",
            token_value="REDACTED",
        )
        vmid, kind = TEMPLATE
        self.netbox.add(
            models.ProxmoxVMTemplate, proxmox_endpoint=self.endpoint, vmid=vmid, proxmox_type=kind
        )
        for name in nodes:
            self.netbox.add(models.ProxmoxNode, endpoint=self.endpoint, name=name)
        for name, fields in INVENTORY.items():
            self.netbox.add(getattr(models, name), endpoint=self.endpoint, status="active", **fields)

    def _register(self):
        """Registers the key as the plugin does when its endpoint is saved."""
        adoption = netbox_stub.plugin("services.backend_key_adoption")
        endpoint = netbox_stub.plugin("models").FastAPIEndpoint.objects.first()
        try:
            adoption.adopt_rotated_backend_key(endpoint, KEY, bootstrap_if_needed=True)
            self.key_error = None
        except adoption.BackendKeyAdoptionError as error:
            self.key_error = error.code

    def _press(self, button):
        """Runs the job of a button; returns it with its own exchanges, streams and delays."""
        job = netbox_stub.JobRow()
        self.netbox.exchanges, self.netbox.streams, self.netbox.slept = [], [], []
        netbox_stub.plugin("jobs").ProxboxSyncJob.handle(job, sync_types=BUTTONS[button])
        job.exchanges, job.streams, job.slept = (
            list(entries) for entries in (self.netbox.exchanges, self.netbox.streams, self.netbox.slept)
        )
        return job

    def _get(self, path):
        return requests.get(self.url + path, headers={"X-Proxbox-API-Key": KEY}, timeout=support.TIMEOUT)

    def _check(self, settings):
        """The outcomes of the jobs that `check` predicts, by kind."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PROXBOX_BRIDGE_")}
        with tempfile.NamedTemporaryFile("w") as key:
            key.write(KEY)
            key.flush()
            command = [support.BRIDGE, "check", "--json", "--backend", f"http://{self.backend.address}"]
            output = subprocess.run(
                [*command, "--key-file", key.name],
                env=environment | settings,
                stdout=subprocess.PIPE,
                text=True,
                timeout=support.TIMEOUT,
            )
        verdicts = json.loads(output.stdout)["backends"][0]["plugin_job"]["verdicts"]
        return {verdict["kind"]: verdict["ending"] for verdict in verdicts}

    def templates(self):
        """The keys of the templates in NetBox, as the plugin compares them (sync_vm_template.py)."""
        rows = self.netbox.rows(netbox_stub.plugin("models").ProxmoxVMTemplate)
        return [(row.vmid, row.proxmox_type) for row in rows]

    def nodes(self):
        return sorted(row.name for row in self.netbox.rows(netbox_stub.plugin("models").ProxmoxNode))

    def stale(self):
        """The models in INVENTORY with objects that were marked stale."""
        models = netbox_stub.plugin("models")
        return [
            name
            for name in INVENTORY
            if any(row.status == "stale" for row in self.netbox.rows(getattr(models, name)))
        ]

    def unscoped(self):
        """The requests for one endpoint that reached the backend without the parameter that its release supports."""
        parameter = "endpoint_ids" if self.backend.release < (0, 0, 8) else "proxmox_endpoint_ids"
        has_parameter = self.backend.release >= (0, 0, 4)
        queries = [(target, target.partition("?")[2].split("&")) for _, target in self.backend.requests]
        return [
            target
            for target, parts in queries
            if "proxmox_endpoint_ids=1" in parts and not (has_parameter and f"{parameter}=1" in parts)
        ]


def stages(job):
    """The skipped stages, and the optional stages that failed, according to the log."""
    skipped, warned, stage = [], [], None
    for line in job.lines():
        if line.startswith("Starting stage: "):
            stage = line.split()[2]
        elif line.startswith("[proxbox-stream] step:") and "synchronization skipped" in line:
            skipped.append(stage)
        elif line.startswith("Optional stage "):
            warned.append(stage)
    return skipped, warned


def outcome(job):
    """The outcome of a job, as `check` names it."""
    if job.status == "completed" and any(stages(job)):
        return "completed with warnings"
    return job.status


def notices_of(job, message):
    """For each frame with `message`: the time since the previous frame, and whether NetBox logged it."""
    found = []
    for _, frames in job.streams:
        for before, (when, _, data) in zip(frames, frames[1:]):
            if message in data.get("message", ""):
                is_logged = any(json.dumps(data) in line for line in job.lines("INFO"))
                found.append((when - before[0], is_logged))
    return found


REPLAYS = {
    **{version: {"version": version} for version in (*WORKING, OLDEST)},
    # With a shim turned off, or with other responses of the backend.
    "no inventory": dict(version="0.0.11.post2", buttons=["devices"], settings={"SHIMS_INVENTORY": "off"}),
    "templates of 0.0.5": dict(version="0.0.5", buttons=["devices"], settings={"SHIMS_TEMPLATES": "off"}),
    "templates of 0.0.11": dict(
        version="0.0.11.post2", buttons=["devices"], settings={"SHIMS_TEMPLATES": "off"}
    ),
    "no vm_ids": dict(
        version="0.0.6.post4", buttons=["virtual-machines"], settings={"SHIMS_VM_IDS": "off"}
    ),
    "no scope": dict(version="0.0.6.post4", buttons=["devices"], settings={"SHIMS_SCOPE": "off"}),
    "nothing skipped": dict(
        version="0.0.4", buttons=["full-update"], settings={"BACKEND_UNSUPPORTED": "refuse"}
    ),
    "no keys": dict(version="0.0.4", buttons=["devices"], settings={"SHIMS_AUTH": "off"}),
    "no health": dict(version="0.0.4", buttons=["devices"], settings={"SHIMS_HEALTH": "off"}),
    "no netbox_endpoint": dict(
        version=OLDEST, buttons=["devices"], settings={"SHIMS_NETBOX_ENDPOINT": "off"}
    ),
    "no version": dict(version="0.0.4", buttons=[], settings={"SHIMS_VERSION": "off"}),
    "empty lists": dict(
        version="0.0.11.post2",
        buttons=["devices"],
        nodes=["pve1"],
        instead={
            "/proxmox/firewall/summary": [{"cluster_name": "lab-cluster"}],
            "/proxmox/datacenter/cpu-models": [{"cluster_name": "lab-cluster", "cputype": "another"}],
            "/proxmox/cluster/status": [{"type": "cluster", "name": "lab-cluster", "node_list": []}],
        },
    ),
}
RUNS = {}


def setUpModule():
    # The plugin connects to loopback addresses only.
    os.environ["NO_PROXY"] = "127.0.0.1"
    netbox_stub.install(os.environ["PROXBOX_PLUGIN"])
    # Most of their time is spent waiting for frames.
    pool = concurrent.futures.ThreadPoolExecutor(8)
    unittest.addModuleCleanup(pool.shutdown)
    RUNS.update({name: pool.submit(Replay, **how) for name, how in REPLAYS.items()})


def replay(name):
    return RUNS[name].result()


class Jobs(unittest.TestCase):
    maxDiff = None

    def for_each_job(self, versions, check):
        """Calls `check` with each job of each of these backends."""
        for version in versions:
            run = replay(version)
            for button, job in run.jobs.items():
                with self.subTest(backend=version, button=button):
                    check(run, button, job)

    def test_they_complete(self):
        def check(_run, _button, job):
            self.assertEqual((job.status, job.error), ("completed", ""))
            self.assertEqual(job.slept, [], "a stage was retried")

        self.for_each_job(WORKING, check)

    def test_stages_that_a_backend_lacks_are_skipped_and_logged(self):
        def check(run, button, job):
            skipped, warned = SKIPPED[run.version]
            wanted = BUTTONS[button]
            if wanted != ["all"]:
                skipped = [stage for stage in skipped if stage in wanted]
                warned = [stage for stage in warned if stage in wanted]
            self.assertEqual(stages(job), (skipped, warned))

        self.for_each_job(WORKING, check)

    def test_jobs_of_the_oldest_backend_end_errored_with_the_reason(self):
        def check(run, _button, job):
            why = f"endpoint 1: Failed to list Proxmox endpoints on ProxBox backend: {NO_ENDPOINTS}"
            error = f"No sync stage ran: every selected Proxmox endpoint was skipped — {why}"
            self.assertEqual((job.status, job.error), ("errored", error))
            self.assertEqual((job.streams, job.slept), ([], []))
            self.assertEqual(run.responses["/proxmox/endpoints"].json()["detail"], NO_ENDPOINTS)

        self.for_each_job([OLDEST], check)

    def test_they_send_the_same_requests_as_in_a_real_netbox(self):
        def check(run, button, job):
            sent = [
                plugin_requests.request(one.method, one.target, one.headers, one.body) for one in job.exchanges
            ]
            recorded = plugin_requests.recorded(FIXTURES / f"{button}.ndjson")
            if run.backend.release < FIRST_WITH_FIREWALL:
                recorded = [one for one in recorded if "/proxmox/firewall/nodes/" not in one["target"]]
            self.assertEqual(sent, recorded)

        self.for_each_job(WORKING, check)

    def test_nothing_in_netbox_is_deleted_or_marked_stale(self):
        for version in (OLDEST, *WORKING):
            run = replay(version)
            with self.subTest(backend=version):
                self.assertEqual(run.netbox.deleted, [])
                self.assertEqual(run.templates(), [TEMPLATE])
                self.assertEqual(run.nodes(), [] if version == OLDEST else NODES)
                # This release reads firewalls, and the cluster has no rules.
                reads = run.backend.release >= FIRST_WITH_FIREWALL
                self.assertEqual(run.stale(), [name for name in INVENTORY if reads and "Firewall" in name])

    def test_requests_for_one_endpoint_are_scoped_to_it(self):
        for version in (OLDEST, *WORKING):
            with self.subTest(backend=version):
                self.assertEqual(replay(version).unscoped(), [])

    def test_notices_are_delayed_until_netbox_logs_them(self):
        def check(run, _button, job):
            notices = notices_of(job, " cannot read firewalls and CPU models.")
            self.assertEqual(len(notices), run.backend.release < FIRST_WITH_FIREWALL)
            for waited, is_logged in notices + notices_of(job, " synchronization skipped: "):
                self.assertTrue(is_logged and waited >= THROTTLE - JITTER, waited)

        self.for_each_job(WORKING, check)
        # A frame that follows at once is not logged.
        at_once = notices_of(replay("0.0.19.post5").jobs["devices"], "Discovered 1 devices")
        self.assertEqual([is_logged for _, is_logged in at_once], [False])

    def test_check_predicts_their_outcome(self):
        def check(run, button, job):
            self.assertEqual(outcome(job), run.forecast[button])

        self.for_each_job((OLDEST, *WORKING), check)

    def test_the_plugin_detects_the_release_of_the_backend(self):
        version = netbox_stub.plugin("services.backend_version")
        for name in (OLDEST, *WORKING):
            run = replay(name)
            with self.subTest(backend=name):
                self.assertIsNone(run.key_error)
                reported = run.responses["/version"].json()["version"]
                self.assertEqual(version.parse_backend_version(reported)[:3], run.backend.release)
                # The bridge does not hide the release.
                severities = [advisory.severity for advisory in version.backend_version_advisories(reported)]
                self.assertEqual(severities, ["error"] if run.backend.release < (0, 0, 13) else [])


class WithoutShims(unittest.TestCase):
    """The same jobs fail, or delete objects, if a shim is off."""

    def errored(self, name, button="devices"):
        job = replay(name).jobs[button]
        self.assertEqual(job.status, "errored", job.lines())
        return job

    def test_missing_firewall_endpoints_fail_a_job(self):
        error = self.errored("no inventory").error
        self.assertIn("Firewall sync for endpoint 1: HTTP error fetching firewall summary: 404", error)
        self.assertIn("Datacenter sync for endpoint 1: HTTP error fetching datacenter CPU models: 404", error)

    def test_a_template_that_is_not_listed_is_deleted(self):
        run = replay("templates of 0.0.5")
        self.assertEqual(run.jobs["devices"].status, "completed")
        self.assertEqual(run.templates(), [])
        self.assertEqual([name for name, _ in run.netbox.deleted], ["ProxmoxVMTemplate"])

    def test_a_refused_list_of_templates_fails_a_job(self):
        error = self.errored("templates of 0.0.11").error
        self.assertIn("VM template sync for endpoint 1: HTTP error fetching Proxmox VM templates: 502", error)

    def test_a_failed_stream_is_tried_three_times(self):
        job = self.errored("no vm_ids", "virtual-machines")
        self.assertIn(backend.UNASSIGNED, job.error)
        self.assertEqual((len(job.streams), job.slept), (3, [8.0, 16.0]))

    def test_an_unsupported_scope_parameter_is_detected(self):
        run = replay("no scope")
        self.assertEqual(run.jobs["devices"].status, "completed")
        self.assertEqual(run.unscoped()[0], "/proxmox/cluster/status?proxmox_endpoint_ids=1")
        self.assertTrue(any("/stream?" in target for target in run.unscoped()))

    def test_a_missing_required_stage_fails_a_job(self):
        job = self.errored("nothing skipped", "full-update")
        self.assertIn("failed (HTTP 404): This sync is not supported.: This backend cannot synchronise storage.", job.error)
        self.assertEqual((stages(job), job.slept), (([], []), []), "no retry")

    def test_a_key_that_cannot_be_verified_fails_a_job(self):
        run = replay("no keys")
        self.assertEqual(run.key_error, "bootstrap_status_http_404")
        self.assertEqual(
            self.errored("no keys").error, "Backend API-key preflight failed; no sync stage was started."
        )

    def test_a_backend_without_health_never_becomes_ready(self):
        job = self.errored("no health")
        self.assertIn("Stage 'devices' failed (HTTP 503): Backend not ready", job.error)
        self.assertGreater(sum(job.slept), 600)

    def test_a_netbox_endpoint_that_cannot_be_pushed_fails_a_job(self):
        job = self.errored("no netbox_endpoint")
        self.assertIn("do not point at this NetBox", job.error)
        self.assertEqual(job.streams, [])

    def test_check_predicts_these_outcomes_too(self):
        for name in REPLAYS:
            run = replay(name)
            # Responses that were replaced here cannot be predicted.
            if "settings" in REPLAYS[name]:
                for button, job in run.jobs.items():
                    with self.subTest(name, button=button):
                        self.assertEqual(run.forecast[button], outcome(job))

    def test_a_backend_without_version_gets_404(self):
        self.assertEqual(replay("no version").responses["/version"].status_code, 404)

    def test_objects_missing_in_a_response_are_deleted_or_marked_stale(self):
        run = replay("empty lists")
        self.assertEqual(run.jobs["devices"].status, "completed", run.jobs["devices"].error)
        self.assertEqual(run.stale(), list(INVENTORY))
        self.assertEqual(run.nodes(), [])
        self.assertEqual([name for name, _ in run.netbox.deleted], ["ProxmoxNode"])
