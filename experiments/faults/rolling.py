"""Actions of a planned restart: every member of every component in turn, as an update of the whole platform does it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from experiments.errors import ExperimentError
from experiments.faults.written import record_fault, say, the_fault, write_effect
from infra.environment import EnvironmentFault, FaultProof
from infra.local import rolling
from infra.local.environment import LocalEnvironment
from infra.stack import local_plan
from services.contracts.events import Event, monotonic_clock_id

EVERYONE = "every member"


def restart_everything(environment: str, run_dir: str) -> dict[str, Any]:
    """Restart every member in turn, waiting for each; what came of each is an event."""
    target = LocalEnvironment(local_plan(environment))
    running = tuple(p for member in target.members() if (p := target.process_of(member.name)) is not None)
    if not running:
        raise ExperimentError(f"nothing runs in {environment} that could be restarted")
    began = FaultProof(EVERYONE, "member", "restart", False, time.monotonic_ns(), running, False, "not looked at")
    record_fault(Path(run_dir), began, component="every")
    done = []
    try:
        for each in rolling.everything(target):
            done.append(each.member)
            seconds = (each.ended_ns - each.began_ns) / 1e9
            data = {"seconds": seconds, "before": str(each.before), "after": str(each.after)}
            say(run_dir, Event(each.ended_ns, monotonic_clock_id(), "fault", each.member, "came_back", data))
            if each.unanswered is not None and each.left_ns is not None:
                count = {"unanswered": each.unanswered, "since_ns": each.began_ns}
                say(run_dir, Event(each.left_ns, monotonic_clock_id(), "edge", each.member, "drained", count))
    except EnvironmentFault as error:
        say(run_dir, Event.now("fault", "stayed_away", None, why=str(error)))
        raise
    fault = the_fault(Path(run_dir))
    write_effect(Path(run_dir), fault, proven=bool(done), evidence=f"{len(done)} members run as other processes")
    say(run_dir, Event.now("fault", "lifted", fault.member))
    return {"restarted": done}
