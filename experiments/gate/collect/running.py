"""What a running environment shows: the flags of its JVMs, and its readiness while one H2O node is dead."""

from __future__ import annotations

import secrets
import time
from typing import Final

from experiments.gate.facts import ConsensusTrial, Heap, Known, Missing
from experiments.gate.items import CONSENSUS_S
from infra.environment import Environment, EnvironmentFault
from infra.topology import Topology

POLL_S: Final = 0.1
WATCHED_S: Final = 2 * CONSENSUS_S
"""So long the other nodes are watched for their readiness to go: twice what is allowed, to tell late from never."""
AGAIN_S: Final = 120.0
"""A cloud forms anew within a minute (S-03); twice that is patience, and no promise of the gate."""
OK: Final = 200


def running_heaps(environment: Environment, topology: Topology) -> tuple[Heap, ...]:
    """-Xmx of each H2O node's JVM as it runs, by its agent's word, beside the node's limit; None where none runs."""
    return tuple(
        Heap(f"running {node}", True, answer.said.get("running_heap_mb") if answer else None, topology.h2o.memory_mb)
        for node, answer in environment.h2o_answers("/status").items()
    )


def consensus_trial(environment: Environment, topology: Topology) -> Known[ConsensusTrial]:
    """Kill one H2O node, any, and watch the others' readiness until all are ready again, by themselves.

    Refused where chaos does not allow it.
    """
    if topology.environment == "production" or not topology.chaos.allows("h2o"):
        return Missing(f"{topology.environment} does not allow faults on h2o: nothing was killed")
    before = readiness(environment)
    if len(before) < 2:  # noqa: PLR2004 - one to kill, one to ask
        return Missing(f"readiness without one node needs two nodes; there are {len(before)}")
    victim = secrets.choice(list(before))
    others = [node for node in before if node != victim]
    if not all(before.values()):
        return ConsensusTrial(victim, False, "nothing was killed", before, dict.fromkeys(others), 0.0, False)
    proof = environment.kill(victim, scope="member", hold=False)
    false_after_s: dict[str, float | None] = dict.fromkeys(others)
    end_ns = proof.t_ns + int(WATCHED_S * 1e9)
    while time.monotonic_ns() < end_ns and None in false_after_s.values():
        found = readiness(environment)
        for name in others:
            if not found[name] and false_after_s[name] is None:
                false_after_s[name] = (time.monotonic_ns() - proof.t_ns) / 1e9
        time.sleep(POLL_S)
    watched_s = (time.monotonic_ns() - proof.t_ns) / 1e9
    try:
        environment.wait_ready(timeout_s=AGAIN_S)
        again = all(readiness(environment).values())
    except EnvironmentFault:
        again = False
    return ConsensusTrial(victim, proof.proven, proof.evidence, before, false_after_s, watched_s, again)


def readiness(environment: Environment) -> dict[str, bool]:
    """Each node's own answer to GET /ready; no answer is not ready."""
    answers = environment.h2o_answers("/ready")
    return {node: answer is not None and answer.status == OK for node, answer in answers.items()}
