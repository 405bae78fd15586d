"""KubernetesEnvironment: members by label, roles by Patroni's word of the moment, faults with undo and proof."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Final, Literal

from infra.answers import json_object
from infra.environment import (
    Capability,
    Endpoints,
    EnvironmentFault,
    FaultProof,
    FaultRefused,
    Health,
    Member,
    NodeAnswer,
    PodId,
    ProcessId,
    Scope,
    ShardState,
)
from infra.kubernetes import ask, strike, through
from infra.kubernetes.cluster import Cluster
from infra.kubernetes.groundwork import runner_rights
from infra.kubernetes.plan import API, CHAOS_LABEL, H2O_STATUS, KubernetesPlan
from infra.kubernetes.pod import COMPONENT, Pod
from infra.kubernetes.reach import Reach
from infra.kubernetes.runner import RunnerFiles, write
from services.contracts.shards import ShardEndpoints
from services.coordination.endpoints import EtcdEndpoints

PARTS: Final = "app.kubernetes.io/part-of=breakwater"
INSTANCE: Final = "app.kubernetes.io/instance"
SERVERS: Final = ("etcd", "redis", "h2o", "registry", "api", "edge")
"""What serves or is needed to serve, beside the shards. Mage only trains: faults can be judged without it."""
CONNECT_S: Final = 1.0
POLL_S: Final = 0.5
START_S: Final = 60.0
"""A pod that was deleted is there again within seconds, unless its node is lost or its volume is stuck."""
PROOF_S: Final = 15.0
"""Deleting a pod takes its object away at once, and its node takes a few seconds to end what runs."""
STAMP: Final = re.compile(r"^(\S+T\S+\.\d{3})\d*Z ", re.MULTILINE)


class KubernetesEnvironment:
    """The kubernetes runtime as experiments see it; needs the environment to be applied."""

    def __init__(self, plan: KubernetesPlan) -> None:
        self.plan = plan
        self.name = plan.environment
        self.files = RunnerFiles.of(plan.environment)

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster, once it has said that its namespace is this environment's. EnvironmentFault otherwise."""
        cluster = Cluster.of(self.plan.settings.context, self.plan.namespace)
        space = cluster.space()
        if space is None:
            raise EnvironmentFault(
                f"the cluster of context {cluster.context} has no namespace {cluster.namespace}: is {self.name} "
                "applied (docs/runbooks/staging.md), and is this its cluster?"
            )
        owner = (space["metadata"].get("labels") or {}).get(INSTANCE)
        if owner != self.name:
            raise EnvironmentFault(
                f"the namespace {cluster.namespace} of context {cluster.context} belongs to "
                f"{owner or 'nobody of ours'}, not to {self.name}: correct breakwater:kubernetes"
            )
        return cluster

    @cached_property
    def reach(self) -> Reach:
        """EnvironmentFault when servers cannot be reached from here, or secrets for that are missing."""
        services, pods = self.cluster.services(PARTS), self._pods()
        self.files.make()
        self.files.open_secrets()
        return Reach.find(self.plan, self.files, services, pods)

    # What there is.

    def capabilities(self) -> frozenset[Capability]:
        return frozenset({"kill", "hold"})

    def members(self, component: str | None = None) -> tuple[Member, ...]:
        return tuple(self._member(pod) for pod in self._pods() if component is None or _is_of(pod, component))

    def _pods(self) -> list[Pod]:
        found = (Pod.of(manifest) for manifest in self.cluster.pods(PARTS))
        kept = [pod for pod in found if pod.component and not pod.of_job]
        return sorted(kept, key=lambda pod: (pod.component, pod.name))

    def _member(self, pod: Pod) -> Member:
        host = self.reach.main(pod.name)
        dsn = None
        if pod.shard is not None:
            dsn = self.reach.shard(pod.shard).member_conninfo(pod.name, application_name="breakwater")
        return Member(
            name=pod.name,
            component=pod.component,
            shard=pod.shard,
            host=host.reached_at if host else pod.node or "",
            port=host.port if host else 0,
            pid=None,
            dsn=dsn,
            url=self.reach.edge.url if pod.component == "edge" else None,
        )

    def endpoints(self) -> Endpoints:
        return Endpoints(self.reach.edge, self.members(), self.reach.addresses)

    def shards(self) -> tuple[ShardEndpoints, ...]:
        return tuple(self.reach.shard(shard) for shard in self.plan.shards)

    def etcd(self) -> EtcdEndpoints:
        return self.reach.etcd()

    def shard_state(self, shard: int) -> ShardState:
        return ask.shard_state(self.plan, self.reach, shard)

    def health(self) -> tuple[Health, ...]:
        """Without `kubernetes.runners` no Patroni is reached: then the kubelet's word is all there is."""
        pods, wanted = self._pods(), self._wanted()
        return ask.health(self.reach if self.plan.settings.runners else None, pods, wanted)

    def _wanted(self) -> dict[str, int]:
        """How many pods each component must have: what its workload says, at least one of each that serves."""
        wanted = dict.fromkeys(SERVERS, 1)
        wanted |= {f"postgres/shard-{shard}": len(self.plan.shard_members(shard)) for shard in self.plan.shards}
        for workload in self.cluster.workloads(PARTS):
            component = workload["metadata"]["labels"].get(COMPONENT, "")
            if component in wanted:
                wanted[component] = max(1, int(workload["spec"].get("replicas", 1)))
        return wanted

    def obstacle(self, member: str) -> str | None:
        """By the kubelet's word: the readiness probe of a replica asks it for its model every two seconds."""
        pod = self._pod(member)
        return None if pod.ready else pod.state()

    def metrics(self, member: str) -> str | None:
        asked = self._pod(member)
        if asked.address is None or not self.plan.topology.chaos.allows("postgres"):
            return None
        (heard,) = self._ask_inside([through.url(asked.address, API, "/metrics")])
        return heard[1] if heard is not None and heard[0] == HTTPStatus.OK else None

    def h2o_answers(self, path: Literal["/ready", "/status"]) -> Mapping[str, NodeAnswer | None]:
        if not self.plan.topology.chaos.allows("postgres"):
            raise EnvironmentFault(
                f"the nodes of H2O are asked from within a shard's pod, where experiments run commands only if "
                f"breakwater:chaos of {self.name} has postgres among its components"
            )
        addresses = {pod.name: pod.address for pod in self._pods() if pod.component == "h2o" and pod.address}
        heard = self._ask_inside([through.url(address, H2O_STATUS, path) for address in addresses.values()])
        said = {name: answer for name, answer in zip(addresses, heard, strict=True) if answer is not None}
        return {
            name: NodeAnswer(said[name][0], json_object(said[name][1])) if name in said else None
            for name in self.plan.h2o_members
        }

    def _ask_inside(self, urls: Sequence[str]) -> list[tuple[int, str] | None]:
        """Asked from within a shard's pod: there alone may experiments run a command. One that a fault took is passed
        over; the last first, since experiments begin with the first shard."""
        said = "none of them runs"
        for pod in reversed(self._pods()):
            if pod.shard is not None and not pod.leaving and strike.stands(pod):
                try:
                    return through.ask(self.cluster, pod, urls)
                except EnvironmentFault as error:
                    said = str(error)
        raise EnvironmentFault(f"nothing can be asked from within any member of a shard: {said}")

    def wait_ready(self, *, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while (sick := next((line for line in self.health() if not line.healthy), None)) is not None:
            if time.monotonic() > end:
                raise EnvironmentFault(
                    f"{sick.member} of {self.name} is not healthy after {timeout_s:.0f} s: {sick.state}; "
                    f"read `breakwater logs {self.name} {sick.member}`"
                )
            time.sleep(POLL_S)

    def rotation(self) -> Mapping[str, bool]:
        raise EnvironmentFault(f"{self.name}: the edge's pods tell nobody outside whom they send requests to")

    def experiment_lock(self) -> Path:
        return self.files.experiment_lock

    def token_file(self) -> Path:
        self.files.open_secrets()
        return self.files.token_file

    def admin_token_file(self) -> Path:
        raise EnvironmentFault(f"{self.name}: experiments outside the cluster are no administrators")

    def cache_password_file(self) -> Path:
        raise EnvironmentFault(f"{self.name}: experiments do not reach the cache from outside the cluster")

    def versions(self) -> Mapping[str, str]:
        """The images that run, by the kubelet's word; what is in them, their bills of materials say."""
        images: dict[str, set[str]] = {}
        for pod in self._pods():
            for each in pod.containers:
                if each.running and each.image:
                    named = f"{each.image} ({each.digest})" if each.digest else each.image
                    images.setdefault(f"image of {pod.component.split('/', 1)[0]}", set()).add(named)
        return {name: " and ".join(sorted(found)) for name, found in images.items()}

    def logs(self, member: str) -> tuple[Path, ...]:
        """Copies of what the member's containers wrote, one file each; the one before a restart first."""
        pod = self._pod(member)
        self.files.make()
        return tuple(self._copies(pod))

    def _copies(self, pod: Pod) -> Iterator[Path]:
        for container in pod.containers:
            for previous in (True, False) if container.restarts else (False,):
                text = self.cluster.log(pod.name, container.name, previous=previous)
                if text:
                    path = self.files.logs_dir / f"{pod.name}.{container.name}{'.previous' if previous else ''}.log"
                    write(path, STAMP.sub(r"\1Z ", text))
                    yield path

    def event_files(self) -> tuple[Path, ...]:
        """Copies of what the wardens wrote down; each event says by which machine's clock."""
        return tuple(self._warden_copies())

    def _warden_copies(self) -> Iterator[Path]:
        self.files.make()
        for pod in self._pods():
            if pod.shard is not None and strike.stands(pod):
                path = self.files.logs_dir / f"{pod.name}.warden-events.jsonl"
                write(path, strike.wardens_events(self.cluster, pod).partition("\n")[2])
                yield path

    # Faults.

    def kill(self, member: str, *, scope: Scope, hold: bool) -> FaultProof:
        pod = self._allowed(member)
        if pod.component == "h2o":
            return self._kill_pod(pod, scope, hold=hold)
        if scope not in {"server", "member"}:
            raise self._cannot(member, f"kill only the {scope} of")
        undo = self._write_undo(member)
        try:
            struck = strike.kill_processes(self.cluster, pod, scope, hold=hold)
        except FaultRefused:
            undo.unlink()
            raise
        taken = None
        if scope == "member":
            strike.delete_pod(self.cluster, pod)
            taken = PodId(pod.name, pod.uid)
        if struck.left is None:
            proven, evidence = self._wait_down(member, struck.processes, taken)
        else:
            proven, evidence = struck.left == 0, f"{struck.left} of {len(struck.processes)} processes are left"
        if not hold:
            undo.unlink()
        return FaultProof(member, scope, "SIGKILL", hold, struck.t_ns, struck.processes, proven, evidence, pod=taken)

    def _kill_pod(self, pod: Pod, scope: Scope, *, hold: bool) -> FaultProof:
        """Of H2O a pod is all that can be struck: its set makes the next one at once, which nothing keeps down."""
        if scope != "member":
            raise self._cannot(pod.name, f"kill only the {scope} of")
        if hold:
            raise self._cannot(pod.name, "keep down")
        taken = PodId(pod.name, pod.uid)
        t_ns = strike.delete_pod(self.cluster, pod)
        proven, evidence = self._wait_down(pod.name, (), taken)
        return FaultProof(pod.name, scope, "pod deleted", False, t_ns, (), proven, evidence, pod=taken)

    def process_of(self, member: str) -> ProcessId | None:
        pod = self._pod(member)
        if pod.shard is None:
            raise EnvironmentFault(f"{member} is a pod of {self.name}: its processes are not looked at from outside")
        # Patroni is the last that is named
        return next(reversed(strike.look(self.cluster, pod).processes), None)

    def is_down(self, member: str, identities: tuple[ProcessId, ...], pod: PodId | None = None) -> tuple[bool, str]:
        gone, seen = True, []
        if pod is not None:
            gone, evidence = self._pod_gone(pod)
            seen.append(evidence)
        try:
            left = self._left(member, identities)
        except EnvironmentFault as error:
            return False, "; ".join((*seen, str(error)))
        if identities:
            seen.append(
                f"{len(identities) - left} of {len(identities)} processes gone (pid and start time in their pod)"
            )
        host = self.reach.main(member)
        closed = host is None or not _accepts(host.reached_at, host.port)
        if host is not None:
            seen.append(f"{host.reached_at}:{host.port} accepts {'no connection' if closed else 'connections'}")
        return gone and not left and closed, "; ".join(seen)

    def _left(self, member: str, identities: Sequence[ProcessId]) -> int:
        """How many of the processes live; those of a pod that is gone do not."""
        present = next((pod for pod in self._pods() if pod.name == member), None)
        own = [process for process in identities if present is not None and process.pod == present.uid]
        if present is None or not own:
            return 0
        return strike.look(self.cluster, present, own).alive

    def _pod_gone(self, taken: PodId) -> tuple[bool, str]:
        present = next((pod for pod in self._pods() if pod.name == taken.name), None)
        if present is None:
            return True, f"pod {taken.uid} is gone"
        if present.uid != taken.uid:
            return True, f"pod {taken.uid} is gone, {present.uid} has its name"
        return False, f"pod {taken.uid} is still there"

    def _wait_down(self, member: str, identities: tuple[ProcessId, ...], pod: PodId | None) -> tuple[bool, str]:
        end = time.monotonic() + PROOF_S
        while not (found := self.is_down(member, identities, pod))[0] and time.monotonic() < end:
            time.sleep(POLL_S)
        return found

    def start(self, member: str) -> None:
        """Release a held member. Waits for a container of it to do that in; EnvironmentFault when none comes."""
        end = time.monotonic() + START_S
        while True:
            pod = next((pod for pod in self._pods() if pod.name == member), None)
            if pod is not None and not pod.leaving and strike.stands(pod):
                break
            if time.monotonic() > end:
                raise EnvironmentFault(
                    f"{member} cannot be started after {START_S:.0f} s: "
                    f"{'it has no pod' if pod is None else pod.state()}; when it runs, `breakwater heal {self.name}`"
                )
            time.sleep(POLL_S)
        strike.release(self.cluster, pod)
        self._undo_file(member).unlink(missing_ok=True)

    def heal(self) -> Sequence[str]:
        done = []
        for path in sorted(self.files.undo_dir.glob("*.json")):
            try:
                member = str(json.loads(path.read_text())["member"])
            except (ValueError, KeyError, TypeError) as error:
                raise EnvironmentFault(
                    f"{path} is damaged, so its fault cannot be undone by itself: its name says which member, whose "
                    "file `hold` on its volume keeps it down; remove that, then this"
                ) from error
            self.start(member)
            path.unlink(missing_ok=True)
            done.append(f"start {member}")
        return done

    def stop(self, member: str) -> FaultProof:
        raise self._cannot(member, "stop")

    def pause(self, member: str, *, scope: Scope = "member") -> FaultProof:
        raise self._cannot(member, "pause")

    def resume(self, member: str) -> None:
        raise self._cannot(member, "resume")

    def isolate(self, member: str) -> FaultProof:
        raise self._cannot(member, "isolate")

    def rejoin(self, member: str) -> None:
        raise self._cannot(member, "rejoin")

    def switchover(self, member: str) -> FaultProof:
        raise self._cannot(member, "switch over")

    def block_loop(self, member: str, *, seconds: float) -> FaultProof:
        raise self._cannot(member, "block the loop of")

    # How.

    def _cannot(self, member: str, what: str) -> FaultRefused:
        return FaultRefused(f"the kubernetes runtime cannot {what} {member}; nothing was done")

    def _pod(self, member: str) -> Pod:
        pods = self._pods()
        for pod in pods:
            if pod.name == member:
                return pod
        raise EnvironmentFault(
            f"no member {member!r} in {self.name}; members: {', '.join(pod.name for pod in pods) or 'none'}"
        )

    def _allowed(self, member: str) -> Pod:
        pod = self._pod(member)
        self.admit_faults(pod.component)
        return pod

    def admit_faults(self, component: str) -> None:
        """The topology, the namespace and the account that asks must all allow it; `production` never does."""
        if self.name == "production":
            raise FaultRefused("production takes no faults, whatever its topology says: it takes staging's evidence")
        chaos = self.plan.topology.chaos
        if not chaos.allows(component):
            raise FaultRefused(chaos.refusal(component, self.name))
        labels = (self.cluster.space() or {"metadata": {}})["metadata"].get("labels") or {}
        if labels.get(CHAOS_LABEL) != "enabled":
            raise FaultRefused(
                f"the namespace {self.plan.namespace} has not opted in to faults (label {CHAOS_LABEL}=enabled): apply "
                "the program of this topology first; nothing was done"
            )
        missing = [
            " ".join((verb, right.resource, name)).strip()
            for right in runner_rights(self.plan)
            for verb in right.verbs
            for name in right.names or ("",)
            if not self.cluster.may(verb, right.group, right.resource, name)
        ]
        if missing:
            raise FaultRefused(
                f"this account may not {', '.join(missing)} in {self.plan.namespace}: use experiment-runner "
                "(docs/runbooks/staging.md); nothing was done"
            )

    def _undo_file(self, member: str) -> Path:
        return self.files.undo_dir / f"{member}.start.json"

    def _write_undo(self, member: str) -> Path:
        self.files.make()
        path = self._undo_file(member)
        write(path, json.dumps({"action": "start", "member": member}))
        return path


def _is_of(pod: Pod, component: str) -> bool:
    """`postgres` stands for all shards."""
    return component in {pod.component, pod.component.split("/", 1)[0]}


def _accepts(host: str, port: int) -> bool:
    with socket.socket() as trial:
        trial.settimeout(CONNECT_S)
        return trial.connect_ex((host, port)) == 0
