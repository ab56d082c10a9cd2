"""Whole jobs of the newest plugin through the bridge, in front of what backends of each age answered.

The plugin's own code runs the jobs (`netbox_stub.py` has what stands in NetBox's place), so how they end, what
they delete and what their logs say is as it would be in NetBox. `fixtures/plugin/` has the requests of such
jobs in a real NetBox: the jobs here make the same ones.

`PROXBOX_PLUGIN` is the folder that the plugin is in, and `PROXBOX_BRIDGE_BINARY` the bridge.
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
# What each button of the plugin enqueues (views/sync.py), in the order in which people press them here.
BUTTONS = {
    "devices": ["devices"],
    "virtual-machines": ["virtual-machines", "vm-disks"],
    "full-update": ["all"],
}
# What releases before 0.0.6 have no stream for, among the stages that the plugin requires.
BEFORE_0_0_6 = [
    "storage",
    "vm-disks",
    "network-interfaces",
    "vm-interfaces",
    "ip-addresses",
    "replications",
    "backup-routines",
]
# The stages of a full update that are left out, and those that the plugin warns of and goes on.
LEFT_OUT = {
    "0.0.4": (BEFORE_0_0_6, ["task-history", "vm-snapshots"]),
    "0.0.5": (BEFORE_0_0_6, ["task-history"]),
    "0.0.6.post4": (["replications", "backup-routines"], ["task-history"]),
    "0.0.7.post1": ([], []),
    "0.0.11.post2": ([], []),
    "0.0.19.post5": ([], []),
}
WORKING = list(LEFT_OUT)
FIRST_WITH_FIREWALL = (0, 0, 13)
OLDEST = "0.0.2.post1"
NO_ENDPOINTS = (
    "proxbox-api 0.0.2 reads its Proxmox credentials from NetBox, and today's "
    "netbox-proxbox does not return them there. Use proxbox-api 0.0.4 or newer, or set backend.netbox_listen."
)
# The plugin logs a frame if so many seconds have passed since the last that it logged (sync_stages.py).
THROTTLE = 1.5
# By how much two frames may come nearer to each other on their way, in seconds, on a machine that is busy.
JITTER = 0.1
# The one template among the twelve guests of the recorded cluster.
TEMPLATE = (900, "qemu")
NODES = ["pve1", "pve2", "pve3"]
# What NetBox knows of firewalls and CPU models before the first job; all of it is active.
INVENTORY = {
    "ProxmoxFirewallSecurityGroup": {},
    "ProxmoxFirewallRule": {"zone": "datacenter"},
    "ProxmoxFirewallIPSet": {"scope": "datacenter"},
    "ProxmoxFirewallAlias": {"scope": "datacenter"},
    "ProxmoxFirewallOptions": {"zone": "datacenter"},
    "ProxmoxDatacenterCpuModel": {"cputype": "custom"},
}


class Replay:
    """Jobs of one NetBox, one after the other, through a bridge with `settings` in front of one backend."""

    def __init__(self, version, buttons=tuple(BUTTONS), settings=None, instead=None, nodes=()):
        instead = {path: backend.answer(body) for path, body in (instead or {}).items()}
        self.version = version
        self.netbox = netbox_stub.NetBox()
        self.jobs = {}
        netbox_stub.CURRENT.set(self.netbox)
        environment = {f"PROXBOX_BRIDGE_{name}": value for name, value in (settings or {}).items()}
        with contextlib.ExitStack() as running:
            self.backend = running.enter_context(backend.Backend(version, instead))
            bridge = running.enter_context(support.Bridge.before(self.backend.address, env=environment))
            self.url = f"http://{bridge.address}"
            self._fill(bridge.address, nodes)
            self._register()
            for button in buttons:
                self.jobs[button] = self._press(button)
            self.told = {path: self._ask(path) for path in ("/version", "/proxmox/endpoints")}
            self.forecast = self._check(environment)

    def _fill(self, address, nodes):
        """What people have set up in NetBox, and what is there from before."""
        models = netbox_stub.plugin("models")
        host, _, port = address.partition(":")
        self.netbox.add(models.FastAPIEndpoint, enabled=True, ip_address=host, port=int(port), token=KEY)
        row = self.backend.row("/netbox/endpoint")
        # It has the token that is redacted in what was recorded.
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
        """What the plugin does when its endpoint is saved; whether the backend took the key."""
        adoption = netbox_stub.plugin("services.backend_key_adoption")
        endpoint = netbox_stub.plugin("models").FastAPIEndpoint.objects.first()
        try:
            adoption.adopt_rotated_backend_key(endpoint, KEY, bootstrap_if_needed=True)
            self.key_refused = None
        except adoption.BackendKeyAdoptionError as error:
            self.key_refused = error.code

    def _press(self, button):
        """The job of a button, with what is only its own of what NetBox saw."""
        job = netbox_stub.JobRow()
        self.netbox.exchanges, self.netbox.streams, self.netbox.slept = [], [], []
        netbox_stub.plugin("jobs").ProxboxSyncJob.handle(job, sync_types=BUTTONS[button])
        job.exchanges, job.streams, job.slept = (
            list(saw) for saw in (self.netbox.exchanges, self.netbox.streams, self.netbox.slept)
        )
        return job

    def _ask(self, path):
        return requests.get(self.url + path, headers={"X-Proxbox-API-Key": KEY}, timeout=support.PATIENCE)

    def _check(self, settings):
        """How the bridge says that the jobs end."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PROXBOX_BRIDGE_")}
        with tempfile.NamedTemporaryFile("w") as key:
            key.write(KEY)
            key.flush()
            command = [support.BRIDGE, "check", "--json", "--backend", f"http://{self.backend.address}"]
            said = subprocess.run(
                [*command, "--key-file", key.name],
                env=environment | settings,
                stdout=subprocess.PIPE,
                text=True,
                timeout=support.PATIENCE,
            )
        verdicts = json.loads(said.stdout)["backends"][0]["plugin_job"]["verdicts"]
        return {verdict["kind"]: verdict["ending"] for verdict in verdicts}

    def templates(self):
        """The keys of the templates that NetBox has, as the plugin compares them (sync_vm_template.py)."""
        rows = self.netbox.rows(netbox_stub.plugin("models").ProxmoxVMTemplate)
        return [(row.vmid, row.proxmox_type) for row in rows]

    def nodes(self):
        return sorted(row.name for row in self.netbox.rows(netbox_stub.plugin("models").ProxmoxNode))

    def stale(self):
        """The models of what NetBox had of firewalls and CPU models and does not believe any more."""
        models = netbox_stub.plugin("models")
        return [
            name
            for name in INVENTORY
            if any(row.status == "stale" for row in self.netbox.rows(getattr(models, name)))
        ]

    def unscoped(self):
        """What reached the backend for one endpoint, but not in the words that its release understands."""
        parameter = "endpoint_ids" if self.backend.release < (0, 0, 8) else "proxmox_endpoint_ids"
        is_told = self.backend.release >= (0, 0, 4)
        queries = [(target, target.partition("?")[2].split("&")) for _, target in self.backend.asked]
        return [
            target
            for target, parts in queries
            if "proxmox_endpoint_ids=1" in parts and not (is_told and f"{parameter}=1" in parts)
        ]


def stages(job):
    """The stages that a frame in the log says were left out, and those that failed and were not needed."""
    left_out, warned, stage = [], [], None
    for line in job.lines():
        if line.startswith("Starting stage: "):
            stage = line.split()[2]
        elif line.startswith("[proxbox-stream] step:") and "synchronization skipped" in line:
            left_out.append(stage)
        elif line.startswith("Optional stage "):
            warned.append(stage)
    return left_out, warned


def ending(job):
    """How a job ended, in the words of the bridge."""
    if job.status == "completed" and any(stages(job)):
        return "completed with warnings"
    return job.status


def told(job, message):
    """The frames with `message`: how long each came after the one before, and whether NetBox logged it."""
    found = []
    for _, frames in job.streams:
        for before, (when, _, data) in zip(frames, frames[1:]):
            if message in data.get("message", ""):
                is_logged = any(json.dumps(data) in line for line in job.lines("INFO"))
                found.append((when - before[0], is_logged))
    return found


REPLAYS = {
    **{version: {"version": version} for version in (*WORKING, OLDEST)},
    # What happens where the bridge does not see to it, or where a backend says otherwise.
    "no inventory": dict(version="0.0.11.post2", buttons=["devices"], settings={"SHIMS_INVENTORY": "off"}),
    "templates of 0.0.5": dict(version="0.0.5", buttons=["devices"], settings={"SHIMS_TEMPLATES": "off"}),
    "templates of 0.0.11": dict(
        version="0.0.11.post2", buttons=["devices"], settings={"SHIMS_TEMPLATES": "off"}
    ),
    "no vm_ids": dict(
        version="0.0.6.post4", buttons=["virtual-machines"], settings={"SHIMS_VM_IDS": "off"}
    ),
    "no scope": dict(version="0.0.6.post4", buttons=["devices"], settings={"SHIMS_SCOPE": "off"}),
    "nothing left out": dict(
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
DONE = {}


def setUpModule():
    # The plugin asks on loopback only.
    os.environ["NO_PROXY"] = "127.0.0.1"
    netbox_stub.install(os.environ["PROXBOX_PLUGIN"])
    # Mostly they wait for what is to be read.
    pool = concurrent.futures.ThreadPoolExecutor(8)
    unittest.addModuleCleanup(pool.shutdown)
    DONE.update({name: pool.submit(Replay, **how) for name, how in REPLAYS.items()})


def replay(name):
    return DONE[name].result()


class Jobs(unittest.TestCase):
    maxDiff = None

    def in_each(self, versions, judge):
        """Has `judge` look at each job in front of each of these backends."""
        for version in versions:
            run = replay(version)
            for button, job in run.jobs.items():
                with self.subTest(backend=version, button=button):
                    judge(run, button, job)

    def test_they_complete(self):
        def judge(_run, _button, job):
            self.assertEqual((job.status, job.error), ("completed", ""))
            self.assertEqual(job.slept, [], "something was tried again")

        self.in_each(WORKING, judge)

    def test_what_a_backend_lacks_is_left_out_and_their_logs_say_so(self):
        def judge(run, button, job):
            left_out, warned = LEFT_OUT[run.version]
            wanted = BUTTONS[button]
            if wanted != ["all"]:
                left_out = [stage for stage in left_out if stage in wanted]
                warned = [stage for stage in warned if stage in wanted]
            self.assertEqual(stages(job), (left_out, warned))

        self.in_each(WORKING, judge)

    def test_the_oldest_backend_says_why_it_cannot(self):
        def judge(run, _button, job):
            why = f"endpoint 1: Failed to list Proxmox endpoints on ProxBox backend: {NO_ENDPOINTS}"
            error = f"No sync stage ran: every selected Proxmox endpoint was skipped — {why}"
            self.assertEqual((job.status, job.error), ("errored", error))
            self.assertEqual((job.streams, job.slept), ([], []))
            self.assertEqual(run.told["/proxmox/endpoints"].json()["detail"], NO_ENDPOINTS)

        self.in_each([OLDEST], judge)

    def test_they_ask_what_they_asked_in_a_real_netbox(self):
        def judge(run, button, job):
            asked = [
                plugin_requests.request(one.method, one.target, one.headers, one.body) for one in job.exchanges
            ]
            recorded = plugin_requests.recorded(FIXTURES / f"{button}.ndjson")
            if run.backend.release < FIRST_WITH_FIREWALL:
                recorded = [one for one in recorded if "/proxmox/firewall/nodes/" not in one["target"]]
            self.assertEqual(asked, recorded)

        self.in_each(WORKING, judge)

    def test_nothing_in_netbox_is_deleted_or_marked(self):
        for version in (OLDEST, *WORKING):
            run = replay(version)
            with self.subTest(backend=version):
                self.assertEqual(run.netbox.deleted, [])
                self.assertEqual(run.templates(), [TEMPLATE])
                self.assertEqual(run.nodes(), [] if version == OLDEST else NODES)
                # This one can read firewalls, and there is nothing in those of the cluster.
                reads = run.backend.release >= FIRST_WITH_FIREWALL
                self.assertEqual(run.stale(), [name for name in INVENTORY if reads and "Firewall" in name])

    def test_what_is_for_one_endpoint_reaches_no_other(self):
        for version in (OLDEST, *WORKING):
            with self.subTest(backend=version):
                self.assertEqual(replay(version).unscoped(), [])

    def test_what_people_must_read_comes_when_netbox_logs_it(self):
        def judge(run, _button, job):
            notices = told(job, " cannot read firewalls and CPU models.")
            self.assertEqual(len(notices), run.backend.release < FIRST_WITH_FIREWALL)
            for waited, is_logged in notices + told(job, " synchronization skipped: "):
                self.assertTrue(is_logged and waited >= THROTTLE - JITTER, waited)

        self.in_each(WORKING, judge)
        # What does not wait is dropped.
        at_once = told(replay("0.0.19.post5").jobs["devices"], "Discovered 1 devices")
        self.assertEqual([is_logged for _, is_logged in at_once], [False])

    def test_the_bridge_says_beforehand_how_they_end(self):
        def judge(run, button, job):
            self.assertEqual(ending(job), run.forecast[button])

        self.in_each((OLDEST, *WORKING), judge)

    def test_the_plugin_knows_which_backend_it_has(self):
        version = netbox_stub.plugin("services.backend_version")
        for name in (OLDEST, *WORKING):
            run = replay(name)
            with self.subTest(backend=name):
                self.assertIsNone(run.key_refused)
                said = run.told["/version"].json()["version"]
                self.assertEqual(version.parse_backend_version(said)[:3], run.backend.release)
                # It is right about those: the bridge does not hide their age.
                severities = [advisory.severity for advisory in version.backend_version_advisories(said)]
                self.assertEqual(severities, ["error"] if run.backend.release < (0, 0, 13) else [])


class WithoutTheBridgesPart(unittest.TestCase):
    """What the same rules find where there is something to be found."""

    def errored(self, name, button="devices"):
        job = replay(name).jobs[button]
        self.assertEqual(job.status, "errored", job.lines())
        return job

    def test_firewalls_that_cannot_be_read_end_a_job(self):
        error = self.errored("no inventory").error
        self.assertIn("Firewall sync for endpoint 1: HTTP error fetching firewall summary: 404", error)
        self.assertIn("Datacenter sync for endpoint 1: HTTP error fetching datacenter CPU models: 404", error)

    def test_a_template_that_is_not_listed_is_deleted(self):
        run = replay("templates of 0.0.5")
        self.assertEqual(run.jobs["devices"].status, "completed")
        self.assertEqual(run.templates(), [])
        self.assertEqual([name for name, _ in run.netbox.deleted], ["ProxmoxVMTemplate"])

    def test_a_list_of_templates_that_is_refused_ends_a_job(self):
        error = self.errored("templates of 0.0.11").error
        self.assertIn("VM template sync for endpoint 1: HTTP error fetching Proxmox VM templates: 502", error)

    def test_a_stream_that_fails_is_tried_three_times(self):
        job = self.errored("no vm_ids", "virtual-machines")
        self.assertIn(backend.UNASSIGNED, job.error)
        self.assertEqual((len(job.streams), job.slept), (3, [8.0, 16.0]))

    def test_an_endpoint_in_words_that_a_release_does_not_know_is_found(self):
        run = replay("no scope")
        self.assertEqual(run.jobs["devices"].status, "completed")
        self.assertEqual(run.unscoped()[0], "/proxmox/cluster/status?proxmox_endpoint_ids=1")
        self.assertTrue(any("/stream?" in target for target in run.unscoped()))

    def test_a_stage_that_is_needed_ends_a_job(self):
        job = self.errored("nothing left out", "full-update")
        self.assertIn("failed (HTTP 404): This sync is not supported.: This backend cannot synchronise storage.", job.error)
        self.assertEqual((stages(job), job.slept), (([], []), []), "it is final")

    def test_a_key_that_cannot_be_proved_ends_a_job(self):
        run = replay("no keys")
        self.assertEqual(run.key_refused, "bootstrap_status_http_404")
        self.assertEqual(
            self.errored("no keys").error, "Backend API-key preflight failed; no sync stage was started."
        )

    def test_a_backend_without_health_is_waited_for_in_vain(self):
        job = self.errored("no health")
        self.assertIn("Stage 'devices' failed (HTTP 503): Backend not ready", job.error)
        self.assertGreater(sum(job.slept), 600)

    def test_a_netbox_that_the_backend_cannot_be_given_ends_a_job(self):
        job = self.errored("no netbox_endpoint")
        self.assertIn("do not point at this NetBox", job.error)
        self.assertEqual(job.streams, [])

    def test_the_bridge_says_this_beforehand_too(self):
        for name in REPLAYS:
            run = replay(name)
            # What an odd backend answers is not known before it is asked.
            if "settings" in REPLAYS[name]:
                for button, job in run.jobs.items():
                    with self.subTest(name, button=button):
                        self.assertEqual(run.forecast[button], ending(job))

    def test_a_version_that_is_not_told_is_not_known(self):
        self.assertEqual(replay("no version").told["/version"].status_code, 404)

    def test_an_answer_that_names_less_deletes_and_marks_the_rest(self):
        run = replay("empty lists")
        self.assertEqual(run.jobs["devices"].status, "completed", run.jobs["devices"].error)
        self.assertEqual(run.stale(), list(INVENTORY))
        self.assertEqual(run.nodes(), [])
        self.assertEqual([name for name, _ in run.netbox.deleted], ["ProxmoxNode"])
