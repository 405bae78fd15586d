"""Whether a cluster can take an environment: what would stop it half way, found before the first object is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from infra.environment import EnvironmentFault
from infra.kubernetes.cluster import CUSTOM_METRICS, Cluster
from infra.kubernetes.plan import KubernetesPlan
from infra.kubernetes.quantity import amount

OLDEST: Final = (1, 30)
"""Sidecar containers, unhealthyPodEvictionPolicy and the sleep action are all there from this release on."""
INSTANCE: Final = "app.kubernetes.io/instance"
DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"

Manifest = Mapping[str, Any]


def demand_room(plan: KubernetesPlan, cluster: Cluster) -> None:
    """EnvironmentFault naming everything about the cluster that the environment could not live with."""
    found = [*_release(cluster), *_name(plan, cluster), *_classes(plan, cluster), *_metrics(plan, cluster)]
    if found:
        raise EnvironmentFault(
            f"the cluster of context {cluster.context} cannot take {plan.environment}: {'; '.join(found)}; nothing was "
            "made"
        )


def demand_quota(plan: KubernetesPlan, cluster: Cluster, needs: Callable[[], Mapping[str, Decimal]]) -> None:
    """EnvironmentFault when a quota of the namespace is smaller than what the whole environment asks for.

    `needs` sums that by the names that quotas have; it is called only where there is a quota for all pods.
    """
    quotas = [quota for quota in cluster.quotas() if not _for_some(quota)]
    if not quotas:
        return
    needed = needs()
    short = [
        f"{name} {hard} where {needed[name].normalize():f} is needed (quota {quota['metadata']['name']})"
        for quota in quotas
        for name, hard in (quota["spec"].get("hard") or {}).items()
        if name in needed and amount(hard) < needed[name]
    ]
    if short:
        raise EnvironmentFault(
            f"the namespace {plan.namespace} has too little room for {plan.environment}: {'; '.join(short)}; raise the "
            "quota or lower breakwater:kubernetes.sizes; nothing was made"
        )


def _for_some(quota: Manifest) -> bool:
    """Counts some pods only (by priority, quality of service, ending): none that ours can be told to be."""
    return bool(quota["spec"].get("scopes") or quota["spec"].get("scopeSelector"))


def _release(cluster: Cluster) -> Iterator[str]:
    version = cluster.version()
    if version < OLDEST:
        yield f"it is Kubernetes {version[0]}.{version[1]}, and {OLDEST[0]}.{OLDEST[1]} is the oldest that will do"


def _name(plan: KubernetesPlan, cluster: Cluster) -> Iterator[str]:
    space = cluster.space()
    owner = (space["metadata"].get("labels") or {}).get(INSTANCE) if space else plan.environment
    if owner != plan.environment:
        yield (
            f"its namespace {plan.namespace} belongs to {owner or 'somebody else'}: name another in "
            "breakwater:kubernetes.namespace"
        )


def _classes(plan: KubernetesPlan, cluster: Cluster) -> Iterator[str]:
    present = cluster.storage_classes()
    names = {found["metadata"]["name"] for found in present}
    defaults = [f for f in present if (f["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"]
    there = ", ".join(sorted(names)) or "none"
    volumes = plan.settings.volumes
    for field in ("etcd", "postgres", "models", "mage"):
        wanted = getattr(volumes, field).storage_class
        if wanted is None and not defaults:
            yield f"kubernetes.volumes.{field} takes the default storage class, and there is none (there is {there})"
        elif wanted is not None and wanted not in names:
            yield f"kubernetes.volumes.{field} wants storage class {wanted}, which does not exist (there is {there})"


def _metrics(plan: KubernetesPlan, cluster: Cluster) -> Iterator[str]:
    if plan.settings.api_in_flight_target is not None and not cluster.custom_metrics():
        yield (
            f"nobody answers for {CUSTOM_METRICS}, from which kubernetes.api_in_flight_target would scale the API: "
            "install a metrics adapter, or leave that target out: without the metric no replica is ever taken away"
        )


def requests(made: Sequence[Manifest]) -> dict[str, Decimal]:
    """What a rendering asks for at once, by the names that quotas have. Autoscaled pods at their least."""
    least = {
        scaler["spec"]["scaleTargetRef"]["name"]: int(scaler["spec"]["minReplicas"])
        for scaler in made
        if scaler["kind"] == "HorizontalPodAutoscaler"
    }
    total: Counter[str] = Counter()
    sums: dict[str, Decimal] = {}
    claimed = [(1, each["spec"]) for each in made if each["kind"] == "PersistentVolumeClaim"]
    for workload in made:
        if workload["kind"] not in {"StatefulSet", "Deployment", "Job"}:
            continue
        spec = workload["spec"]
        count = int(spec.get("replicas", least.get(workload["metadata"]["name"], 1)))
        total["pods"] += count
        claimed += [(count, each["spec"]) for each in spec.get("volumeClaimTemplates", [])]
        pod = spec["template"]["spec"]
        stays = [each for each in pod.get("initContainers", []) if each.get("restartPolicy") == "Always"]
        for container in (*pod["containers"], *stays):
            for side, asked in container["resources"].items():
                for what, quantity in asked.items():
                    name = f"{side}.{what}"
                    sums[name] = sums.get(name, Decimal(0)) + count * amount(quantity)
    for count, claim in claimed:
        storage = count * amount(claim["resources"]["requests"]["storage"])
        own = claim.get("storageClassName")
        for scope in ("", *([f"{own}.storageclass.storage.k8s.io/"] if own else [])):
            total[f"{scope}persistentvolumeclaims"] += count
            sums[f"{scope}requests.storage"] = sums.get(f"{scope}requests.storage", Decimal(0)) + storage
    plain = {what: sums[f"requests.{what}"] for what in ("cpu", "memory") if f"requests.{what}" in sums}
    return {**sums, **plain, **{name: Decimal(count) for name, count in total.items()}}
