"""The rendered platform on a real cluster: healthy, restricted, serving; a second apply changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import pytest

from infra.kubernetes.plan import FLOWS
from tests.kubernetes.flows import opened
from tests.kubernetes.load import FEATURES, NAMED, running
from tests.kubernetes.platform import KubectlFailed, Platform, ready

Record = Callable[[str, object], None]
HEALTHY_S = 300.0
LOOK_S = 60.0
STEADY = {
    ("edge", "api", 8080),
    ("api", "postgres", 5432),
    ("api", "redis", 6379),
    ("api", "etcd", 2379),
    ("postgres", "postgres", 5432),
    ("postgres", "etcd", 2379),
    ("etcd", "etcd", 2380),
    ("h2o", "h2o", 54322),
    ("h2o", "etcd", 2379),
    ("registry", "etcd", 2379),
}
"""Connections that stand as long as the platform does: without them the look has seen nothing."""


def test_everything_is_healthy_within_five_minutes(installed: tuple[Platform, float], record_property: Record) -> None:
    platform, seconds = installed
    record_property("healthy_s", f"{seconds:.0f}")
    assert seconds < HEALTHY_S
    assert len([pod for pod in platform.pods("h2o") if ready(pod)]) == platform.plan.topology.h2o.nodes


@pytest.mark.usefixtures("model")
def test_predictions_come_through_the_edge_once_a_model_is_trained(platform: Platform) -> None:
    headers = {"Authorization": f"Bearer {platform.token()}", "Host": "localhost"}
    with platform.edge() as url, httpx.Client(verify=platform.trust(), timeout=5.0, headers=headers) as client:
        first = client.post(f"{url}/v1/predict", json={"features": FEATURES}, extensions=NAMED)
        again = client.post(f"{url}/v1/predict", json={"features": FEATURES}, extensions=NAMED)
    assert first.status_code == 200, first.text
    assert 0 < first.json()["probability"] < 1
    assert again.json() == first.json() | {"source": "cache"}


def test_every_pod_was_admitted_under_pod_security_restricted(platform: Platform) -> None:
    (namespace,) = platform.get("namespaces", "--field-selector", f"metadata.name={platform.plan.namespace}")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for kind in ("statefulsets", "deployments"):
        for made in platform.get(kind):
            wanted = made["spec"]["replicas"]
            assert made["status"].get("replicas") == wanted, f"{made['metadata']['name']} has not all of its pods"
    with pytest.raises(KubectlFailed, match="violates PodSecurity"):
        platform.kubectl("run", "privileged", "--image=none", "--privileged", "--dry-run=server")


@pytest.mark.usefixtures("model")
def test_a_second_apply_changes_nothing(platform: Platform) -> None:
    objects = [made for made in platform.objects() if made["kind"] != "Job"]
    before = platform.identities()
    assert platform.difference(objects) == ""
    platform.apply(objects)
    assert platform.identities() == before


@pytest.mark.usefixtures("model")
def test_connections_are_those_that_the_network_rules_let_through(platform: Platform) -> None:
    """Whether or not the cluster enforces the rules (tests/cluster does not): who connects to whom, as sockets tell."""
    allowed = {(flow.source, flow.target, port) for flow in FLOWS for port in flow.ports}
    seen: set[tuple[str, str, int]] = set()
    with running(platform):
        end = time.monotonic() + LOOK_S
        while time.monotonic() < end and not seen >= STEADY:
            seen |= opened(platform)
    assert seen >= STEADY
    assert seen <= allowed
