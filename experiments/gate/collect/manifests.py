"""What an environment is made of: its topology's name, its images, its rendered objects under the policies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from experiments.gate.facts import Heap, PolicyCheck
from experiments.gate.judgement import Subject
from infra.kubernetes import render
from infra.kubernetes.plan import KubernetesPlan
from infra.on_kubernetes import IMAGES
from infra.policy.model import COMPONENT, Environment, Resource, at, containers, of_kind, pod_labels
from infra.policy.rules import RULES, judge
from infra.topology import Topology, environments, load

KUBERNETES: Final = "kubernetes"
_HEAP: Final = re.compile(r'"heap_mb": (\d+)')


def subject(topology: Topology, commit: str | None) -> Subject:
    """What the gate examines, by commit, topology and images."""
    settings = topology.kubernetes
    images = {} if settings is None else {name: settings.images.reference(name) for name in IMAGES}
    return Subject(environment=topology.environment, commit=commit, topology=topology.digest(), images=images)


def deployed(project: Path, topology: Topology) -> list[Topology]:
    """The environments whose objects the policies judge: its own, or for a local one all that this commit deploys."""
    if topology.runtime == KUBERNETES:
        return [topology]
    others = (load(project, name) for name in environments(project))
    return [other for other in others if other.runtime == KUBERNETES]


def policy_check(topology: Topology, objects: Sequence[Resource]) -> PolicyCheck:
    breaches = judge(objects, Environment(topology.environment))
    return PolicyCheck(topology.environment, len(RULES), len(objects), tuple(str(breach) for breach in breaches))


def rendered(topology: Topology) -> list[Resource]:
    return list(render.manifests(KubernetesPlan(topology)))


def rendered_heaps(environment: str, objects: Sequence[Resource]) -> Iterator[Heap]:
    """Heap in each H2O node's configuration beside the memory limit of its container."""
    for workload in of_kind(objects, "StatefulSet"):
        if pod_labels(workload).get(COMPONENT) != "h2o":
            continue
        limit = str(at(containers(workload)[0], "resources", "limits", "memory") or "")
        limit_mb = int(limit.removesuffix("Mi")) if re.fullmatch(r"\d+Mi", limit) else None
        name = at(workload, "metadata", "name")
        for config in of_kind(objects, "ConfigMap"):
            if at(config, "metadata", "name") != name:
                continue
            for key, text in sorted((config.get("data") or {}).items()):
                heap = _HEAP.search(text)
                yield Heap(f"rendered {environment} {key}", False, int(heap[1]) if heap else None, limit_mb)
