"""What a running environment shows: the flags of its JVMs, and its readiness while one H2O node is dead."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from typing import Final, Protocol, runtime_checkable

import urllib3

from experiments.gate.facts import ConsensusTrial, Heap, Known, Missing
from experiments.gate.items import CONSENSUS_S
from infra.environment import Environment, EnvironmentFault, Member
from infra.topology import Topology

POLL_S: Final = 0.1
ANSWER_S: Final = 1.0
WATCHED_S: Final = 2 * CONSENSUS_S
"""So long the other nodes are watched for their readiness to go: twice what is allowed, to tell late from never."""
AGAIN_S: Final = 120.0
"""A cloud forms anew within a minute (S-03); twice that is patience, and no promise of the gate."""
_HEAP: Final = re.compile(r"-Xmx(\d+)([mMgG])")


@runtime_checkable
class ShowsProcesses(Protocol):
    """A runtime that can tell how a member's processes were started."""

    def command_lines(self, member: str) -> tuple[tuple[str, ...], ...]: ...


def running_heaps(environment: Environment, topology: Topology) -> Known[tuple[Heap, ...]]:
    """-Xmx of each H2O node's JVM as it runs, beside the node's limit. A node without a JVM has no heap (None)."""
    if not isinstance(environment, ShowsProcesses):
        return Missing(f"the runtime of {environment.name} does not show how its JVMs were started")
    found = []
    for member in environment.members("h2o"):
        heaps = [heap for line in environment.command_lines(member.name) if (heap := heap_mb(line)) is not None]
        found.append(
            Heap(f"running {member.name}", True, heaps[0] if len(heaps) == 1 else None, topology.h2o.memory_mb)
        )
    return tuple(found)


def heap_mb(arguments: Iterable[str]) -> int | None:
    """Of a JVM's arguments; the last -Xmx counts, as for the JVM."""
    sizes = [match for argument in arguments if (match := _HEAP.fullmatch(argument))]
    return int(sizes[-1][1]) * (1024 if sizes[-1][2] in "gG" else 1) if sizes else None


def consensus_trial(environment: Environment, topology: Topology, victim: str) -> Known[ConsensusTrial]:
    """Kill one H2O node, watch the others' readiness, start it again. Refused where chaos does not allow it."""
    if topology.environment == "production" or not topology.chaos.allows("h2o"):
        return Missing(f"{topology.environment} does not allow faults on h2o: nothing was killed")
    nodes = [member for member in environment.members("h2o") if member.agent_port is not None]
    others = [node for node in nodes if node.name != victim]
    if len(others) == len(nodes) or not others:
        return Missing(f"{victim} and other nodes that tell their readiness are needed; there are {len(nodes)}")
    before = _readiness(nodes)
    if not all(before.values()):
        return ConsensusTrial(victim, False, "nothing was killed", before, dict.fromkeys(_names(others)), 0.0, False)
    proof = environment.kill(victim, scope="member", hold=True)
    try:
        false_after_s: dict[str, float | None] = dict.fromkeys(_names(others))
        end_ns = proof.t_ns + int(WATCHED_S * 1e9)
        while time.monotonic_ns() < end_ns and None in false_after_s.values():
            for name, ready in _readiness(others).items():
                if not ready and false_after_s[name] is None:
                    false_after_s[name] = (time.monotonic_ns() - proof.t_ns) / 1e9
            time.sleep(POLL_S)
        watched_s = (time.monotonic_ns() - proof.t_ns) / 1e9
    finally:
        environment.start(victim)
    try:
        environment.wait_ready(timeout_s=AGAIN_S)
        again = all(_readiness(nodes).values())
    except EnvironmentFault:
        again = False
    return ConsensusTrial(victim, proof.proven, proof.evidence, before, false_after_s, watched_s, again)


def _names(nodes: Iterable[Member]) -> list[str]:
    return [node.name for node in nodes]


def _readiness(nodes: Iterable[Member]) -> Mapping[str, bool]:
    """Each node's own answer to GET /ready; no answer is not ready."""
    return {node.name: _is_ready(f"http://{node.host}:{node.agent_port}/ready") for node in nodes}


def _is_ready(url: str) -> bool:
    try:
        return urllib3.request("GET", url, timeout=ANSWER_S, retries=False).status == 200  # noqa: PLR2004 - HTTP
    except urllib3.exceptions.HTTPError:
        return False
