"""How each member of an environment on Kubernetes is: by Patroni's word, and by the kubelet's probes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

import urllib3

from infra import patroni
from infra.answers import json_object
from infra.environment import Health, ShardState
from infra.kubernetes.plan import KubernetesPlan
from infra.kubernetes.pod import Pod
from infra.kubernetes.reach import Reach
from services.contracts.shards import HostPort

ASK_TIMEOUT_S: Final = 1.0
"""A member in the next rack answers within milliseconds; one that needs longer is reported as not answering."""
ROLES: Final = {"etcd": "member", "redis": "cache", "h2o": "node", "registry": "reconciler", "api": "replica"}


class Patronis:
    """Asks members' Patronis, in parallel; each must prove its name by a certificate of the environment's authority."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._http = urllib3.PoolManager(timeout=ASK_TIMEOUT_S, retries=False, ca_certs=str(reach.files.ca_file))

    def own(self, members: Iterable[str]) -> dict[str, patroni.Own]:
        """Each member's word on itself; empty for one that does not answer."""
        return self._all(members, "/patroni")

    def clusters(self, members: Iterable[str]) -> dict[str, patroni.Own]:
        return self._all(members, "/cluster")

    def _all(self, members: Iterable[str], path: str) -> dict[str, patroni.Own]:
        names = tuple(members)
        with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
            found = pool.map(lambda name: self._get(self._reach.patroni(name), path), names)
            return dict(zip(names, found, strict=True))

    def _get(self, host: HostPort, path: str) -> dict[str, Any]:
        pool = self._http.connection_from_host(host.reached_at, host.port, "https", {"server_hostname": host.host})
        try:
            return json_object(pool.request("GET", path).data)
        except (urllib3.exceptions.HTTPError, OSError):
            return {}


def health(reach: Reach | None, pods: Sequence[Pod], wanted: Mapping[str, int]) -> tuple[Health, ...]:
    """A line for each pod, and for each component that has fewer than `wanted`. Without `reach` no Patroni is asked."""
    lines = [_line(pod) for pod in pods] if reach is None else list(_asked(reach, pods))
    for component, count in wanted.items():
        there = sum(pod.component == component and not pod.leaving for pod in pods)
        if there < count:
            lines.append(Health(component, component, "-", False, f"{there} of {count} pods are there"))
    return tuple(lines)


def _line(pod: Pod) -> Health:
    """By the kubelet's word alone."""
    role = ROLES.get(pod.component, "-")
    return Health(pod.name, pod.component, role, pod.ready and not pod.leaving, pod.state())


def _asked(reach: Reach, pods: Sequence[Pod]) -> Iterator[Health]:
    asked = [pod.name for pod in pods if pod.shard is not None and not pod.leaving]
    patronis = Patronis(reach)
    own, clusters = patronis.own(asked), patronis.clusters(asked)
    for pod in pods:
        line = _line(pod)
        if pod.name not in own or not line.healthy:  # both must say so: Kubernetes routes and counts by its own probes
            yield line
        elif answer := own[pod.name]:
            yield patroni.health(pod.name, pod.component, answer, clusters[pod.name])
        else:
            yield replace(line, healthy=False, state="ready, but its Patroni cannot be reached from here")


def shard_state(plan: KubernetesPlan, reach: Reach, shard: int) -> ShardState:
    return patroni.shard_state(shard, Patronis(reach).own(plan.shard_members(shard)))
