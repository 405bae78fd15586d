"""Actions on a primary that is not killed whole: half of it, frozen, cut off, or sent away in good order."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from experiments.faults.shard import hold, led
from experiments.faults.written import record_fault, say, the_fault
from infra.environment import Environment, FaultProof
from infra.stack import open_environment
from services.contracts.events import Event

Blow = Literal["kill-postgres", "kill-patroni", "freeze-patroni", "pause", "isolate", "switchover"]


def strike(environment: str, run_dir: str, shard: int, how: Blow) -> dict[str, Any]:
    """Strike the shard's primary; the proof is what the environment saw of its effect."""
    target = open_environment(environment)
    primary, timeline = led(target, environment, shard)
    proof = _strike(target, primary, how)
    component = f"postgres/shard-{shard}"
    record_fault(Path(run_dir), proof, component=component, shard=shard, old_timeline=timeline, proven=True)
    return {"member": proof.member, "evidence": proof.evidence}


def _strike(target: Environment, primary: str, how: Blow) -> FaultProof:
    match how:
        case "kill-postgres":
            return target.kill(primary, scope="postgres", hold=False)
        case "kill-patroni":
            return target.kill(primary, scope="patroni", hold=False)
        case "freeze-patroni":
            return target.pause(primary, scope="patroni")
        case "pause":
            return target.pause(primary)
        case "isolate":
            return target.isolate(primary)
        case "switchover":
            return target.switchover(primary)


def lift(environment: str, run_dir: str, seconds: float) -> dict[str, Any]:
    """After `seconds`, and once another member leads, undo what does not end by itself."""
    waited = hold(environment, run_dir, seconds)
    fault = the_fault(Path(run_dir))
    target = open_environment(environment)
    say(run_dir, Event.now("fault", "started" if fault.hold else "lifted", fault.member))
    if fault.method == "SIGSTOP":
        target.resume(fault.member)
    elif fault.method == "isolate":
        target.rejoin(fault.member)
    return {"member": fault.member, **waited}
