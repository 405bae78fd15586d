"""Actions on one shard of Postgres: kill its primary, prove that it died, hold it down, start it again."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError

from experiments.checkers.noise import TWICE, unlike_halves
from experiments.errors import ExperimentError, fields
from experiments.history import History
from experiments.record import FaultRecord, ProcessId
from infra import environment as runtime
from infra.stack import open_environment
from loadtests.arrivals import NS_PER_S
from services.contracts.events import Event, EventLog, monotonic_clock_id

FAULT_FILE: Final = "fault.json"
EVENTS_FILE: Final = "events.jsonl"
POLL_S: Final = 0.1
FLUSHED_S: Final = 2
"""Load writes its history each second; what is older than this can be read."""
CALM_S: Final = 1.0
"""Between looking at the load and the fault: the look costs CPU, which on a small machine is the platform's as well."""
NEW_PRIMARY_S: Final = 40.0
"""Past the promise of 30 s: a shard without a primary by then has broken it, and the run need not wait for more."""


class NoPrimary(ExperimentError):
    """The shard has no primary that could be killed: the environment was not in its steady state."""


def baseline(run_dir: str, seconds: float, settle_s: float) -> dict[str, float]:
    """Let load run undisturbed until its last `seconds` were steady, `settle_s` longer at most.

    A disk that still writes what an installation left, say, makes a baseline that proves nothing; it is waited for.
    What was bad meanwhile is not forgotten: the undisturbed window holds it.
    """
    begun = Event.now("run", "undisturbed")
    _say(run_dir, begun)
    History.so_far(Path(run_dir))  # the first look loads libraries for most of a second: now, not beside the fault
    time.sleep(seconds + FLUSHED_S)
    while True:
        end = time.monotonic_ns() - FLUSHED_S * NS_PER_S
        steady = unlike_halves(History.so_far(Path(run_dir)), (end - int(seconds * NS_PER_S), end))
        if (steady is not None and steady[0] <= TWICE) or end - begun.t_ns >= (seconds + settle_s) * NS_PER_S:
            break
        time.sleep(1.0)
    time.sleep(CALM_S)
    _say(run_dir, replace(begun, kind="baseline", t_ns=end - int(seconds * NS_PER_S)))
    return {"seconds": seconds, "settled_s": (end - begun.t_ns) / NS_PER_S - seconds}


def kill_primary(environment: str, run_dir: str, shard: int, scope: Literal["server", "member"]) -> dict[str, Any]:
    """SIGKILL the shard's primary (`server`: Patroni and Postgres; `member`: its warden as well) and hold it down."""
    target = open_environment(environment)
    state = target.shard_state(shard)
    if state.primary is None or state.timeline is None:
        raise NoPrimary(f"shard {shard} of {environment} has no running primary; see `breakwater status {environment}`")
    proof = target.kill(state.primary, scope=scope, hold=True)
    record_fault(Path(run_dir), proof, shard=shard, old_timeline=state.timeline)
    return {"member": proof.member, "processes": len(proof.processes)}


def record_fault(run_dir: Path, proof: runtime.FaultProof, *, shard: int, old_timeline: int) -> None:
    """Write down what was done; whether it had an effect is `prove`'s to say."""
    record = FaultRecord(
        component=f"postgres/shard-{shard}",
        shard=shard,
        member=proof.member,
        scope=proof.scope,
        method=proof.method,
        hold=proof.hold,
        t_ns=proof.t_ns,
        pids=tuple(ProcessId(pid=p.pid, start_ticks=p.start_ticks, name=p.name) for p in proof.processes),
        proven=False,
        evidence="not looked at",
        old_timeline=old_timeline,
    )
    (run_dir / FAULT_FILE).write_text(record.model_dump_json(indent=2))
    # The event carries the moment before the first signal, not the moment of writing it down.
    _say(run_dir, Event(proof.t_ns, monotonic_clock_id(), "fault", proof.member, "killed", {"shard": shard}))


def read_fault(run_dir: Path) -> FaultRecord | None:
    """The fault as recorded so far; None when none was done."""
    try:
        return FaultRecord.model_validate_json((run_dir / FAULT_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ExperimentError(f"{run_dir / FAULT_FILE} is damaged: {fields(error)}") from error


def prove(environment: str, run_dir: str) -> dict[str, Any]:
    """Look again, independently of whoever did the fault: are those very processes gone, does nothing answer?"""
    fault = _fault(run_dir)
    identities = tuple(runtime.ProcessId(p.pid, p.start_ticks, p.name) for p in fault.pids)
    proven, evidence = open_environment(environment).is_down(fault.member, identities)
    proven = proven and bool(identities)
    record = fault.model_copy(update={"proven": proven, "evidence": evidence})
    (Path(run_dir) / FAULT_FILE).write_text(record.model_dump_json(indent=2))
    if proven:
        _say(run_dir, Event.now("fault", "proven", fault.member, evidence=evidence))
    return {"proven": proven, "evidence": evidence}


def hold(environment: str, run_dir: str, seconds: float) -> dict[str, Any]:
    """Keep the member down for `seconds` since the fault and until the shard has another primary, or 40 s at most.

    After a fault that had no effect there is nothing to wait for.
    """
    fault = _fault(run_dir)
    target = open_environment(environment)
    ends = fault.t_ns / 1e9 + seconds
    gives_up = fault.t_ns / 1e9 + max(seconds, NEW_PRIMARY_S)
    primary = None
    while (now := time.monotonic()) < gives_up:
        primary = target.shard_state(fault.shard).primary
        if now >= ends and (primary not in {None, fault.member} or not fault.proven):
            break
        time.sleep(POLL_S)
    return {"primary": primary}


def start_again(environment: str, run_dir: str) -> dict[str, str]:
    """Let the member come back."""
    fault = _fault(run_dir)
    _say(run_dir, Event.now("fault", "started", fault.member))
    open_environment(environment).start(fault.member)
    return {"member": fault.member}


def await_streaming(environment: str, run_dir: str, seconds: float) -> dict[str, Any]:
    """Wait until the member streams again; after `seconds` the run goes on without (a checker judges that)."""
    fault = _fault(run_dir)
    target = open_environment(environment)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state = target.shard_state(fault.shard)
        if fault.member in state.streaming or fault.member == state.primary:
            return {"streaming": True, "timeline": state.timeline}
        time.sleep(POLL_S)
    return {"streaming": False}


def recovery(run_dir: str, seconds: float) -> dict[str, float]:
    """Let load run on until `seconds` after the member was started again."""
    _say(run_dir, Event.now("run", "recovery"))
    time.sleep(seconds)
    _say(run_dir, Event.now("run", "recovered"))
    return {"seconds": seconds}


def heal(environment: str) -> list[str]:
    """Undo whatever is still in force; nothing to do is the normal case."""
    return list(open_environment(environment).heal())


def _fault(run_dir: str) -> FaultRecord:
    fault = read_fault(Path(run_dir))
    if fault is None:
        raise ExperimentError(f"{run_dir}/{FAULT_FILE} is missing: no fault was done, so nothing can follow from it")
    return fault


def _say(run_dir: str | Path, event: Event) -> None:
    log = EventLog(Path(run_dir) / EVENTS_FILE)
    log.append(event)
    log.close()
