"""What the API server's refusals become; it is a fake that answers as a real one was seen to answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.config import kube_config

from infra.environment import EnvironmentFault
from infra.kubernetes import strike
from infra.kubernetes.cluster import Cluster, ClusterRefuses
from infra.kubernetes.pod import Pod
from tests.integration.coordination.etcd_cluster import free_ports
from tests.unit.infra.kubernetes.pods import pod

CONTEXT = "test"


class ApiServer(BaseHTTPRequestHandler):
    """The namespace decides what is answered: `denied`, `nothing`, or anything else."""

    requests: list[str]
    adapter: tuple[int, dict[str, Any]] = (404, {"message": "the server could not find the requested resource"})

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        self.requests.append(f"GET {self.path}")
        if "/denied" in self.path:
            self._answer(403, {"message": 'pods is forbidden: User "x" cannot do that'})
        elif "/expired" in self.path:
            self._answer(401, {"message": "Unauthorized"})
        elif self.path.endswith("/namespaces/nothing"):
            self._answer(404, {"message": 'namespaces "nothing" not found'})
        elif "custom.metrics" in self.path:
            self._answer(*self.adapter)
        elif self.path == "/version/":
            self._answer(200, {"major": "1", "minor": "34+", "gitVersion": "v1.34.1-cloud.2"})
        elif self.path.startswith("/apis/storage.k8s.io/v1/storageclasses"):
            self._answer(200, {"kind": "StorageClassList", "items": [{"metadata": {"name": "fast"}}]})
        elif "/resourcequotas" in self.path:
            self._answer(200, {"kind": "ResourceQuotaList", "items": [{"spec": {"hard": {"pods": "5"}}}]})
        elif "/exec" in self.path:
            self._answer(404, {"message": 'pods "gone" not found'})
        else:
            listed = {**pod("api-abc", "api"), "spec": {"containers": [{"name": "server", "image": "api:1"}]}}
            for each in (status := listed["status"])["containerStatuses"]:
                each |= {"ready": True, "imageID": ""}
            del status["initContainerStatuses"]
            self._answer(200, {"kind": "PodList", "items": [listed]})

    def do_DELETE(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.requests.append(f"DELETE {self.path} {body.decode()}")
        self._answer(200, {"kind": "Pod", "metadata": {"name": "api-abc"}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.requests.append(f"POST {body}")
        asked = json.loads(body)["spec"]["resourceAttributes"]
        self._answer(201, {"status": {"allowed": asked["verb"] == "get"}})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def kubeconfig(path: Path, port: int) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def use(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    """As a process does that starts with KUBECONFIG set: the client looks at it once, when it is imported."""
    monkeypatch.setenv("KUBECONFIG", str(config))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(config))


@contextmanager
def answering(handler: type[ApiServer]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """What the API server was asked, while it answers as the only cluster of the kubeconfig."""
    asked: list[str] = []
    with answering(type("Recording", (ApiServer,), {"requests": asked})) as port:
        use(monkeypatch, kubeconfig(tmp_path / "kubeconfig", port))
        yield asked


def test_pods_are_listed_by_label(requests: list[str]) -> None:
    (found,) = Cluster.of(CONTEXT, "here").pods("a=b")
    assert found["metadata"]["name"] == "api-abc"
    assert requests == ["GET /api/v1/namespaces/here/pods?labelSelector=a%3Db"]


def test_what_is_not_allowed_or_not_there_is_one_clear_error(requests: list[str]) -> None:
    with pytest.raises(ClusterRefuses, match=r"not allowed to list pods in denied .* use the account"):
        Cluster.of(CONTEXT, "denied").pods("")
    with pytest.raises(ClusterRefuses, match="does not know who asks"):
        Cluster.of(CONTEXT, "expired").pods("")
    assert Cluster.of(CONTEXT, "nothing").space() is None
    with pytest.raises(EnvironmentFault, match=r"could not run a command in gone/server \(Handshake status 404"):
        Cluster.of(CONTEXT, "here").command("gone", "server", ["true"])
    assert Cluster.of(CONTEXT, "here").may("get", "", "pods/exec")
    assert not Cluster.of(CONTEXT, "here").may("delete", "", "pods")
    asked = json.loads(requests[-1].removeprefix("POST "))
    assert asked["spec"]["resourceAttributes"]["name"] == ""
    assert Cluster.of(CONTEXT, "here").may("get", "", "pods/exec", "shard-0-0")
    attributes = json.loads(requests[-1].removeprefix("POST "))["spec"]["resourceAttributes"]
    assert (attributes["subresource"], attributes["name"]) == ("exec", "shard-0-0")
    with pytest.raises(ClusterRefuses, match=r"not allowed to run a command in p/c in denied \(.*use the account"):
        Cluster.of(CONTEXT, "denied").command("p", "c", ["true"])


def test_a_fault_that_was_refused_or_matched_nothing_is_an_error(requests: list[str]) -> None:
    victim = Pod.of(pod("api-abc", "api"))
    strike.delete_pod(Cluster.of(CONTEXT, "here"), victim)
    assert requests[-1].startswith("DELETE /api/v1/namespaces/here/pods/api-abc")
    assert '"gracePeriodSeconds": 0' in requests[-1]
    with pytest.raises(ClusterRefuses, match="not allowed to delete pod api-abc"):
        strike.delete_pod(Cluster.of(CONTEXT, "denied"), victim)
    with pytest.raises(EnvironmentFault, match="deleting api-ab matched nothing"):
        strike.delete_pod(Cluster.of(CONTEXT, "here"), Pod.of(pod("api-ab", "api")))


def test_a_cluster_that_is_away_and_a_context_that_is_missing_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (closed,) = free_ports(1)
    config = kubeconfig(tmp_path / "kubeconfig", closed)
    use(monkeypatch, config)
    away = Cluster.of(CONTEXT, "here")
    with pytest.raises(ClusterRefuses, match=rf"\(http://127.0.0.1:{closed}\) does not answer.*is this its kubeconfig"):
        away.pods("")
    with pytest.raises(ClusterRefuses, match=r"does not answer, so it could not run a command in p/c"):
        away.command("p", "c", ["true"])
    with pytest.raises(ClusterRefuses, match=r"no usable context production .* no other context is ever used"):
        Cluster.of("production", "here")
    config.write_text("{")
    with pytest.raises(ClusterRefuses, match="no usable context"):
        Cluster.of(CONTEXT, "here")
    monkeypatch.setenv("KUBECONFIG", f"{config}:{config}")
    with pytest.raises(ClusterRefuses, match="names several files"):
        Cluster.of(CONTEXT, "here")


def test_whether_an_adapter_serves_metrics_of_pods(requests: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster.of(CONTEXT, "here")
    assert not cluster.custom_metrics()
    assert requests == [f"GET /apis/custom.metrics.k8s.io/{version}" for version in ("v1beta2", "v1beta1")]
    monkeypatch.setattr(ApiServer, "adapter", (503, {"message": "service unavailable"}))
    with pytest.raises(ClusterRefuses, match=r"refused to ask for custom\.metrics\.k8s\.io/v1beta2 .* 503"):
        cluster.custom_metrics()
    monkeypatch.setattr(ApiServer, "adapter", (200, {"kind": "APIResourceList", "resources": []}))
    assert cluster.custom_metrics()


def test_what_preflight_asks_is_asked_of_the_server(requests: list[str]) -> None:
    cluster = Cluster.of(CONTEXT, "here")
    assert cluster.version() == (1, 34)
    assert [each["metadata"]["name"] for each in cluster.storage_classes()] == ["fast"]
    assert cluster.quotas() == [{"spec": {"hard": {"pods": "5"}}}]
    assert [asked.removeprefix("GET ").partition("?")[0] for asked in requests] == [
        "/version/",
        "/apis/storage.k8s.io/v1/storageclasses",
        "/api/v1/namespaces/here/resourcequotas",
    ]
    with pytest.raises(ClusterRefuses, match="not allowed to list quotas in denied"):
        Cluster.of(CONTEXT, "denied").quotas()
