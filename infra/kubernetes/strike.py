"""Faults on pods: processes killed inside a living one, pods deleted; matching nothing or being refused is an error."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from chaosk8s.pod.actions import terminate_pods

from infra.environment import EnvironmentFault, FaultRefused, ProcessId, Scope
from infra.kubernetes.cluster import Cluster, Command
from infra.kubernetes.inside import PROGRAM, STRIKE
from infra.kubernetes.plan import MEMBER_DIR, PYTHON
from infra.kubernetes.pod import Pod

SERVER, WARDEN = "server", "warden"
READY_S: Final = 30.0
"""A command in a container begins within a second, on a machine that does much else within several."""
SETTLE_S: Final = 1.0
"""Between the preparation and the strike: lists of pods and a command that begins take a small cluster's processors for
half a second, which would be taken for the fault's doing."""
GONE_S: Final = 5.0
"""SIGKILL ends a process within milliseconds, unless it sleeps in the kernel on a disk."""
EVENTS_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Struck:
    """Which processes were sent SIGKILL, when by this machine's clock; how many were left (None: nobody could say)."""

    t_ns: int
    processes: tuple[ProcessId, ...]
    left: int | None


@dataclass(frozen=True, slots=True)
class Seen:
    """Inside a pod: how many of the wanted processes live, which processes its server has, whether it is held."""

    alive: int
    processes: tuple[ProcessId, ...]
    held: bool


def kill_processes(cluster: Cluster, pod: Pod, scope: Scope, *, hold: bool) -> Struck:
    """SIGKILL Patroni and Postgres of a member, `member`: the warden first. FaultRefused when none runs.

    Everything is prepared inside before the word to strike is sent, so that the time until it acts is one message.
    """
    # what is struck must not be what strikes: a container's end is the end of every command in it
    container = WARDEN if scope == "server" and pod.runs(WARDEN) else SERVER
    arguments = ("kill", str(MEMBER_DIR), scope, "hold" if hold else "-", str(GONE_S))
    with _inside(cluster, pod, container, *arguments) as command:
        first = command.hear(timeout_s=READY_S)
        if not first.get("ready"):
            raise FaultRefused(f"{pod.name} runs no server; nothing was killed; is it up? `breakwater status`")
        time.sleep(SETTLE_S)
        t_ns = time.monotonic_ns()
        command.say(STRIKE)
        victims = _processes(pod, command.hear(timeout_s=READY_S)["processes"])
        if container == SERVER:
            return Struck(t_ns, victims, None)
        return Struck(t_ns, victims, int(command.hear(timeout_s=GONE_S + READY_S)["left"]))


def delete_pod(cluster: Cluster, pod: Pod) -> int:
    """Delete it without grace; the monotonic ns just before. EnvironmentFault unless it alone was deleted."""
    t_ns = time.monotonic_ns()
    with cluster.clear(f"delete pod {pod.name}"):
        deleted = terminate_pods(
            name_pattern=f"^{re.escape(pod.name)}$",
            grace_period=0,
            ns=cluster.namespace,
            secrets={"KUBERNETES_CONTEXT": cluster.context},
        )
    if deleted != [pod.name]:
        raise EnvironmentFault(f"deleting {pod.name} matched {deleted or 'nothing'}: it was not there any more")
    return t_ns


def look(cluster: Cluster, pod: Pod, wanted: Sequence[ProcessId] = ()) -> Seen:
    """EnvironmentFault when no container of the pod can be looked into."""
    asked = json.dumps([[process.pid, process.start_ticks] for process in wanted])
    with _inside(cluster, pod, standing(pod), "look", str(MEMBER_DIR), asked) as command:
        said = command.hear(timeout_s=READY_S)
    return Seen(int(said["alive"]), _processes(pod, said["processes"]), bool(said["held"]))


def release(cluster: Cluster, pod: Pod) -> None:
    """Take the hold away: the launcher starts the server within a twentieth of a second."""
    with _inside(cluster, pod, standing(pod), "release", str(MEMBER_DIR)) as command:
        command.hear(timeout_s=READY_S)


def wardens_events(cluster: Cluster, pod: Pod) -> str:
    """The end of what the member's warden wrote down, lines of JSON."""
    with _inside(cluster, pod, standing(pod), "events", str(MEMBER_DIR), str(EVENTS_BYTES)) as command:
        return str(command.hear(timeout_s=READY_S)["text"])


def stands(pod: Pod) -> bool:
    """Whether a container of a shard's member runs, in which a command can be."""
    return pod.runs(WARDEN) or pod.runs(SERVER)


def standing(pod: Pod) -> str:
    """The container for a command that leaves the server alone."""
    return WARDEN if pod.runs(WARDEN) else SERVER


def _inside(cluster: Cluster, pod: Pod, container: str, *arguments: str) -> Command:
    return cluster.command(pod.name, container, [PYTHON, "-c", PROGRAM, *arguments])


def _processes(pod: Pod, listed: Sequence[Sequence[Any]]) -> tuple[ProcessId, ...]:
    return tuple(ProcessId(int(pid), int(ticks), str(name), pod.uid) for pid, ticks, name in listed)
