"""What faults write down: the fault's record, and events of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from experiments.errors import ExperimentError, fields
from experiments.evidence import EVENTS_FILE
from experiments.record import FaultRecord, PodId, ProcessId
from infra.environment import FaultProof
from services.contracts.events import Event, EventLog, monotonic_clock_id

FAULT_FILE: Final = "fault.json"
_FAULTS: Final = TypeAdapter(tuple[FaultRecord, ...])

KINDS: Final = {
    "SIGKILL": "killed",
    "SIGSTOP": "paused",
    "block-loop": "blocked",
    "DEL": "deleted",
    "PEXPIRE": "expired",
    "isolate": "cut_off",
    "switchover": "handed_over",
    "reload": "reloading",
    "restart": "restarting",
}
"""The event that each method of a fault is told by."""


def record_fault(
    run_dir: Path,
    proof: FaultProof,
    *,
    component: str,
    shard: int | None = None,
    old_timeline: int | None = None,
    proven: bool = False,
    **data: int,
) -> None:
    """Write down what was done. Whether it had an effect is for a second look to say, unless `proven` already says.

    `data` goes into the event: what else must be known of the fault to judge it.
    """
    record = FaultRecord(
        component=component,
        shard=shard,
        member=proof.member,
        scope=proof.scope,
        method=proof.method,
        hold=proof.hold,
        t_ns=proof.t_ns,
        pids=tuple(ProcessId(pid=p.pid, start_ticks=p.start_ticks, name=p.name, pod=p.pod) for p in proof.processes),
        pod=None if proof.pod is None else PodId(name=proof.pod.name, uid=proof.pod.uid),
        proven=False,
        evidence="not looked at",
        old_timeline=old_timeline,
    )
    _write(run_dir, (*read_faults(run_dir), record))
    data = data if shard is None else {"shard": shard, **data}
    # The event carries the moment before the fault acted, not the moment of writing it down.
    say(run_dir, Event(proof.t_ns, monotonic_clock_id(), "fault", proof.member, KINDS[proof.method], data))
    if proven:
        write_effect(run_dir, record, proven=proof.proven, evidence=proof.evidence)


def write_effect(run_dir: Path, fault: FaultRecord, *, proven: bool, evidence: str) -> None:
    """Add to the fault's record what was seen of its effect."""
    seen = fault.model_copy(update={"proven": proven, "evidence": evidence})
    _write(run_dir, tuple(seen if known.t_ns == fault.t_ns else known for known in read_faults(run_dir)))
    if proven:
        say(run_dir, Event.now("fault", "proven", fault.member, evidence=evidence))


def _write(run_dir: Path, faults: tuple[FaultRecord, ...]) -> None:
    (run_dir / FAULT_FILE).write_bytes(_FAULTS.dump_json(faults, indent=2))


def read_faults(run_dir: Path) -> tuple[FaultRecord, ...]:
    """What was done so far, in its order."""
    try:
        return _FAULTS.validate_json((run_dir / FAULT_FILE).read_bytes())
    except FileNotFoundError:
        return ()
    except ValidationError as error:
        raise ExperimentError(f"{run_dir / FAULT_FILE} is damaged: {fields(error)}") from error


def the_fault(run_dir: Path) -> FaultRecord:
    """The first fault that was done; ExperimentError when there was none."""
    faults = read_faults(run_dir)
    if not faults:
        raise ExperimentError(f"{run_dir}/{FAULT_FILE} is missing: no fault was done, so nothing can follow from it")
    return faults[0]


def say(run_dir: str | Path, event: Event) -> None:
    """Append an event to the run's own."""
    log = EventLog(Path(run_dir) / EVENTS_FILE)
    log.append(event)
    log.close()
