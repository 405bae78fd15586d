"""Pods and services of a small environment as the API server shows them."""

from __future__ import annotations

from typing import Any

from infra.kubernetes.plan import KubernetesPlan
from infra.topology import parse

TOPOLOGY: dict[str, Any] = {
    "breakwater:runtime": "kubernetes",
    "breakwater:chaos": {"enabled": True, "components": ["postgres", "h2o"]},
    "breakwater:postgres": {"shards": 1, "members_per_shard": 3},
    "breakwater:h2o": {"nodes": 3},
    "breakwater:kubernetes": {
        "context": "test",
        "runners": ["10.0.0.0/8"],
        "images": {"registry": "localhost/breakwater", "tag": "1"},
        "edge": {"service": "NodePort", "hosts": ["edge.example.org"]},
    },
}


def plan(**kubernetes: Any) -> KubernetesPlan:
    given = {**TOPOLOGY, "breakwater:kubernetes": {**TOPOLOGY["breakwater:kubernetes"], **kubernetes}}
    return KubernetesPlan(parse({"config": given}, "testing", source="test"))


def pod(
    name: str,
    component: str,
    *,
    node: str = "10.0.0.1",
    ready: bool = True,
    waiting: str | None = None,
    containers: tuple[str, ...] = ("server",),
    job: str | None = None,
) -> dict[str, Any]:
    """A pod that runs, or whose containers wait for a reason; of a job, where one is named."""
    workload, _, shard = component.partition("/shard-")
    labels = {"app.kubernetes.io/component": workload} | ({"breakwater.dev/shard": shard} if shard else {})
    state = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
    statuses = [{"name": each, "image": f"{workload}:1", "restartCount": 0, "state": state} for each in containers]
    sidecars = [{"name": "warden", "image": "postgres:1", "restartCount": 0, "state": state}] if shard else []
    owner = {"apiVersion": "batch/v1", "kind": "Job"} if job else {"apiVersion": "apps/v1", "kind": "ReplicaSet"}
    owners = [{**owner, "name": job or workload, "uid": "uid-of-owner"}]
    configured = {"name": "configure", "image": "postgres:1", "state": {"terminated": {"exitCode": 0}}}
    return {
        "metadata": {"name": name, "uid": f"uid-of-{name}", "labels": labels, "ownerReferences": owners},
        "status": {
            "hostIP": node,
            "conditions": [{"type": "Ready", "status": "True" if ready and not waiting else "False"}],
            "initContainerStatuses": [configured, *sidecars],
            "containerStatuses": statuses,
        },
    }


def shard_pods() -> list[dict[str, Any]]:
    return [pod(f"shard-0-{i}", "postgres/shard-0", node=f"10.0.0.{i + 1}") for i in range(3)]


def services(made: KubernetesPlan) -> list[dict[str, Any]]:
    """What the program asks for, as Kubernetes gave it node ports: each its own, from 30000 on."""
    given = iter(range(30000, 31000))
    reached = [
        {
            "metadata": {"name": entry.service},
            "spec": {"ports": [{"port": port, "nodePort": next(given)} for port in entry.ports.values()]},
        }
        for entry in made.reached_members()
    ]
    edge = {"metadata": {"name": "edge"}, "spec": {"ports": [{"port": 443, "nodePort": 32443}]}, "status": {}}
    return [*reached, edge]
