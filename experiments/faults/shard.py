"""Actions on one shard of Postgres: kill its primary, prove that it died, hold it down, start it again."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from experiments.errors import ExperimentError
from experiments.faults.clock import wait_until
from experiments.faults.written import read_faults, record_fault, say, the_fault, write_effect
from experiments.record import FaultRecord
from infra import environment as runtime
from infra.environment import Environment, Scope
from infra.stack import open_environment
from services.contracts.events import Event

POLL_S: Final = 0.1
NEW_PRIMARY_S: Final = 40.0
"""Past the promise of 30 s: a shard without a primary by then has broken it, and the run need not wait for more."""


class NoPrimary(ExperimentError):
    """The shard has no primary that could be killed: the environment was not in its steady state."""


def led(target: Environment, environment: str, shard: int) -> tuple[str, int]:
    """The shard's primary and its timeline; NoPrimary when there is none."""
    state = target.shard_state(shard)
    if state.primary is None or state.timeline is None:
        raise NoPrimary(f"shard {shard} of {environment} has no running primary; see `breakwater status {environment}`")
    return state.primary, state.timeline


def kill_primary(environment: str, run_dir: str, shard: int, scope: Scope) -> dict[str, Any]:
    """SIGKILL the shard's primary (`server`: Patroni and Postgres; `member`: its warden as well) and hold it down."""
    target = open_environment(environment)
    primary, timeline = led(target, environment, shard)
    proof = target.kill(primary, scope=scope, hold=True)
    record_fault(Path(run_dir), proof, component=f"postgres/shard-{shard}", shard=shard, old_timeline=timeline)
    return {"member": proof.member, "processes": len(proof.processes)}


def kill_primaries(environment: str, run_dir: str, scope: Scope) -> dict[str, Any]:
    """The same to the primaries of all shards at once."""
    target = open_environment(environment)
    victims = [(shard.shard, *led(target, environment, shard.shard)) for shard in target.shards()]
    with ThreadPoolExecutor(max_workers=len(victims)) as pool:
        proofs = list(pool.map(lambda victim: target.kill(victim[1], scope=scope, hold=True), victims))
    for (shard, _, timeline), proof in sorted(zip(victims, proofs, strict=True), key=lambda entry: entry[1].t_ns):
        record_fault(Path(run_dir), proof, component=f"postgres/shard-{shard}", shard=shard, old_timeline=timeline)
    return {"members": [proof.member for proof in proofs]}


def prove(environment: str, run_dir: str, after_s: float = 0.0) -> dict[str, Any]:
    """Look again, independently of whoever did the fault: are those very processes gone, does nothing answer?

    Not before `after_s` since the fault: what is held down waits, and looking takes processor from what fails over
    meanwhile (on Kubernetes lists of pods and a command in one).
    """
    faults = unproven(run_dir)
    wait_until(max((fault.t_ns for fault in faults), default=0), after_s=after_s)
    target = open_environment(environment)
    seen = {}
    for fault in faults:
        identities = tuple(runtime.ProcessId(p.pid, p.start_ticks, p.name, p.pod) for p in fault.pids)
        pod = None if fault.pod is None else runtime.PodId(fault.pod.name, fault.pod.uid)
        proven, evidence = target.is_down(fault.member, identities, pod)
        proven = proven and fault.names_its_victim
        write_effect(Path(run_dir), fault, proven=proven, evidence=evidence)
        seen[fault.member] = {"proven": proven, "evidence": evidence}
    return seen


def unproven(run_dir: str) -> list[FaultRecord]:
    """What was done and not looked at yet; ExperimentError when nothing was."""
    the_fault(Path(run_dir))
    return [fault for fault in read_faults(Path(run_dir)) if not fault.proven]


def hold(environment: str, run_dir: str, seconds: float) -> dict[str, Any]:
    """Keep it down for `seconds` since the fault and until each struck shard has another primary, or 40 s at most.

    After a fault that had no effect there is nothing to wait for.
    """
    fault = the_fault(Path(run_dir))
    faults = read_faults(Path(run_dir))
    struck = {entry.member for entry in faults}
    target = open_environment(environment)
    gives_up = fault.t_ns / 1e9 + max(seconds, NEW_PRIMARY_S)
    primaries: list[str | None] = []
    # asking every Patroni ten times a second is nothing that a failover should have to bear
    wait_until(fault.t_ns, after_s=seconds)
    while time.monotonic() < gives_up:
        primaries = [target.shard_state(shard).primary for shard in sorted({_shard_of(entry) for entry in faults})]
        if (struck.isdisjoint(primaries) and None not in primaries) or not fault.proven:
            break
        time.sleep(POLL_S)
    return {"primaries": primaries}


def start_again(environment: str, run_dir: str) -> dict[str, list[str]]:
    """Let whatever was killed come back."""
    target = open_environment(environment)
    members = list(dict.fromkeys(fault.member for fault in read_faults(Path(run_dir))))
    for member in members:
        say(run_dir, Event.now("fault", "started", member))
        target.start(member)
    return {"members": members}


def await_streaming(environment: str, run_dir: str, seconds: float) -> dict[str, Any]:
    """Wait until all that was struck streams again; after `seconds` the run goes on without (a checker judges that)."""
    faults = read_faults(Path(run_dir))
    target = open_environment(environment)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        states = [(fault.member, target.shard_state(_shard_of(fault))) for fault in faults]
        if all(member in state.streaming or member == state.primary for member, state in states):
            return {"streaming": True}
        time.sleep(POLL_S)
    return {"streaming": False}


def _shard_of(fault: FaultRecord) -> int:
    if fault.shard is None:
        raise ExperimentError(f"the fault on {fault.member} struck no shard of Postgres")
    return fault.shard
