"""The Helm chart, rendered by Helm's own engine, and compared with the manifests in deploy/kubernetes.

Needs kubectl, and helm-python-sdk and what test_kubernetes.py needs in the environment of the Python that runs it.
"""

import base64
import os
import tomllib
import unittest

if os.uname().machine != "x86_64":
    raise unittest.SkipTest("PyPI has Helm for x86_64 only")

import cloudcoil.models.prometheus_operator.v1 as operator
import helm_python
import helm_python.chart
import kubernetes_validate
import test_kubernetes
import yaml
from support import DEPLOY, ROOT
from test_docker import CLOSING, run, seconds
from test_kubernetes import KUBERNETES, RELEASES, kind

CHART = DEPLOY / "helm" / "proxbox-bridge"
NAME = "proxbox-bridge"
# What the chart adds to the objects, so that Helm finds its own and several releases are told apart.
ADDED = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "checksum/configuration",
    "helm.sh/chart",
}
# Every value, changed.
ALL = {
    "fullnameOverride": "bridge",
    "image": {"repository": "r.example/b", "tag": "1", "pullPolicy": "Always", "pullSecrets": [{"name": "registry"}]},
    "backend": {"url": "https://backend.example", "podLabels": None, "port": 8443},
    "drainSeconds": 90,
    "configuration": {
        "trusted_proxies": ["10.0.0.0/8"],
        "backend": {"object_failures": "any", "limits": {"idle": "10m"}},
        "limits": {"streams": 64, "all_logs_bytes": 67108864},
        "notify": [{"url": "https://hooks.example/?a=1&b=2", "on": ["failed"]}],
    },
    "env": [{"name": "PROXBOX_BRIDGE_LOG_FORMAT", "value": "json"}],
    "secret": {"existing": "tokens"},
    "persistence": {"size": "2Gi", "storageClass": "fast"},
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
    "networkPolicy": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.7/32"}}]}]},
    "serviceMonitor": {"enabled": True, "interval": "1m", "labels": {"release": "prometheus"}},
    "resources": {"limits": {"memory": "1Gi"}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
    "nodeSelector": {"e": "f"},
    "tolerations": [{"key": "g", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
}


def rendered(values=None, release=NAME):
    """The objects of a release."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values=values, name=release, namespace="netbox")
    texts = [text for path, text in sorted(files.items()) if not path.endswith("NOTES.txt")]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def one(objects, wanted, name=NAME):
    (found,) = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (wanted, name)]
    return found


def plain(value):
    """An object without what the chart adds, without the tag of the image, and with its configuration parsed."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {key: plain(item) for key, item in value.items() if key not in ADDED}
    result = {key: item for key, item in result.items() if (key, item) != ("annotations", {})}
    if "image" in result:
        result["image"] = result["image"].partition(":")[0]
    if "proxbox-bridge.toml" in result:
        result["proxbox-bridge.toml"] = tomllib.loads(result["proxbox-bridge.toml"])
    return result


def by_name(objects):
    return {(each["kind"], each["metadata"]["name"]): plain(each) for each in objects}


class Chart(unittest.TestCase):
    def test_helm_lint_reports_nothing(self):
        for values in [None, ALL]:
            report = helm_python.chart.lint(CHART, values, strict=True)
            self.assertEqual(report["errors"], [])
            # Charts of other projects have icons.
            self.assertEqual([found["error"] for found in report["messages"]], ["icon is recommended"])

    def test_its_versions_are_that_of_the_program(self):
        version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        self.assertEqual((chart["version"], chart["appVersion"]), (version, version))
        container = one(rendered(), "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
        self.assertEqual(container["image"], f"proxbox-bridge:{version}")

    def test_without_values_it_makes_the_objects_of_the_kustomization_and_a_secret(self):
        wanted = by_name(yaml.safe_load_all(run("kubectl", "kustomize", KUBERNETES)))
        made = by_name(rendered())
        secret = made.pop(("Secret", NAME))
        self.assertEqual(made, wanted)
        example = kind("Secret")
        self.assertEqual(secret["data"].keys(), example["stringData"].keys())
        self.assertEqual(len(base64.b64decode(secret["data"]["admin-token"])), 64)
        monitor = one(rendered({"serviceMonitor": {"enabled": True}}), "ServiceMonitor")
        self.assertEqual(plain(monitor), kind("ServiceMonitor"))

    def test_every_object_matches_the_schema_of_its_kind(self):
        for values in [None, ALL]:
            for document in rendered(values):
                if document["kind"] == "ServiceMonitor":
                    parsed = operator.ServiceMonitor.model_validate(document)
                    self.assertEqual(parsed.model_dump(by_alias=True, exclude_unset=True), document)
                    continue
                for release in RELEASES:
                    with self.subTest(document["kind"], release=release):
                        kubernetes_validate.validate(document, release, strict=True)

    def test_every_value_is_used(self):
        with helm_python.Chart.load(CHART) as chart:
            keys = chart.values.keys()
        self.assertEqual(ALL.keys(), keys)
        before = rendered({"secret": {"existing": "tokens"}})
        for name in keys - {"secret"}:
            with self.subTest(name):
                self.assertNotEqual(rendered({"secret": ALL["secret"], name: ALL[name]}), before)

    def test_unknown_and_invalid_values_are_refused(self):
        with helm_python.Chart.load(CHART) as chart:
            for values in [
                {"replicas": 2},
                {"image": {"version": "1"}},
                {"backend": {"url": "proxbox-api:8000"}},
                {"drainSeconds": "30s"},
                {"configuration": {"limits": {"drain": "60s"}}},
            ]:
                with self.subTest(values), self.assertRaises(helm_python.HelmValuesError):
                    chart.validate_schema(values)

    def test_the_grace_period_follows_the_drain(self):
        objects = rendered({"drainSeconds": 90})
        config = tomllib.loads(one(objects, "ConfigMap")["data"]["proxbox-bridge.toml"])
        self.assertEqual(config["limits"]["drain"], "90s")
        pod = one(objects, "StatefulSet")["spec"]["template"]["spec"]
        self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], seconds("90s") + CLOSING)

    def test_an_existing_secret_replaces_that_of_the_chart(self):
        objects = rendered({"secret": {"existing": "tokens"}, "serviceMonitor": {"enabled": True}})
        self.assertNotIn("Secret", [each["kind"] for each in objects])
        volumes = one(objects, "StatefulSet")["spec"]["template"]["spec"]["volumes"]
        self.assertIn("tokens", [volume["secret"]["secretName"] for volume in volumes if "secret" in volume])
        (endpoint,) = one(objects, "ServiceMonitor")["spec"]["endpoints"]
        self.assertEqual(endpoint["authorization"]["credentials"]["name"], "tokens")

    def test_a_backend_outside_the_cluster_has_no_policy(self):
        objects = rendered({"backend": {"podLabels": None}, "networkPolicy": {"egress": ALL["networkPolicy"]["egress"]}})
        (policy,) = [each for each in objects if each["kind"] == "NetworkPolicy"]
        (names, backend) = policy["spec"]["egress"]
        self.assertEqual(names["to"][0]["podSelector"]["matchLabels"], {"k8s-app": "kube-dns"})
        self.assertEqual([backend], ALL["networkPolicy"]["egress"])

    def test_releases_have_their_own_names_and_selectors(self):
        long = "a" * 53
        made = [rendered(release=release) for release in ["one", "two", long]]
        for objects, prefix in zip(made, ["one-proxbox-bridge", "two-proxbox-bridge", long[:52]]):
            for each in objects:
                name = each["metadata"]["name"]
                self.assertTrue(name.startswith(prefix), name)
                self.assertLessEqual(len(name), 63)
        services = [one(made[0], "Service", "one-proxbox-bridge"), one(made[1], "Service", "two-proxbox-bridge")]
        self.assertNotEqual(*[service["spec"]["selector"] for service in services])


class Configuration(test_kubernetes.Configuration):
    """The bridge with the configuration that the chart makes of values."""

    def setUp(self):
        super().setUp()
        self.file.write_text(one(rendered(ALL), "ConfigMap", "bridge")["data"]["proxbox-bridge.toml"])

    def test_it_has_the_values(self):
        config = tomllib.loads(self.file.read_text())
        wanted = ALL["configuration"]
        self.assertEqual(config["backend"], wanted["backend"] | {"url": ALL["backend"]["url"]})
        self.assertEqual(config["limits"], wanted["limits"] | {"drain": "90s"})
        for key in ["trusted_proxies", "notify"]:
            self.assertEqual(config[key], wanted[key])

    def test_several_backends_replace_the_one(self):
        backends = [{"name": name, "url": f"http://{name}", "hosts": [name], "limits": {"idle": "1m"}} for name in "ab"]
        config = one(rendered({"configuration": {"backend": backends}}), "ConfigMap")["data"]["proxbox-bridge.toml"]
        self.assertEqual(tomllib.loads(config)["backend"], backends)


if __name__ == "__main__":
    unittest.main()
