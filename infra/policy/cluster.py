"""Rules about how pods stand together: budgets, spread, network, TLS, data, chaos."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from infra.policy.model import (
    COMPONENT,
    KNOWN_KINDS,
    Environment,
    Resource,
    at,
    containers,
    name_of,
    of_kind,
    pod_labels,
    pod_of,
    replicas,
    selects,
    workloads,
)

Breaches = Iterator[tuple[Resource, str]]

QUORUM: Final = frozenset({"etcd", "postgres"})
"""Of these a majority must stay, whatever a drain wants; of two, one."""
ENTRY: Final = "edge"
"""Clients come to it from anywhere, where the topology says so."""
ZONE: Final = "topology.kubernetes.io/zone"
NODE: Final = "kubernetes.io/hostname"
CHAOS: Final = "breakwater.dev/chaos"
RUNNER: Final = "experiment-runner"
UNBLOCKED: Final = re.compile(r'"chaos":\s*false\b')
"""What the API's configuration must say (services/api/settings.py): nobody may block its event loop."""
REACH: Final = "reach-"
_CLIENT: Final = (r'"root_certificate": "/', r'"https://etcd-', r"ETCDCTL_CERT=/")
"""A client of Postgres and of etcd: it knows the authority, and shows a certificate of its own."""
TLS_DEMANDS: Final = {
    "etcd": (r"ETCD_CLIENT_CERT_AUTH", r"ETCD_PEER_CLIENT_CERT_AUTH"),
    "redis": (r"(?m)^port 0$", r"(?m)^tls-port \d+$"),
    "edge": (r"ssl-min-ver TLSv1\.3",),
    "api": _CLIENT,
    "postgres": (r'"tls_dir": "/',),
    "h2o": (r'"https://etcd-', r"ETCDCTL_CERT=/", r'"certificates": \{'),
    "registry": _CLIENT,
    "mage": _CLIENT,
    "migrate": _CLIENT,
    "load": _CLIENT,
}
"""By component: what its containers' environment, command or configuration must say.

The API is asked in clear, kept to itself by network rules: by the edge and by who reads its metrics (docs/adr/0010).
"""
PLAIN: Final = re.compile(r"http://(?!0\.0\.0\.0:2381)[^\s\",]+|redis://|sslmode=(disable|allow|prefer|require)\b")
"""Addresses and modes without encryption or without proof of the server's name; etcd's health port tells no secret."""


def disruption_budgets(resources: Sequence[Resource], environment: Environment) -> Breaches:
    for workload in of_kind(resources, "Deployment", "StatefulSet"):
        count = replicas(workload, resources)
        if count < 2:  # noqa: PLR2004 - a budget for one pod blocks every drain for ever
            continue
        budgets = [
            budget
            for budget in of_kind(resources, "PodDisruptionBudget")
            if selects(at(budget, "spec", "selector"), pod_labels(workload))
        ]
        if len(budgets) != 1:
            yield workload, f"has {len(budgets)} disruption budgets: a drain needs exactly one to go by"
            continue
        spec = budgets[0].get("spec") or {}
        may_leave = spec.get("maxUnavailable")
        if not isinstance(may_leave, int) or not 1 <= may_leave < count:
            yield workload, f"its budget lets {may_leave} of {count} leave: none blocks drains, all is no budget"
        elif pod_labels(workload).get(COMPONENT) in QUORUM and may_leave > max(1, (count - 1) // 2):
            yield workload, f"its budget lets {may_leave} of {count} leave: too many for a quorum"
        if spec.get("unhealthyPodEvictionPolicy") not in {"AlwaysAllow", "IfHealthyBudget"}:
            yield workload, "its budget does not say whether unhealthy pods may be evicted"


def spread(resources: Sequence[Resource], environment: Environment) -> Breaches:
    """Several pods stand in several zones and on several nodes; in production as a demand."""
    for workload in of_kind(resources, "Deployment", "StatefulSet"):
        if replicas(workload, resources) < 2:  # noqa: PLR2004
            continue
        pod = pod_of(workload)
        constraints = {
            constraint.get("topologyKey"): constraint.get("whenUnsatisfiable")
            for constraint in pod.get("topologySpreadConstraints") or []
            if selects(constraint.get("labelSelector"), pod_labels(workload))
        }
        apart = at(pod, "affinity", "podAntiAffinity") or {}
        hard = [
            term
            for term in apart.get("requiredDuringSchedulingIgnoredDuringExecution") or []
            if term.get("topologyKey") == NODE and selects(term.get("labelSelector"), pod_labels(workload))
        ]
        soft = apart.get("preferredDuringSchedulingIgnoredDuringExecution") or []
        if ZONE not in constraints:
            yield workload, "may stand in one zone with all its pods"
        elif environment.production and constraints[ZONE] != "DoNotSchedule":
            yield workload, "spreads over zones only as a wish"
        if NODE not in constraints and not hard and not soft:
            yield workload, "may stand on one node with all its pods"
        elif environment.production and constraints.get(NODE) != "DoNotSchedule" and not hard:
            yield workload, "spreads over nodes only as a wish"


def network_policies(resources: Sequence[Resource], environment: Environment) -> Breaches:
    policies = list(of_kind(resources, "NetworkPolicy"))
    denies = any(
        not at(policy, "spec", "podSelector", "matchLabels")
        and set(at(policy, "spec", "policyTypes") or []) == {"Ingress", "Egress"}
        and not at(policy, "spec", "ingress")
        and not at(policy, "spec", "egress")
        for policy in policies
    )
    for workload in workloads(resources):
        if not denies:
            yield workload, "stands in a namespace that does not deny by default"
        own = [
            policy
            for policy in policies
            if at(policy, "spec", "podSelector", "matchLabels")
            and selects(at(policy, "spec", "podSelector"), pod_labels(workload))
        ]
        if not own:
            yield workload, "has no network policy of its own"
    for policy in policies:
        for side, peers in (("ingress", "from"), ("egress", "to")):
            for rule in at(policy, "spec", side) or []:
                ports = rule.get("ports") or []
                if not rule.get(peers) or not ports or not all(port.get("port") for port in ports):
                    yield policy, f"an {side} rule lets any peer or any port through"
                for peer in rule.get(peers) or []:
                    if (everybody := _everybody(peer)) and not (
                        side == "ingress" and "ipBlock" in peer and at(policy, "metadata", "labels", COMPONENT) == ENTRY
                    ):
                        yield policy, f"an {side} rule lets {everybody} through"


def _everybody(peer: Resource) -> str | None:
    """Whom a peer names that names nobody in particular: an empty selector takes all."""
    spaces, pods = peer.get("namespaceSelector"), peer.get("podSelector")
    if "ipBlock" in peer:
        return "every address" if str(at(peer, "ipBlock", "cidr")).endswith("/0") else None
    if spaces is not None and not _names(spaces):
        return "every namespace"
    if not _names(pods):
        return "every pod of a namespace"
    return None


def _names(selector: Any) -> bool:
    return bool(at(selector, "matchLabels") or at(selector, "matchExpressions"))


def known_kinds(resources: Sequence[Resource], environment: Environment) -> Breaches:
    for resource in resources:
        if resource.get("kind") not in KNOWN_KINDS:
            yield resource, "is of a kind that no rule looks into: teach the rules first"


def tls(resources: Sequence[Resource], environment: Environment) -> Breaches:
    for workload in workloads(resources):
        component = pod_labels(workload).get(COMPONENT, "")
        text = _configuration(workload, resources)
        for demand in TLS_DEMANDS.get(component, ()):
            if not re.search(demand, text):
                yield workload, f"does not say {demand}: its connections may be in clear"
        if not any(
            at(volume, "name") == "tls" and "secret" in volume for volume in pod_of(workload).get("volumes") or []
        ):
            yield workload, "mounts no certificates"
        plain = PLAIN.search(text)
        if plain:
            yield workload, f"is told {plain[0]}: encrypted and verified only"


def _configuration(workload: Resource, resources: Sequence[Resource]) -> str:
    """Commands, environment variables and mounted configuration of a workload's containers, init ones too, as text."""
    pod = pod_of(workload)
    lines: list[str] = []
    for container in containers(workload):
        lines += map(str, [*(container.get("command") or []), *(container.get("args") or [])])
        lines += [f"{each.get('name')}={each.get('value') or ''}" for each in container.get("env") or []]
    mounted = {at(volume, "configMap", "name") for volume in pod.get("volumes") or []}
    for config in of_kind(resources, "ConfigMap"):
        if at(config, "metadata", "name") in mounted:
            lines += (config.get("data") or {}).values()
    return "\n".join(lines)


def kept_data(resources: Sequence[Resource], environment: Environment) -> Breaches:
    for workload in of_kind(resources, "StatefulSet"):
        if not at(workload, "spec", "volumeClaimTemplates"):
            continue
        retention = at(workload, "spec", "persistentVolumeClaimRetentionPolicy") or {}
        if {retention.get("whenDeleted"), retention.get("whenScaled")} != {"Retain"}:
            yield workload, "may delete data when it shrinks or goes"
    for workload in of_kind(resources, "StatefulSet"):
        if pod_labels(workload).get(COMPONENT) in QUORUM and not at(workload, "spec", "volumeClaimTemplates"):
            yield workload, "keeps its data in the pod"


def scaled_by_one(resources: Sequence[Resource], environment: Environment) -> Breaches:
    """Where an autoscaler owns the count, the program must not set it as well."""
    for scaler in of_kind(resources, "HorizontalPodAutoscaler"):
        target = at(scaler, "spec", "scaleTargetRef") or {}
        found = [w for w in workloads(resources) if name_of(w) == f"{target.get('kind')}/{target.get('name')}"]
        if not found:
            yield scaler, f"scales {target.get('kind')}/{target.get('name')}, which does not exist"
        for workload in found:
            if at(workload, "spec", "replicas") is not None:
                yield workload, "states replicas that its autoscaler owns"


def no_chaos_in_production(resources: Sequence[Resource], environment: Environment) -> Breaches:
    if not environment.production:
        return
    for resource in resources:
        if at(resource, "metadata", "labels", CHAOS):
            yield resource, "opts in to faults"
        if at(resource, "metadata", "name") == RUNNER:
            yield resource, "gives experiments rights"
        if resource.get("kind") == "Service" and str(at(resource, "metadata", "name")).startswith(REACH):
            yield resource, "lets experiments reach a server from outside"
    for config in of_kind(resources, "ConfigMap"):
        for key, text in (config.get("data") or {}).items():
            if at(config, "metadata", "labels", COMPONENT) == "api" and not UNBLOCKED.search(text):
                yield config, f"{key} does not keep experiments from blocking the API"


def pod_security(resources: Sequence[Resource], environment: Environment) -> Breaches:
    for namespace in of_kind(resources, "Namespace"):
        if at(namespace, "metadata", "labels", "pod-security.kubernetes.io/enforce") != "restricted":
            yield namespace, "does not enforce Pod Security restricted"


def one_namespace(resources: Sequence[Resource], environment: Environment) -> Breaches:
    spaces = {at(namespace, "metadata", "name") for namespace in of_kind(resources, "Namespace")}
    for resource in resources:
        if resource.get("kind") != "Namespace" and at(resource, "metadata", "namespace") not in spaces:
            yield resource, f"stands in namespace {at(resource, 'metadata', 'namespace')}, outside the environment's"
