"""What only a running environment shows: its edge, the flags of its JVMs, its readiness while one H2O node is dead."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from experiments.gate.collect.handshake import handshakes
from experiments.gate.collect.stored import last_training
from experiments.gate.facts import ConsensusTrial, Fact, Handshake, Heap, Known, Missing, Training
from experiments.gate.items import CONSENSUS_S
from infra.environment import Edge, Environment, EnvironmentFault
from infra.stack import local_plan, locked
from infra.topology import Topology
from services.contracts.training import TRAINING_FILE

POLL_S: Final = 0.1
WATCHED_S: Final = 2 * CONSENSUS_S
"""So long the other nodes are watched for their readiness to go: twice what is allowed, to tell late from never."""
AGAIN_S: Final = 120.0
"""A cloud forms anew within a minute (S-03); twice that is patience, and no promise of the gate."""
OK: Final = 200


@dataclass(frozen=True, slots=True)
class Shown:
    """What was seen; each Missing where the environment could not say it, with its reason."""

    handshakes: Known[tuple[Handshake, ...]]
    heaps: Known[tuple[Heap, ...]]
    consensus: Known[ConsensusTrial]
    training: Known[Training]


def look(topology: Topology, edge: Edge | None) -> Shown:
    """Kills one H2O node where that is allowed. `edge` is one that was named, where not the environment's own is meant.

    Of production that is all that is looked at. EnvironmentFault when something else works on the environment.
    """
    if topology.environment == "production":
        spared = Missing("production is only looked at: its gate takes staging's evidence")
        unnamed = Missing("the edge is not known: give --edge HOST:PORT and --ca FILE")
        return Shown(handshakes(edge) if edge else unnamed, spared, spared, spared)
    with locked(topology.environment) as environment:
        return Shown(
            _known(lambda: handshakes(edge or environment.endpoints().edge)),
            _known(lambda: running_heaps(environment, topology)),
            _known(lambda: consensus_trial(environment, topology)),
            _training(topology),
        )


def _known(ask: Callable[[], Known[Fact]]) -> Known[Fact]:
    try:
        return ask()
    except EnvironmentFault as error:
        return Missing(str(error))


def _training(topology: Topology) -> Known[Training]:
    name = topology.environment
    if topology.runtime != "local":
        return Missing(f"{name} runs on {topology.runtime}, where trainings leave no record that can be read from here")
    return last_training(local_plan(name).state / TRAINING_FILE, topology.postgres.shards)


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
