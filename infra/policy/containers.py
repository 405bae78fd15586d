"""Rules about pods and their containers: images, resources, privilege, probes, accounts, termination."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from infra.kubernetes.quantity import amount
from infra.policy.model import (
    COMPONENT,
    Environment,
    Resource,
    at,
    containers,
    each_container,
    name_of,
    of_kind,
    pod_labels,
    pod_of,
    workloads,
)

Breaches = Iterator[tuple[Resource, str]]

DIGEST: Final = re.compile(r"@sha256:[0-9a-f]{64}$")
TAG: Final = re.compile(r":([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})$")
SECRET_NAME: Final = re.compile(r"password|secret|(?<!cluster_)token|credential", re.IGNORECASE)
MEBIBYTE: Final = 1024**2
HEAP_SHARE: Final = 0.7
"""Of a container's limit, rounded down to whole MiB, as the topology's model does (infra/topology.py, H2O)."""
MAX_GRACE_S: Final = 600
"""A pod that needs longer holds every drain up; nothing of ours does."""


def fixed_images(resources: Sequence[Resource], environment: Environment) -> Breaches:
    for workload, container in each_container(resources):
        image = str(container.get("image") or "")
        tag = TAG.search(image)
        if not DIGEST.search(image) and (tag is None or tag[1] == "latest"):
            yield workload, f"container {container.get('name')} runs {image or 'no image'}: name a release or a digest"


def limits(resources: Sequence[Resource], environment: Environment) -> Breaches:
    for workload, container in each_container(resources):
        for side in ("requests", "limits"):
            missing = [kind for kind in ("cpu", "memory") if not at(container, "resources", side, kind)]
            if missing:
                yield workload, f"container {container.get('name')} has no {' and '.join(missing)} in {side}"
        asked, most = (at(container, "resources", side, "memory") for side in ("requests", "limits"))
        if asked and most and (_value(asked) is None or _value(asked) != _value(most)):
            yield workload, f"container {container.get('name')} reserves {asked} of memory and may take {most}"


def no_privilege(resources: Sequence[Resource], environment: Environment) -> Breaches:
    """What Pod Security `restricted` asks for, and a read-only root file system."""
    for workload in workloads(resources):
        pod = pod_of(workload)
        for shared in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(shared):
                yield workload, f"the pod shares the node's {shared.removeprefix('host').lower()} namespace"
        if any("hostPath" in volume for volume in pod.get("volumes") or []):
            yield workload, "the pod mounts a path of the node"
        if at(pod, "securityContext", "runAsNonRoot") is not True:
            yield workload, "the pod may run as root"
        if at(pod, "securityContext", "seccompProfile", "type") not in {"RuntimeDefault", "Localhost"}:
            yield workload, "the pod has no seccomp profile"
        for container in containers(workload):
            for wrong in _privileges(container.get("securityContext") or {}):
                yield workload, f"container {container.get('name')} {wrong}"


def _privileges(context: Mapping[str, Any]) -> Iterator[str]:
    if context.get("privileged"):
        yield "is privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "may write to its root file system"
    if "ALL" not in (at(context, "capabilities", "drop") or []):
        yield "keeps capabilities"
    if at(context, "capabilities", "add"):
        yield "asks for capabilities"
    if context.get("runAsUser") == 0 or context.get("runAsNonRoot") is False:
        yield "runs as root"


def probes(resources: Sequence[Resource], environment: Environment) -> Breaches:
    """Servers say when they started, serve and live; liveness by HTTP only where the path is not the served one."""
    for workload in of_kind(resources, "Deployment", "StatefulSet", "DaemonSet"):
        for container in pod_of(workload).get("containers") or []:
            missing = [kind for kind in ("startup", "readiness", "liveness") if not container.get(f"{kind}Probe")]
            if missing:
                yield workload, f"container {container.get('name')} has no {' and no '.join(missing)} probe"
            liveness, readiness = (at(container, f"{kind}Probe", "httpGet") for kind in ("liveness", "readiness"))
            if liveness and readiness and liveness == readiness:
                yield (
                    workload,
                    (
                        f"container {container.get('name')} is killed by the same request that only takes it out of "
                        "rotation: a busy one would be killed"
                    ),
                )


def consensus_readiness(resources: Sequence[Resource], environment: Environment) -> Breaches:
    """H2O is ready when its keeper says that all nodes agree: its own answers tell of one node, or of the leader."""
    for workload in of_kind(resources, "StatefulSet"):
        if pod_labels(workload).get(COMPONENT) != "h2o":
            continue
        stated = {
            found[1]
            for config in of_kind(resources, "ConfigMap")
            if at(config, "metadata", "labels", COMPONENT) == "h2o"
            for text in (config.get("data") or {}).values()
            if (found := re.search(r'"status_port": (\d+)', text))
        }
        asked = at(pod_of(workload), "containers", 0, "readinessProbe", "httpGet") or {}
        if asked.get("path") != "/ready" or {str(asked.get("port"))} != stated:
            yield workload, f"readiness asks {asked.get('path')} on {asked.get('port')}, not the keeper for consensus"


def own_account(resources: Sequence[Resource], environment: Environment) -> Breaches:
    known = {at(account, "metadata", "name") for account in of_kind(resources, "ServiceAccount")}
    for workload in workloads(resources):
        pod = pod_of(workload)
        account = pod.get("serviceAccountName")
        if not account or account == "default":
            yield workload, "the pod runs under the namespace's default account"
        elif account not in known:
            yield workload, f"the pod's account {account} does not exist"
        if pod.get("automountServiceAccountToken") is not False:
            yield workload, "the pod gets a token for the API server that it does not need"


def least_rights(resources: Sequence[Resource], environment: Environment) -> Breaches:
    for role in of_kind(resources, "Role", "ClusterRole"):
        for rule in role.get("rules") or []:
            asked = [*(rule.get("verbs") or []), *(rule.get("resources") or []), *(rule.get("apiGroups") or [])]
            if "*" in asked:
                yield role, "grants everything by *"
            if "secrets" in (rule.get("resources") or []):
                yield role, "reads or changes Secrets"
            if not rule.get("resourceNames"):
                for said in _of_any_pod(rule):
                    yield role, said
    for binding in of_kind(resources, "ClusterRoleBinding", "ClusterRole"):
        yield binding, "reaches beyond the environment's namespace"


def _of_any_pod(rule: Mapping[str, Any]) -> Iterator[str]:
    kinds, verbs = set(rule.get("resources") or []), set(rule.get("verbs") or [])
    if kinds & {"pods/exec", "pods/attach", "pods/proxy", "pods/ephemeralcontainers"}:
        yield "may run commands in any pod, or reach into it: name the pods"
    if "pods" in kinds and verbs & {"delete", "deletecollection"}:
        yield "may delete any pod: name the pods"


def grace(resources: Sequence[Resource], environment: Environment) -> Breaches:
    for workload in workloads(resources):
        seconds = pod_of(workload).get("terminationGracePeriodSeconds")
        if seconds is None:
            yield workload, "says not how long it may take to stop"
        elif not 1 <= seconds <= MAX_GRACE_S:
            yield workload, f"takes {seconds} s to stop: 1 to {MAX_GRACE_S}"


def no_secret_in_clear(resources: Sequence[Resource], environment: Environment) -> Breaches:
    """No value in an environment variable or argument whose name says secret; a file's path is none."""
    for workload, container in each_container(resources):
        for variable in container.get("env") or []:
            name, value = str(variable.get("name")), str(variable.get("value") or "")
            if SECRET_NAME.search(name) and value and not value.startswith("/"):
                yield workload, f"container {container.get('name')} has {name} in clear"
    for config in of_kind(resources, "ConfigMap"):
        for key, text in (config.get("data") or {}).items():
            if "${secrets:" in text or "PRIVATE KEY" in text:
                yield config, f"{key} holds a secret: it belongs into a Secret"


def h2o_memory(resources: Sequence[Resource], environment: Environment) -> Breaches:
    """The JVM's heap is 70 % of the container's limit; 30 % is native memory."""
    for config in of_kind(resources, "ConfigMap"):
        if at(config, "metadata", "labels", COMPONENT) != "h2o":
            continue
        for workload in of_kind(resources, "StatefulSet"):
            if name_of(workload) != f"StatefulSet/{at(config, 'metadata', 'name')}":
                continue
            limit = at(pod_of(workload), "containers", 0, "resources", "limits", "memory")
            wanted = int(float(_value(limit) or 0) / MEBIBYTE * HEAP_SHARE)
            for key, text in (config.get("data") or {}).items():
                heap = re.search(r'"heap_mb": (\d+)', text)
                if heap is None or int(heap[1]) != wanted:
                    yield workload, f"{key} gives the JVM {heap[1] if heap else 'no'} MB of a limit of {limit}: 70 %"


def _value(quantity: object) -> Decimal | None:
    """What a quantity comes to, however it is spelt; None where it is none."""
    with contextlib.suppress(ValueError):
        return amount(quantity)
    return None
