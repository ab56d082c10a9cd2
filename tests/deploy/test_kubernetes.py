"""The Kubernetes manifests: schemas, consistency with each other and with the bridge, and the pod under Podman.

Needs what test_docker.py needs, catatonit and kubectl (Debian: kubernetes-client), and kubernetes-validate and
cloudcoil.models.prometheus_operator in the environment of the Python that runs it.
"""

import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import tomllib
import unittest

import cloudcoil.models.prometheus_operator.v1 as operator
import kubernetes_validate
import yaml
from support import BRIDGE, DEPLOY, RECORDINGS, TIMEOUT, contained, free_port, until
from test_docker import CLOSING, CURL, DOCKERFILE, PROGRAM, run, seconds, with_image

KUBERNETES = DEPLOY / "kubernetes"
# Files that are not in the kustomization: a template, and one that needs the Prometheus operator.
NOT_IN_KUSTOMIZATION = {"secret.example.yaml", "servicemonitor.yaml"}
TOKEN = "0123456789abcdef0123456789abcdef"
# The Kubernetes releases to validate against: the oldest and the newest that the validator has.
RELEASES = ["1.25", kubernetes_validate.latest_version()]
# The volume types that the Pod Security level `restricted` allows.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def documents():
    """All objects of all files except the kustomization."""
    files = [path for path in sorted(KUBERNETES.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [document for path in files for document in yaml.safe_load_all(path.read_text())]


def kind(wanted, name="proxbox-bridge"):
    (found,) = [one for one in documents() if one["kind"] == wanted and one["metadata"]["name"] == name]
    return found


class Schema(unittest.TestCase):
    def test_every_object_matches_the_schema_of_its_kind(self):
        for document in documents():
            if document["kind"] == "ServiceMonitor":
                continue
            for release in RELEASES:
                with self.subTest(document["kind"], name=document["metadata"]["name"], release=release):
                    kubernetes_validate.validate(document, release, strict=True)

    def test_the_service_monitor_matches_the_model_of_the_operator(self):
        document = kind("ServiceMonitor")
        parsed = operator.ServiceMonitor.model_validate(document)
        # Unknown fields would be missing.
        self.assertEqual(parsed.model_dump(by_alias=True, exclude_unset=True), document)

    def test_the_kustomization_has_all_other_files(self):
        named = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
        files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
        self.assertEqual(set(named) | NOT_IN_KUSTOMIZATION, files)
        built = list(yaml.safe_load_all(run("kubectl", "kustomize", KUBERNETES)))
        wanted = [document for path in named for document in yaml.safe_load_all((KUBERNETES / path).read_text())]

        def names(objects):
            return sorted((one["kind"], one["metadata"]["name"]) for one in objects)

        self.assertEqual(names(built), names(wanted))
        for document in built:
            self.assertNotIn("namespace", document["metadata"])


class Pod(unittest.TestCase):
    """The pod, compared with the image and the other manifests."""

    def setUp(self):
        self.set = kind("StatefulSet")["spec"]
        self.pod = self.set["template"]["spec"]
        (self.container,) = self.pod["containers"]
        self.ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        self.config = tomllib.loads(kind("ConfigMap")["data"]["proxbox-bridge.toml"])
        self.mounts = {mount["mountPath"]: mount["name"] for mount in self.container["volumeMounts"]}
        self.volumes = {volume["name"]: volume for volume in self.pod["volumes"]}

    def test_there_is_one_replica(self):
        self.assertEqual(self.set["replicas"], 1)
        governing = kind("Service", self.set["serviceName"])
        self.assertEqual(governing["spec"]["clusterIP"], "None")

    def test_the_grace_period_covers_the_drain_and_the_last_bytes(self):
        drain = seconds(self.config["limits"]["drain"])
        self.assertGreaterEqual(self.pod["terminationGracePeriodSeconds"], drain + CLOSING)

    def test_the_pod_meets_the_restricted_level(self):
        security = {**self.pod["securityContext"], **self.container["securityContext"]}
        self.assertIs(security["runAsNonRoot"], True)
        self.assertIs(security["allowPrivilegeEscalation"], False)
        self.assertEqual(security["capabilities"], {"drop": ["ALL"]})
        self.assertEqual(security["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertIs(security["readOnlyRootFilesystem"], True)
        for volume in self.pod["volumes"]:
            self.assertLessEqual(set(volume) - {"name"}, VOLUMES)
        user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE.read_text(), re.MULTILINE).groups()
        self.assertEqual((str(security["runAsUser"]), str(security["runAsGroup"])), user)
        self.assertEqual(str(security["fsGroup"]), user[1])

    def test_the_configuration_is_mounted_where_the_image_expects_it(self):
        path = re.search(r"^ENV PROXBOX_BRIDGE_CONFIG=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)[1]
        directory, _, name = path.rpartition("/")
        volume = self.volumes[self.mounts[directory]]
        self.assertIn(name, kind("ConfigMap", volume["configMap"]["name"])["data"])

    def test_the_token_is_mounted_where_the_configuration_expects_it(self):
        directory, _, key = self.config["admin_token_file"].rpartition("/")
        secret = self.volumes[self.mounts[directory]]["secret"]
        self.assertEqual(secret["secretName"], kind("Secret")["metadata"]["name"])
        self.assertIn(key, kind("Secret")["stringData"])
        # Only its group can read it.
        self.assertEqual(secret["defaultMode"], 0o440)
        (endpoint,) = kind("ServiceMonitor")["spec"]["endpoints"]
        credentials = endpoint["authorization"]["credentials"]
        self.assertEqual(credentials, {"name": secret["secretName"], "key": key})

    def test_data_dir_is_on_the_volume(self):
        (claim,) = self.set["volumeClaimTemplates"]
        self.assertEqual(self.mounts[self.config["data_dir"]], claim["metadata"]["name"])

    def test_addresses_ports_services_and_policies_agree(self):
        for key, name in [("listen", "http"), ("admin_listen", "admin")]:
            self.assertEqual(self.config[key], f"0.0.0.0:{self.ports[name]}")
        labels = self.set["template"]["metadata"]["labels"]
        self.assertEqual(self.set["selector"]["matchLabels"], labels)
        for service, name in [("proxbox-bridge", "http"), ("proxbox-bridge-admin", "admin")]:
            spec = kind("Service", service)["spec"]
            (port,) = spec["ports"]
            self.assertEqual((port["name"], port["targetPort"], port["port"]), (name, name, self.ports[name]))
            self.assertEqual(spec["selector"], labels)

        policy = kind("NetworkPolicy")["spec"]
        self.assertEqual(policy["podSelector"]["matchLabels"], labels)
        allowed = [port["port"] for rule in policy["ingress"] for port in rule["ports"]]
        self.assertEqual(allowed, list(self.ports))
        backend = re.fullmatch(r"http://([^:]+):(\d+)", self.config["backend"]["url"]).groups()
        to_backend = policy["egress"][0]
        self.assertEqual(to_backend["to"][0]["podSelector"]["matchLabels"], {"app.kubernetes.io/name": backend[0]})
        self.assertEqual(to_backend["ports"], [{"protocol": "TCP", "port": int(backend[1])}])
        names = {(port["protocol"], port["port"]) for port in policy["egress"][1]["ports"]}
        self.assertEqual(names, {("UDP", 53), ("TCP", 53)})
        other = kind("NetworkPolicy", "proxbox-bridge-backend")["spec"]
        self.assertEqual(other["podSelector"], to_backend["to"][0]["podSelector"])
        bridge = {"podSelector": {"matchLabels": labels}}
        self.assertEqual(other["ingress"], [{"from": [bridge], "ports": to_backend["ports"]}])

    def test_the_service_monitor_selects_the_admin_service_only(self):
        monitor = kind("ServiceMonitor")["spec"]
        wanted = monitor["selector"]["matchLabels"].items()
        services = [one for one in documents() if one["kind"] == "Service"]
        (found,) = [one for one in services if wanted <= one["metadata"]["labels"].items()]
        self.assertIn(monitor["endpoints"][0]["port"], [port["name"] for port in found["spec"]["ports"]])
        # The job name that the rules select.
        general = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
        self.assertEqual(found["metadata"]["labels"][monitor["jobLabel"]], general["scrape_configs"][0]["job_name"])


class Configuration(unittest.TestCase):
    """The bridge with the configuration of the ConfigMap."""

    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="proxbox-bridge-kubernetes-"))
        self.addCleanup(shutil.rmtree, self.directory)
        (self.directory / "admin-token").write_text(TOKEN + "\n")
        self.file = self.directory / "proxbox-bridge.toml"
        self.file.write_text(kind("ConfigMap")["data"]["proxbox-bridge.toml"])
        # Replaces paths and host names that exist only in the cluster.
        self.variables = {
            "PROXBOX_BRIDGE_ADMIN_TOKEN_FILE": str(self.directory / "admin-token"),
            "PROXBOX_BRIDGE_DATA_DIR": str(self.directory / "data"),
            "PROXBOX_BRIDGE_BACKEND_URL": f"http://127.0.0.1:{free_port()}",
        }

    def run_check(self, **more):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PROXBOX_BRIDGE_")}
        done = subprocess.run(
            [BRIDGE, "check", "--json", "--config", self.file],
            env={**clean, **self.variables, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        return done.returncode, json.loads(done.stdout)["verdict"]

    def test_the_bridge_accepts_it(self):
        self.assertEqual(self.run_check(), (1, "failed"))

    def test_a_public_admin_listener_requires_the_token(self):
        del self.variables["PROXBOX_BRIDGE_ADMIN_TOKEN_FILE"]
        text = self.file.read_text()
        self.file.write_text(re.sub(r"^admin_token_file.*$", "", text, flags=re.MULTILINE))
        self.assertEqual(self.run_check(), (78, "misconfigured"))

    def test_service_variables_of_the_cluster_are_ignored(self):
        service = kind("Service")["metadata"]["name"].upper().replace("-", "_")
        variables = {f"{service}_SERVICE_HOST": "10.96.0.10", f"{service}_PORT": "tcp://10.96.0.10:8800"}
        self.assertEqual(self.run_check(**variables), (1, "failed"))


@contained
class PodmanPod(unittest.TestCase):
    """The pod of the StatefulSet under `podman kube play`, with its ConfigMap, its Secret and its volume claim."""

    def test_the_pod_answers_probes_without_the_token_and_scrapes_with_it(self):
        podman = with_image()
        self.addCleanup(podman, "pod", "rm", "--all", "--force", "--time", "1")
        stateful = kind("StatefulSet")
        pod = stateful["spec"]["template"]
        pod |= {"apiVersion": "v1", "kind": "Pod"}
        pod["metadata"]["name"] = "bridge"
        (container,) = pod["spec"]["containers"]
        container["image"] = "localhost/proxbox-bridge"
        # Podman runs probes with curl in the container, which does not have it.
        probes = [container.pop(probe)["httpGet"] for probe in ["startupProbe", "readinessProbe", "livenessProbe"]]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        (claim,) = stateful["spec"]["volumeClaimTemplates"]
        claim |= {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
        volume = {"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}
        pod["spec"]["volumes"].append(volume)
        # A backend with the host name in the configuration.
        config = kind("ConfigMap")
        url = tomllib.loads(config["data"]["proxbox-bridge.toml"])["backend"]["url"]
        host, port = re.fullmatch(r"http://([^:]+):(\d+)", url).groups()
        pod["spec"]["hostAliases"] = [{"ip": "127.0.0.1", "hostnames": [host]}]
        replay = ["replay", "/recordings/0.0.2.post1", "--listen", f"127.0.0.1:{port}", "--speed", "50"]
        backend = {"name": "backend", "image": "localhost/proxbox-bridge", "command": [PROGRAM], "args": replay}
        backend["volumeMounts"] = [{"name": "recordings", "mountPath": "/recordings", "readOnly": True}]
        pod["spec"]["containers"].append(backend)
        pod["spec"]["volumes"].append({"name": "recordings", "hostPath": {"path": str(RECORDINGS)}})
        # Fields that a cluster defaults, and Podman requires.
        secret = kind("Secret")
        secret["data"] = {key: base64.b64encode(TOKEN.encode()).decode() for key in secret.pop("stringData")}
        (mounted,) = [volume["secret"] for volume in pod["spec"]["volumes"] if "secret" in volume]
        mounted["optional"] = False
        manifest = podman.directory / "manifest.yaml"
        manifest.write_text(yaml.safe_dump_all([config, secret, claim, pod]))
        podman("kube", "play", manifest)

        def fetched(url, *more):
            try:
                return podman.within("bridge-bridge", *CURL, *more, url)
            except AssertionError as error:
                logs = podman("logs", "bridge-bridge")
                self.assertEqual(podman.state("bridge-bridge")["Status"], "running", logs)
                raise OSError(error, logs) from None

        for probe in probes:
            address = f"http://127.0.0.1:{ports[probe['port']]}{probe['path']}"
            until(lambda address=address: fetched(address))
        stream = fetched(f"http://127.0.0.1:{ports['http']}/full-update/stream")
        self.assertRegex(stream, r'event: complete\ndata: \{"ok": true')
        # The token as mounted: old releases of Podman do not decode it.
        volume = podman("volume", "mount", mounted["secretName"]).strip()
        token = podman.inside("cat", f"{volume}/admin-token")
        self.assertIn(token, [TOKEN, *secret["data"].values()])
        (endpoint,) = kind("ServiceMonitor")["spec"]["endpoints"]
        metrics = f"http://127.0.0.1:{ports[endpoint['port']]}{endpoint['path']}"
        with self.assertRaisesRegex(OSError, "401"):
            fetched(metrics)
        bearer = f"Authorization: {endpoint['authorization']['type']} {token}"
        self.assertIn("proxbox_bridge_", fetched(metrics, "--header", bearer))
        grace = pod["spec"]["terminationGracePeriodSeconds"]
        podman("stop", "--time", str(grace), "bridge-bridge")
        self.assertEqual(podman.state("bridge-bridge")["ExitCode"], 0)


if __name__ == "__main__":
    unittest.main()
