"""Actions on one API replica: block its event loop, and see whom that took out of rotation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.errors import ExperimentError
from experiments.faults.written import record_fault, say
from infra.stack import open_environment
from services.contracts.events import Event, monotonic_clock_id


def block_loop(environment: str, run_dir: str, seed: int, seconds: float) -> dict[str, Any]:
    """Block the event loop of the replica that the seed chooses; returns when the block is over.

    The proof is a second client's: while it lasts, the replica must not answer a plain question.
    """
    target = open_environment(environment)
    replicas = target.members("api")
    if not replicas:
        raise ExperimentError(f"{environment} has no API replica whose loop could be blocked")
    proof = target.block_loop(replicas[seed % len(replicas)].name, seconds=seconds)
    record_fault(Path(run_dir), proof, component="api", proven=True)
    if proof.until_ns is not None:
        say(run_dir, Event(proof.until_ns, monotonic_clock_id(), "fault", proof.member, "lifted", {}))
    return {"member": proof.member, "evidence": proof.evidence}
