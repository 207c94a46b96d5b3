"""The chart against a real Kubernetes API: `make chart-e2e`. Not part of `make test`, for it takes ten minutes to build the first time.

etcd, the API server, the controllers and the scheduler are the real ones; the node is a thread that says of every pod that it runs. So what
is shown is all that Kubernetes itself decides: that it takes every object, that the pods pass the restricted Pod Security Standard of
their namespace, that Deployments roll over, and that an upgrade, a rollback and an uninstallation leave what they should. What containers
do is shown by test_programs.py.
"""

import json
import pathlib
import secrets
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
import yaml
from charts import BIN, CHART, SETS, value_files
from schemas import CUSTOM, module

PATIENCE_SECONDS = 180
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {
        "name": "node-0",
        "labels": {"kubernetes.io/hostname": "node-0", "kubernetes.io/arch": "amd64", "topology.kubernetes.io/zone": "a"},
    },
}
ROOM = {"cpu": "64", "memory": "256Gi", "pods": "500", "ephemeral-storage": "500Gi"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """A Kubernetes on loopback, in a folder of its own."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen] = []
        self.token = secrets.token_hex(16)
        self.url = f"https://127.0.0.1:{free_port()}"
        self.kubeconfig = folder / "kubeconfig"
        self.ending = threading.Event()
        self.kubelet = threading.Thread(target=self.run_pods)

    def start(self, name: str, *args: object) -> None:
        log = (self.folder / f"{name}.log").open("w")
        self.running.append(subprocess.Popen([BIN / name, *map(str, args)], stdout=log, stderr=subprocess.STDOUT, cwd=self.folder))

    def up(self) -> None:
        """Starts everything, and returns once a node is ready."""
        etcd = f"http://127.0.0.1:{free_port()}"
        peers = f"http://127.0.0.1:{free_port()}"
        self.start(
            "etcd", "--data-dir=etcd", f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}", f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=default={peers}", "--unsafe-no-fsync",
        )  # fmt: skip
        key = self.folder / "service-accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        (self.folder / "tokens.csv").write_text(f"{self.token},admin,admin,system:masters\n")
        self.start(
            "kube-apiserver", f"--etcd-servers={etcd}", "--bind-address=127.0.0.1", f"--secure-port={self.url.rsplit(':', 1)[1]}",
            "--cert-dir=certs", "--token-auth-file=tokens.csv", "--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
        )  # fmt: skip
        self.kubeconfig.write_text(
            yaml.safe_dump({
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": self.url, "insecure-skip-tls-verify": True}}],
                "users": [{"name": "u", "user": {"token": self.token}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            })
        )
        until("the API server is ready", lambda: self.ask("GET", "/readyz")[0] == 200)
        # The node's own controller would miss its heartbeat.
        self.start(
            "kube-controller-manager", f"--kubeconfig={self.kubeconfig}", f"--service-account-private-key-file={key}", "--leader-elect=false",
            "--secure-port=0", "--controllers=*,-node-lifecycle-controller",
        )  # fmt: skip
        self.start("kube-scheduler", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0")
        self.create("/api/v1/nodes", NODE)
        self.change("/api/v1/nodes/node-0", {"spec": {"taints": None}})
        ready = [{"type": "Ready", "status": "True", "reason": "Test", "message": "a thread"}]
        self.change("/api/v1/nodes/node-0/status", {"status": {"capacity": ROOM, "allocatable": ROOM, "conditions": ready}})
        self.kubelet.start()
        # Of this name one of the sets expects to find one.
        priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000}
        self.create("/apis/scheduling.k8s.io/v1/priorityclasses", priority)
        # And of this one that Grafana is there, for which it leaves a data source and a dashboard.
        self.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "observability"}})
        for version, files in CUSTOM.items():
            for file in files:
                self.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", yaml.safe_load((module(version) / file).read_text()))

    def ask(self, method: str, path: str, body: dict | None = None) -> tuple[int, dict | str]:
        """Returns the status and the answer of a request to the API."""
        request = urllib.request.Request(f"{self.url}{path}", method=method, data=body and json.dumps(body).encode())
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", "application/strategic-merge-patch+json" if method == "PATCH" else "application/json")
        try:
            # Its certificate is one that it has just made for itself.
            with urllib.request.urlopen(request, timeout=30, context=ssl._create_unverified_context()) as answer:
                text = answer.read().decode()
                return answer.status, json.loads(text) if text.startswith("{") else text
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def create(self, path: str, body: dict) -> None:
        status, answer = self.ask("POST", path, body)
        assert status == 201, answer

    def change(self, path: str, patch: dict) -> int:
        """Merges something into an object, and returns the status of the answer."""
        return self.ask("PATCH", path, patch)[0]

    def run_pods(self) -> None:
        """Does what a kubelet would, as far as the API can tell: pods that were scheduled run and are ready, those that are to end are gone."""
        while not self.ending.wait(0.2):
            status, answer = self.ask("GET", "/api/v1/pods")
            for pod in answer["items"] if status == 200 else []:
                path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
                if "deletionTimestamp" in pod["metadata"]:
                    self.ask("DELETE", f"{path}?gracePeriodSeconds=0")
                elif pod["spec"].get("nodeName") and pod["status"]["phase"] == "Pending":
                    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                    conditions = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in ("Initialized", "ContainersReady", "Ready")]
                    self.change(f"{path}/status", {"status": {"phase": "Running", "startTime": now, "conditions": conditions}})

    def names(self, namespace: str, path: str) -> list[str]:
        """Returns the names of what lies under a path of a namespace."""
        status, answer = self.ask("GET", f"{path.replace('NAMESPACE', f'namespaces/{namespace}')}")
        assert status == 200, answer
        return sorted(item["metadata"]["name"] for item in answer["items"])

    def namespace(self, name: str) -> str:
        """Makes a namespace that lets in restricted pods alone, with the account that one of the sets expects to be there."""
        self.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
        self.create(f"/api/v1/namespaces/{name}/serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "existing"}})
        return name

    def helm(self, *args: object) -> str:
        done = subprocess.run([BIN / "helm", "--kubeconfig", self.kubeconfig, *map(str, args)], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        assert done.returncode == 0, f"helm {' '.join(map(str, args))}: {done.stdout}{done.stderr}"
        # Kubernetes warns of what it takes and does not like.
        assert "warning" not in done.stderr.lower(), done.stderr
        return done.stdout

    def down(self) -> None:
        self.ending.set()
        if self.kubelet.is_alive():
            self.kubelet.join()
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def until(what: str, condition):
    """Waits until a condition returns something, and returns that."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"waited {PATIENCE_SECONDS} s until {what}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Kubernetes with one node that only says that it is one."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


DEPLOYMENTS = "/apis/apps/v1/NAMESPACE/deployments"
SERVICES = "/api/v1/NAMESPACE/services"


def test_install_upgrade_rollback_uninstall(cluster: Cluster) -> None:
    """With no values at all; then to a storage of one's own; back; and away."""
    space = cluster.namespace("life")
    notes = cluster.helm("install", "glow", CHART, "-n", space, "--wait", "--timeout=120s")
    assert "THIS IS A TRIAL" in notes
    trial = ["glow-afterglow-demo-bucket", "glow-afterglow-ingester", "glow-afterglow-querier"]
    assert cluster.names(space, DEPLOYMENTS) == trial

    cluster.helm("upgrade", "glow", CHART, "-n", space, "--wait", "--timeout=120s", *value_files("ha"))
    tiers = ["glow-afterglow-agent", "glow-afterglow-ingester", "glow-afterglow-maintainer", "glow-afterglow-querier"]
    assert cluster.names(space, DEPLOYMENTS) == tiers
    assert cluster.names(space, "/apis/autoscaling/v2/NAMESPACE/horizontalpodautoscalers") == ["glow-afterglow-ingester", "glow-afterglow-querier"]
    assert "glow-afterglow-demo-bucket" not in cluster.names(space, "/api/v1/NAMESPACE/secrets")

    cluster.helm("rollback", "glow", "1", "-n", space, "--wait", "--timeout=120s")
    assert cluster.names(space, DEPLOYMENTS) == trial

    cluster.helm("uninstall", "glow", "-n", space, "--wait", "--timeout=120s")
    assert cluster.names(space, DEPLOYMENTS) == []
    assert cluster.names(space, SERVICES) == []
    assert cluster.names(space, "/apis/networking.k8s.io/v1/NAMESPACE/networkpolicies") == []


@pytest.mark.parametrize("values", SETS)
def test_kubernetes_takes_every_set_of_values(cluster: Cluster, values: str) -> None:
    space = cluster.namespace(f"set-{values}")
    cluster.helm("install", "glow", CHART, "-n", space, *value_files(values))

    def unready() -> list[str]:
        waiting = []
        for kind in ("deployments", "daemonsets"):
            status, answer = cluster.ask("GET", f"/apis/apps/v1/namespaces/{space}/{kind}")
            assert status == 200, answer
            for item in answer["items"]:
                # A set on each node has no number of its own: one here, as there is one node.
                wanted = item["spec"].get("replicas", 1)
                if item["status"].get("readyReplicas", item["status"].get("numberReady", 0)) < wanted:
                    waiting.append(item["metadata"]["name"])
        return waiting

    until(f"all pods of {values} are ready", lambda: not unready())
    # A pod that the namespace's standard refuses shows as an event of its ReplicaSet, never as a pod.
    status, events = cluster.ask("GET", f"/api/v1/namespaces/{space}/events")
    assert status == 200
    assert [event["message"] for event in events["items"] if event["reason"] in ("FailedCreate", "FailedScheduling")] == []


def test_a_pod_that_may_do_more_is_refused(cluster: Cluster) -> None:
    """What the test above rests on."""
    space = cluster.namespace("refuses")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    until("the namespace has its account", lambda: "default" in cluster.names(space, "/api/v1/NAMESPACE/serviceaccounts"))
    status, answer = cluster.ask("POST", f"/api/v1/namespaces/{space}/pods", pod)
    assert status == 403 and 'violates PodSecurity "restricted:latest"' in json.loads(answer)["message"]
