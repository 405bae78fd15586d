"""Actions on one shard of Postgres: kill its primary, prove that it died, hold it down, start it again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final, Literal

from experiments.errors import ExperimentError
from experiments.faults.written import record_fault, say, the_fault, write_effect
from experiments.record import FaultRecord
from infra import environment as runtime
from infra.stack import open_environment
from services.contracts.events import Event

POLL_S: Final = 0.1
NEW_PRIMARY_S: Final = 40.0
"""Past the promise of 30 s: a shard without a primary by then has broken it, and the run need not wait for more."""


class NoPrimary(ExperimentError):
    """The shard has no primary that could be killed: the environment was not in its steady state."""


def kill_primary(environment: str, run_dir: str, shard: int, scope: Literal["server", "member"]) -> dict[str, Any]:
    """SIGKILL the shard's primary (`server`: Patroni and Postgres; `member`: its warden as well) and hold it down."""
    target = open_environment(environment)
    state = target.shard_state(shard)
    if state.primary is None or state.timeline is None:
        raise NoPrimary(f"shard {shard} of {environment} has no running primary; see `breakwater status {environment}`")
    proof = target.kill(state.primary, scope=scope, hold=True)
    record_fault(Path(run_dir), proof, component=f"postgres/shard-{shard}", shard=shard, old_timeline=state.timeline)
    return {"member": proof.member, "processes": len(proof.processes)}


def prove(environment: str, run_dir: str) -> dict[str, Any]:
    """Look again, independently of whoever did the fault: are those very processes gone, does nothing answer?"""
    fault = the_fault(Path(run_dir))
    identities = tuple(runtime.ProcessId(p.pid, p.start_ticks, p.name) for p in fault.pids)
    proven, evidence = open_environment(environment).is_down(fault.member, identities)
    proven = proven and bool(identities)
    write_effect(Path(run_dir), fault, proven=proven, evidence=evidence)
    return {"proven": proven, "evidence": evidence}


def hold(environment: str, run_dir: str, seconds: float) -> dict[str, Any]:
    """Keep the member down for `seconds` since the fault and until the shard has another primary, or 40 s at most.

    After a fault that had no effect there is nothing to wait for.
    """
    fault = the_fault(Path(run_dir))
    target = open_environment(environment)
    shard = _shard_of(fault)
    ends = fault.t_ns / 1e9 + seconds
    gives_up = fault.t_ns / 1e9 + max(seconds, NEW_PRIMARY_S)
    primary = None
    while (now := time.monotonic()) < gives_up:
        primary = target.shard_state(shard).primary
        if now >= ends and (primary not in {None, fault.member} or not fault.proven):
            break
        time.sleep(POLL_S)
    return {"primary": primary}


def start_again(environment: str, run_dir: str) -> dict[str, str]:
    """Let the member come back."""
    fault = the_fault(Path(run_dir))
    say(run_dir, Event.now("fault", "started", fault.member))
    open_environment(environment).start(fault.member)
    return {"member": fault.member}


def await_streaming(environment: str, run_dir: str, seconds: float) -> dict[str, Any]:
    """Wait until the member streams again; after `seconds` the run goes on without (a checker judges that)."""
    fault = the_fault(Path(run_dir))
    target = open_environment(environment)
    shard = _shard_of(fault)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state = target.shard_state(shard)
        if fault.member in state.streaming or fault.member == state.primary:
            return {"streaming": True, "timeline": state.timeline}
        time.sleep(POLL_S)
    return {"streaming": False}


def _shard_of(fault: FaultRecord) -> int:
    if fault.shard is None:
        raise ExperimentError(f"the fault on {fault.member} struck no shard of Postgres")
    return fault.shard
