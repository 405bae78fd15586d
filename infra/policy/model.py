"""What rules see and say: resources as Kubernetes takes them, workloads with their pods, findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Resource = Mapping[str, Any]
"""One manifest: camelCase, plain types; what is not set is missing."""

KNOWN_KINDS: Final = frozenset(
    {
        *("Namespace", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "NetworkPolicy"),
        *("Secret", "ConfigMap", "PersistentVolumeClaim", "Service", "PodDisruptionBudget"),
        *("StatefulSet", "Job", "Deployment", "DaemonSet", "HorizontalPodAutoscaler"),
    }
)
"""What the rules look into. Anything else could make pods, or let somebody in, that no rule has seen."""
POD_KINDS: Final = frozenset({"Deployment", "StatefulSet", "DaemonSet", "Job"})
COMPONENT: Final = "app.kubernetes.io/component"


@dataclass(frozen=True, slots=True)
class Environment:
    """What rules must know of the environment: production demands more."""

    name: str

    @property
    def production(self) -> bool:
        return self.name == "production"


@dataclass(frozen=True, slots=True)
class Finding:
    """One breach: of which rule, by which object, and what is wrong with it."""

    rule: str
    object: str
    message: str

    def __str__(self) -> str:
        return f"{self.object}: {self.message} [{self.rule}]"


Check = Callable[[Sequence[Resource], Environment], Iterable[tuple[Resource, str]]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A name, what it demands (one sentence), and a pure function that yields each breach."""

    name: str
    demand: str
    check: Check

    def findings(self, resources: Sequence[Resource], environment: Environment) -> list[Finding]:
        return [Finding(self.name, name_of(resource), said) for resource, said in self.check(resources, environment)]


def name_of(resource: Resource) -> str:
    return f"{resource.get('kind', '?')}/{at(resource, 'metadata', 'name') or '?'}"


def at(value: Any, *path: str | int) -> Any:
    """The value at a path of keys and positions; None where there is none."""
    for step in path:
        if isinstance(step, int):
            if not isinstance(value, Sequence) or len(value) <= step:
                return None
            value = value[step]
        elif isinstance(value, Mapping):
            value = value.get(step)
        else:
            return None
    return value


def of_kind(resources: Sequence[Resource], *kinds: str) -> Iterator[Resource]:
    return (resource for resource in resources if resource.get("kind") in kinds)


def workloads(resources: Sequence[Resource]) -> Iterator[Resource]:
    """Whatever makes pods."""
    return of_kind(resources, *POD_KINDS)


def pod_of(workload: Resource) -> Mapping[str, Any]:
    return at(workload, "spec", "template", "spec") or {}


def pod_labels(workload: Resource) -> Mapping[str, str]:
    return at(workload, "spec", "template", "metadata", "labels") or {}


def containers(workload: Resource) -> list[Mapping[str, Any]]:
    """Init containers and sidecars included."""
    pod = pod_of(workload)
    return [*(pod.get("initContainers") or []), *(pod.get("containers") or [])]


def each_container(resources: Sequence[Resource]) -> Iterator[tuple[Resource, Mapping[str, Any]]]:
    for workload in workloads(resources):
        for container in containers(workload):
            yield workload, container


def selects(selector: Any, labels: Mapping[str, str]) -> bool:
    """Whether a selector by equal labels takes these; an empty one takes all. Expressions are never assumed to."""
    if not isinstance(selector, Mapping) or selector.get("matchExpressions"):
        return False
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())


def replicas(workload: Resource, resources: Sequence[Resource]) -> int:
    """How many pods there may be at least: the autoscaler's minimum where one owns the count."""
    for scaler in of_kind(resources, "HorizontalPodAutoscaler"):
        target = at(scaler, "spec", "scaleTargetRef") or {}
        if (target.get("kind"), target.get("name")) == (workload["kind"], at(workload, "metadata", "name")):
            return int(at(scaler, "spec", "minReplicas") or 1)
    stated = at(workload, "spec", "replicas")
    return 1 if stated is None else int(stated)
