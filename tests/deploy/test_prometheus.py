"""The files of deploy/prometheus and deploy/grafana, checked with promtool, a real Prometheus and a running bridge.

Needs `prometheus` (with promtool) and the imported Python packages.
"""

import contextlib
import enum
import http.server
import itertools
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import tomllib
import typing
import unittest
import urllib.parse

import promql_parser
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as grafana
from grafana_foundation_sdk.models import units

from support import DEPLOY, Bridge, Process, Replay, free_port, get, until

# A NetBox listener: only backends with one have the metric of its requests.
LISTENER = {"PROXBOX_BRIDGE_BACKEND_NETBOX_LISTEN": "127.0.0.1:0"}

PROMETHEUS = DEPLOY / "prometheus"
GRAFANA = DEPLOY / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "proxbox-bridge.json"
TESTS = ("tests.yml", "tests-days.yml")
# The runbook in the repository, with a section for each alert.
REPOSITORY = tomllib.loads((DEPLOY.parent / "Cargo.toml").read_text())["package"]["repository"]
RUNBOOK = f"{REPOSITORY}/blob/main/deploy/prometheus/README.md"
# Metrics of Prometheus itself.
BUILT_IN_METRICS = {"up", "ALERTS"}
# Values of Grafana's built-in variables.
GRAFANA_VARIABLES = {"__rate_interval": "5m", "__range": "6h"}
# Without TLS there is no certificate, and recorded backends send no requests to NetBox.
MAY_BE_EMPTY = {"Certificate expires in", "Requests to NetBox"}
# Results of jobs that do not occur in these tests: their series do not exist.
ABSENT_OUTCOMES = {"cancelled", "timed_out", "interrupted"}
ABSENT_CAUSE = 'cause="client_gone"'
# The lines to remove if /metrics needs no token.
AUTHORIZATION = r"(?m)^    (authorization:|  credentials_file: .*)\n"
TOKEN = "/etc/prometheus/proxbox-bridge.token"


def promtool(*arguments, stdin=None):
    """Runs promtool; returns its output and whether it succeeded."""
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    return done.stdout + done.stderr, done.returncode == 0


def read(name):
    return yaml.safe_load((PROMETHEUS / name).read_text())


def rules(name):
    return [rule for group in read(name)["groups"] for rule in group["rules"]]


def alerts():
    return {rule["alert"]: rule for rule in rules("alerts.yml")}


def recorded():
    return {rule["record"]: rule for rule in rules("rules.yml")}


def dashboard():
    return json.loads(DASHBOARD.read_text())


def panels():
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def substituted(expression, variables):
    """The expression as Grafana sends it with all values selected."""
    values = GRAFANA_VARIABLES | {name: ".+" for name in variables}
    return re.sub(r"\$(\w+)", lambda name: values[name[1]], expression)


def queries():
    """The title of the panel, the legend and the expression of each query of the dashboard."""
    variables = [variable["name"] for variable in dashboard()["templating"]["list"]]
    return [
        (panel["title"], target["legendFormat"], substituted(target["expr"], variables))
        for panel in panels()
        for target in panel["targets"]
    ]


def expressions():
    """All shipped expressions, each with its location."""
    yield from ((f"panel {title!r}", expression) for title, _, expression in queries())
    for name in ("rules.yml", "alerts.yml"):
        yield from ((f"{rule.get('record', rule.get('alert'))}", rule["expr"]) for rule in rules(name))


def nodes(expression):
    found = []
    promql_parser.walk(promql_parser.parse(expression), found.append)
    return found


def selectors(expression):
    return [node for node in nodes(expression) if isinstance(node, promql_parser.VectorSelector)]


def grouping(node):
    """The labels in the grouping or matching clause of a node."""
    modifier = getattr(node, "modifier", None)
    matching = getattr(modifier, "matching", None)
    named = [getattr(modifier, "labels", None), getattr(matching, "labels", None), getattr(modifier, "group_labels", None)]
    return set(itertools.chain(*filter(None, named)))


class Exposition:
    """The output of /metrics: the type of each metric, and the labels of its series."""

    def __init__(self, text):
        self.text = text
        self.types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
        self.labels = {name: set() for name in self.types}
        for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", text, re.M):
            known = set(re.findall(r'(\w+)="(?:[^"\\]|\\.)*"', labels)) - {"le"}
            self.labels[self.family(name)] |= known

    def family(self, name):
        """The metric to which a series of this name belongs, or None."""
        if name in self.types:
            return name
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        return base if self.types.get(base) == "histogram" else None


class Prometheus(Process):
    """A Prometheus with the shipped files and shorter intervals, which scrapes `targets`, with the token in the file
    `token` if it is set."""

    def __init__(self, directory, targets, *changes, token=None):
        self.directory = pathlib.Path(directory)
        for name in ("prometheus.yml", "rules.yml", "alerts.yml"):
            shutil.copy(PROMETHEUS / name, self.directory)
        self.change("prometheus.yml", r"(scrape|evaluation)_interval: 15s", r"\1_interval: 1s")
        self.change("prometheus.yml", r'targets: \["127.0.0.1:8801"\]', f"targets: {json.dumps(targets)}")
        if token:
            self.change("prometheus.yml", TOKEN, str(token))
        else:
            self.change("prometheus.yml", AUTHORIZATION, "")
        for change in changes:
            self.change(*change)
        self.address = f"127.0.0.1:{free_port()}"
        super().__init__(
            "prometheus",
            f"--config.file={self.directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address={self.address}",
        )
        until(lambda: get(self.address, "/-/ready")[0] == 200)

    def change(self, name, old, new):
        file = self.directory / name
        text, times = re.subn(old, new, file.read_text())
        assert times, f"{name} has no {old}"
        file.write_text(text)

    def api(self, path, **parameters):
        status, _, body = get(self.address, f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        answer = json.loads(body)
        if status != 200:
            raise AssertionError(f"{parameters}: {answer['error']}")
        return answer["data"]

    def query(self, expression):
        return self.api("query", query=expression)["result"]

    def alerts(self, name, **labels):
        wanted = {"alertname": name, **labels}
        return [alert for alert in self.api("alerts")["alerts"] if wanted.items() <= alert["labels"].items()]

    def until_scraped(self, bridges):
        """Waits until all bridges are scraped, so that the first failure is an increase."""
        until(lambda: len(self.query("up == 1 and on (instance) proxbox_bridge_build_info")) == bridges)


class Rules(unittest.TestCase):
    def test_the_configuration_is_valid_with_and_without_the_token(self):
        text = (PROMETHEUS / "prometheus.yml").read_text()
        with tempfile.TemporaryDirectory() as directory:
            for name in ("rules.yml", "alerts.yml"):
                shutil.copy(PROMETHEUS / name, directory)
            token = pathlib.Path(directory) / "token"
            token.write_text("0123456789abcdef\n")
            text = text.replace(TOKEN, str(token))
            without, lines = re.subn(AUTHORIZATION, "", text)
            self.assertEqual(lines, 2)
            alertmanager = text.replace("# alerting:", "alerting:")
            alertmanager = re.sub(r"(?m)^# ( +(?:alertmanagers|- static_configs|- targets).*)$", r"\1", alertmanager)
            self.assertIn("\n        - targets", alertmanager)
            for each in (text, without, alertmanager):
                config = pathlib.Path(directory) / "prometheus.yml"
                config.write_text(each)
                output, succeeded = promtool("check", "config", config)
                self.assertTrue(succeeded, output)

    def test_the_rules_pass_their_tests(self):
        for name in ("rules.yml", "alerts.yml"):
            output, succeeded = promtool("check", "rules", PROMETHEUS / name)
            self.assertTrue(succeeded, output)
        for name in TESTS:
            output, succeeded = promtool("test", "rules", PROMETHEUS / name)
            self.assertTrue(succeeded, output)

    def test_every_alert_is_tested_to_fire_and_not_to_fire(self):
        tested = {name: [] for name in alerts()}
        for test in itertools.chain(*(read(name)["tests"] for name in TESTS)):
            series = len(test["input_series"])
            for case in test.get("alert_rule_test", []):
                tested[case["alertname"]].append((len(case["exp_alerts"]), series))
        for name, cases in tested.items():
            with self.subTest(name):
                self.assertTrue(any(fires for fires, _ in cases), "it never fires")
                self.assertTrue(any(not fires for fires, _ in cases), "it always fires")
                self.assertTrue(any(fires and fires < series for fires, series in cases), "no near miss")

    def test_every_recording_rule_is_named_by_its_level_and_tested(self):
        tested = [
            case["expr"]
            for name in TESTS
            for test in read(name)["tests"]
            for case in test.get("promql_expr_test", [])
        ]
        for name in recorded():
            with self.subTest(name):
                self.assertRegex(name, r"^instance(_[a-z]+)*:proxbox_bridge_[a-z0-9_]+:[a-z0-9_]+$")
                self.assertIn(name, tested)

    def test_every_alert_has_a_severity_and_a_section_in_the_runbook(self):
        text = (PROMETHEUS / "README.md").read_text()
        severities = set(re.findall(r"^\| `(\w+)` \| .*(?:page|day|information)", text, re.M))
        self.assertEqual(severities, {"critical", "warning", "info"})
        sections = re.findall(r"^### (Proxbox\w+)\n\n(\S.+)", text, re.M)
        self.assertEqual([name for name, _ in sections], list(alerts()), "one section for each, in their order")
        for name, rule in alerts().items():
            with self.subTest(name):
                self.assertIn(rule["labels"]["severity"], severities)
                self.assertEqual(set(rule["annotations"]), {"summary", "description", "runbook_url"})
                self.assertEqual(rule["annotations"]["runbook_url"], f"{RUNBOOK}#{name.lower()}")
        for link in re.findall(r"\]\(#([^)]+)\)", text):
            self.assertIn(link, {heading.lower() for heading in re.findall(r"^#+ (\w+)$", text, re.M)})


def conforms(value, wanted, place):
    """Yields a message for everything in `value` that is not of the type `wanted`."""
    origin, choices = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted in (typing.Any, object):
        # Panel options have classes that only the decoder knows.
        if not type(value).__module__.startswith("grafana_foundation_sdk."):
            return
        wanted = type(value)
    if origin is typing.Union:
        exact = [choice for choice in choices if type(value) is choice and not isinstance(value, (bool, int, float, str))]
        complaints = [list(conforms(value, choice, place)) for choice in exact or choices]
        yield from min(complaints, key=len)
    elif origin is list and isinstance(value, list):
        for index, item in enumerate(value):
            yield from conforms(item, choices[0], f"{place}[{index}]")
    elif origin is dict and isinstance(value, dict):
        for key, item in value.items():
            yield from conforms(item, choices[1], f"{place}.{key}")
    elif origin is typing.Literal:
        if value not in choices:
            yield f"{place}: {value!r} is none of {choices}"
    elif isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        if value not in [member.value for member in wanted]:
            yield f"{place}: {value!r} is none of {[member.value for member in wanted]}"
    elif wanted in (bool, int, float, str):
        known = (int, float) if wanted is float else wanted
        if not isinstance(value, known) or (isinstance(value, bool) and wanted is not bool):
            yield f"{place}: {value!r} is not {wanted.__name__}"
    elif isinstance(wanted, type) and isinstance(value, dict) and hasattr(wanted, "from_json"):
        # The decoder does not decode some objects.
        yield from conforms(wanted.from_json(value), wanted, place)
    elif origin is not None or not isinstance(value, wanted):
        yield f"{place}: {value!r} is not {wanted}"
    else:
        for name, kind in typing.get_type_hints(type(value), vars(sys.modules[type(value).__module__])).items():
            yield from conforms(getattr(value, name), kind, f"{place}.{name}")


def lost(before, after, place):
    """Yields a message for everything in `before` that is not in `after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key not in after:
                yield f"{place}.{key}: unknown"
            else:
                yield from lost(value, after[key], f"{place}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after)):
            yield from lost(old, new, f"{place}[{index}]")
    elif before != after:
        yield f"{place}: {before!r} has become {after!r}"


class Dashboard(unittest.TestCase):
    def test_it_matches_the_schema_of_grafana(self):
        register_default_plugins()
        shipped = dashboard()
        decoded = grafana.Dashboard.from_json(shipped)
        self.assertEqual(list(conforms(decoded, grafana.Dashboard, "dashboard")), [])
        self.assertEqual(list(lost(shipped, json.loads(JSONEncoder().encode(decoded)), "dashboard")), [])
        # The newest schema of the classic dashboard format.
        self.assertEqual(shipped["schemaVersion"], grafana.Dashboard().schema_version)

    def test_its_panels_do_not_overlap_and_have_descriptions(self):
        everything = dashboard()["panels"]
        ids = [panel["id"] for panel in everything]
        self.assertEqual(len(ids), len(set(ids)))
        rows = [panel["title"] for panel in everything if panel["type"] == "row"]
        self.assertEqual(rows, ["Overview", "Outcomes", "Backends", "Streams", "Listeners", "Ledger", "Process"])
        taken = {}
        for panel in everything:
            at = panel["gridPos"]
            self.assertLessEqual(at["x"] + at["w"], 24, panel["title"])
            for cell in itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])):
                self.assertIsNone(taken.setdefault(cell, None), f"{panel['title']} lies on {taken[cell]}")
                taken[cell] = panel["title"]
        known = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
        for panel in panels():
            with self.subTest(panel["title"]):
                self.assertRegex(panel["title"], r"^[A-Z0-9].*[^.]$")
                self.assertRegex(panel["description"], r"(?s)^[A-Z].*\.$")
                self.assertIn(panel["fieldConfig"]["defaults"]["unit"], known)
                self.assertIn(
                    panel["type"], {"timeseries", "stat", "table", "bargauge", "state-timeline"}, "none of those in use"
                )
                references = [target["refId"] for target in panel["targets"]]
                self.assertEqual(len(references), len(set(references)))
                for of in (panel, *panel["targets"]):
                    self.assertEqual(of["datasource"], {"type": "prometheus", "uid": "${datasource}"})
                for steps in filter(None, [panel["fieldConfig"]["defaults"].get("thresholds")]):
                    values = [step["value"] for step in steps["steps"]]
                    self.assertIsNone(values[0])
                    self.assertEqual(values[1:], sorted(values[1:]))

    def test_its_variables_are_defined_and_used(self):
        variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
        text = DASHBOARD.read_text()
        used = {name for names in re.findall(r"\$(\w+)|\$\{(\w+)\}", text) for name in names if name}
        self.assertEqual(used - {"__all", *GRAFANA_VARIABLES}, set(variables))
        self.assertEqual(variables.pop("datasource")["query"], "prometheus")
        for panel in panels():
            for target in panel["targets"]:
                for selector in selectors(substituted(target["expr"], variables)):
                    if selector.name != "ALERTS":
                        self.assertRegex(target["expr"], rf'{selector.name}\{{job=~"\$job", instance=~"\$instance"')

    def test_the_provisioning_has_the_shipped_prometheus_and_dashboard(self):
        sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())
        [source] = sources["datasources"]
        self.assertEqual((sources["apiVersion"], source["type"]), (1, "prometheus"))
        interval = read("prometheus.yml")["global"]["scrape_interval"]
        self.assertEqual(source["jsonData"]["timeInterval"], interval)
        providers = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "proxbox-bridge.yml").read_text())
        [provider] = providers["providers"]
        self.assertEqual((providers["apiVersion"], provider["type"]), (1, "file"))
        self.assertTrue(pathlib.PurePosixPath(provider["options"]["path"]).is_absolute())


class Metrics(unittest.TestCase):
    """The metrics of a running bridge, compared with documentation and expressions."""

    @classmethod
    def setUpClass(cls):
        with (
            Replay("0.0.2.post1", "--speed", "max") as backend,
            Bridge.for_backend(backend.address, env=LISTENER) as bridge,
        ):
            # Some metrics exist only after the backend was detected.
            status, _, _ = get(bridge.address, "/full-update/stream")
            assert status == 200, status
            status, headers, text = get(bridge.admin, "/metrics")
            assert status == 200, status
        cls.content_type = headers["Content-Type"]
        cls.metrics = Exposition(text)

    def test_promtool_check_metrics_reports_nothing(self):
        output, succeeded = promtool("check", "metrics", stdin=self.metrics.text)
        self.assertTrue(succeeded, output)
        self.assertEqual(output, "")
        self.assertTrue(self.content_type.startswith("text/plain; version=0.0.4"), self.content_type)

    def test_the_readme_lists_every_metric_with_type_and_labels(self):
        text = (PROMETHEUS / "README.md").read_text()
        rows = re.findall(r"^\| `((?:proxbox_bridge|process)_\w+)(?:\{([\w,]+)\})?` \| (\w+) \| (.+) \|$", text, re.M)
        written = {name: (kind, set(filter(None, labels.split(",")))) for name, labels, kind, _ in rows}
        self.assertEqual(len(written), len(rows), "a metric has two rows")
        live = {name: (kind, self.metrics.labels[name]) for name, kind in self.metrics.types.items()}
        self.assertEqual(written, live)

    def test_every_expression_uses_existing_metrics(self):
        for place, expression in expressions():
            names = {selector.name for selector in selectors(expression)}
            for name in names - BUILT_IN_METRICS - set(recorded()):
                self.assertIsNotNone(self.metrics.family(name), f"{place}: there is no {name}")
        for variable in dashboard()["templating"]["list"]:
            if variable["type"] == "query":
                name, label = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", variable["definition"]).groups()
                if name not in BUILT_IN_METRICS:
                    self.assertIn(label, self.metrics.labels[name] | {"job", "instance"})

    def test_every_metric_has_a_panel(self):
        shown = {selector.name for _, _, expression in queries() for selector in selectors(expression)}
        for name in [name for name in shown if name in recorded()]:
            shown |= {selector.name for selector in selectors(recorded()[name]["expr"])}
        self.assertEqual(set(self.metrics.types) - {self.metrics.family(name) for name in shown}, set())

    def test_prometheus_can_parse_every_expression(self):
        numbered = [
            {"record": f"shipped:expression:{number}", "expr": expression}
            for number, (_, expression) in enumerate(expressions())
        ]
        self.assertGreater(len(numbered), len(panels()))
        text = yaml.safe_dump({"groups": [{"name": "shipped", "rules": numbered}]})
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            file.write(text)
            file.flush()
            output, succeeded = promtool("check", "rules", file.name)
        self.assertTrue(succeeded, output)


class Scraped(unittest.TestCase):
    """A Prometheus that scrapes two bridges: one whose syncs complete, and one whose backend drops connections."""

    @classmethod
    def setUpClass(cls):
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            whole = stack.enter_context(Replay("0.0.2.post1", "--speed", "50"))
            cut = stack.enter_context(Replay("0.0.2.post1", "--speed", "50", "--cut-after", "3"))
            bridges = [
                stack.enter_context(Bridge.for_backend(backend.address, env=LISTENER)) for backend in (whole, cut)
            ]
            cls.prometheus = stack.enter_context(Prometheus(directory, [bridge.admin for bridge in bridges]))
            cls.prometheus.until_scraped(2)
            for bridge in bridges:
                get(bridge.address, "/full-update/stream")
                get(bridge.address, "/dcim/devices/create/stream")
                # Emulated by the bridge.
                get(bridge.address, "/health")
                # Not supported by this backend, and an invalid request.
                get(bridge.address, "/proxmox/sdn/create/stream")
                get(bridge.address, "/", headers={"Expect": "the best"})
            cls.addClassCleanup(stack.pop_all().close)

    def series(self, selector):
        return self.prometheus.api("series", **{"match[]": selector.prettify()})

    def test_every_selector_finds_series_and_every_grouping_its_labels(self):
        for place, expression in expressions():
            for node in nodes(expression) if ABSENT_CAUSE not in expression else []:
                with self.subTest(place, node=str(node)):
                    if isinstance(node, promql_parser.VectorSelector):
                        until(lambda: self.series(node))
                    elif grouping(node):
                        within = selectors(node.prettify())
                        labels = {label for each in within for series in self.series(each) for label in series}
                        self.assertLessEqual(grouping(node), labels)

    def test_every_query_of_the_dashboard_returns_the_labels_of_its_legend(self):
        for panel in panels():
            names = set()
            for title, legend, expression in [query for query in queries() if query[0] == panel["title"]]:
                with self.subTest(title, expression=expression):
                    if title in MAY_BE_EMPTY:
                        self.prometheus.query(expression)
                        continue
                    for answer in until(lambda: self.prometheus.query(expression)):
                        metric = answer["metric"]
                        self.assertLessEqual(set(re.findall(r"\{\{(\w+)\}\}", legend)), set(metric))
                        names.add(re.sub(r"\{\{(\w+)\}\}", lambda label: metric[label[1]], legend))
            with self.subTest(panel["title"]):
                overridden = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
                self.assertLessEqual(overridden, names | ABSENT_OUTCOMES)

    def test_only_the_expected_alert_fires(self):
        firing = until(lambda: self.prometheus.alerts("ProxboxJobFailed", kind="full-update"))
        self.assertEqual(len(firing), 1, "of one bridge only")
        until(lambda: self.prometheus.alerts("ProxboxSyncUnsupported", kind="sdn"))
        firing_names = {alert["labels"]["alertname"] for alert in self.prometheus.api("alerts")["alerts"]}
        self.assertEqual(firing_names, {"ProxboxJobFailed", "ProxboxSyncUnsupported"})


class Outage(unittest.TestCase):
    def test_alerts_fire_when_the_backend_drops_a_job_and_while_it_is_down(self):
        quick = ("alerts.yml", r"for: \d+m", "for: 2s")
        with (
            tempfile.TemporaryDirectory() as directory,
            Replay("0.0.2.post1", "--speed", "50", "--cut-after", "3") as backend,
            Bridge.for_backend(backend.address, env={"PROXBOX_BRIDGE_LIMITS_CHECK": "1s"}) as bridge,
            Prometheus(directory, [bridge.admin], quick) as prometheus,
        ):
            prometheus.until_scraped(1)
            self.assertEqual(prometheus.alerts("ProxboxJobFailed"), [])

            _, _, stream = get(bridge.address, "/full-update/stream")
            self.assertIn('"ok": false', stream)
            labels = {"instance": bridge.admin, "kind": "full-update", "outcome": "errored", "cause": "backend_lost"}
            [alert] = until(lambda: prometheus.alerts("ProxboxJobFailed", **labels))
            self.assertEqual(alert["state"], "firing")
            self.assertEqual(alert["labels"]["source"], "backend")
            self.assertEqual(alert["annotations"]["summary"], f"A full-update sync on {backend.address} failed: backend_lost.")

            self.assertEqual(prometheus.alerts("ProxboxBackendDown"), [])
            backend.stop()

            def down():
                found = prometheus.alerts("ProxboxBackendDown", backend=backend.address, instance=bridge.admin)
                return [alert for alert in found if alert["state"] == "firing"]

            [alert] = until(down)
            self.assertEqual(alert["labels"]["severity"], "critical")

            with Replay("0.0.2.post1", listen=backend.address):
                until(lambda: not prometheus.alerts("ProxboxBackendDown"))

    def test_an_alert_fires_when_the_bridge_is_down(self):
        quick = ("alerts.yml", r"for: \d+m", "for: 2s")
        with (
            tempfile.TemporaryDirectory() as directory,
            Replay("0.0.2.post1") as backend,
            Bridge.for_backend(backend.address) as bridge,
            Prometheus(directory, [bridge.admin], quick) as prometheus,
        ):
            prometheus.until_scraped(1)
            self.assertEqual(prometheus.alerts("ProxboxBridgeDown"), [])
            bridge.stop()
            until(lambda: [alert["state"] for alert in prometheus.alerts("ProxboxBridgeDown")] == ["firing"])

    def test_the_token_is_sent(self):
        seen = threading.Event()

        class Target(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.headers["Authorization"] == "Bearer 0123456789abcdef":
                    seen.set()
                self.send_response(401)
                self.end_headers()

            def log_message(self, *_):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Target)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with tempfile.TemporaryDirectory() as directory:
            token = pathlib.Path(directory) / "token"
            token.write_text("0123456789abcdef\n")
            with Prometheus(directory, [f"127.0.0.1:{server.server_port}"], token=token):
                until(seen.is_set)
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    unittest.main()
