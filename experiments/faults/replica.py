"""Actions on API replicas: block the event loop of one, or of all but one, or freeze the whole process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from experiments.errors import ExperimentError
from experiments.faults.clock import wait_until
from experiments.faults.written import record_fault, say
from infra.stack import open_environment
from services.contracts.events import Event, monotonic_clock_id

Blocked = Literal["one", "all-but-one", "whole-process"]


def block_loop(environment: str, run_dir: str, seed: int, seconds: float, blocked: Blocked) -> dict[str, Any]:
    """Block the event loop of one replica, or of all but one, whom the seed chooses; returns when that is over.

    The proof is a second client's: while it lasts, a blocked replica must not answer a plain question. `whole-process`
    stops all of one replica, the watchdog that would have told as well.
    """
    if blocked == "whole-process":
        return _freeze(environment, run_dir, seed, seconds)
    target = open_environment(environment)
    replicas = target.members("api")
    if not replicas:
        raise ExperimentError(f"{environment} has no API replica whose loop could be blocked")
    number = 1 if blocked == "one" else len(replicas) - 1
    victims = [replicas[(seed + at) % len(replicas)].name for at in range(number)]
    with ThreadPoolExecutor(max_workers=number) as pool:
        proofs = list(pool.map(lambda victim: target.block_loop(victim, seconds=seconds), victims))
    for proof in sorted(proofs, key=lambda proof: proof.t_ns):
        record_fault(Path(run_dir), proof, component="api", proven=True)
        if proof.until_ns is not None:
            say(run_dir, Event(proof.until_ns, monotonic_clock_id(), "fault", proof.member, "lifted", {}))
    return {proof.member: proof.evidence for proof in proofs}


def _freeze(environment: str, run_dir: str, seed: int, seconds: float) -> dict[str, Any]:
    """Stop all processes of one replica, whom the seed chooses, and let them go on after `seconds`."""
    target = open_environment(environment)
    replicas = target.members("api")
    if not replicas:
        raise ExperimentError(f"{environment} has no API replica that could be frozen")
    proof = target.pause(replicas[seed % len(replicas)].name)
    record_fault(Path(run_dir), proof, component="api", proven=True)
    wait_until(proof.t_ns, after_s=seconds)
    say(run_dir, Event.now("fault", "lifted", proof.member))
    target.resume(proof.member)
    return {proof.member: proof.evidence}
