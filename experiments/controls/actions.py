"""What controls do during an experiment, as Chaos Toolkit actions: the defects, and their way back."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any, Final

import psycopg

from experiments.errors import ExperimentError
from experiments.faults.shard import kill_primary
from experiments.faults.written import record_fault, say
from infra.environment import FaultProof, Scope
from infra.local import defects, processes
from infra.stack import local_plan, open_environment
from loadtests.keys import KEY_MASK, entity_of, key_of
from loadtests.plan import LoadPlan
from services.contracts.events import Event

APPLICATION: Final = "breakwater-control"
UNREPLICATED_WRITES: Final = 100
"""So many acknowledged writes that no replica has seen must exist before the kill."""
WAIT_S: Final = 4.0
"""Below wal_sender_timeout (5 s): a held walreceiver must not be given up before the kill."""
POLL_S: Final = 0.02
LONG_LEASE_S: Final = 60
"""Twice the promise of the next acknowledged write."""


def wardens_off(environment: str) -> int:
    return defects.wardens_off(local_plan(environment))


def wardens_on(environment: str) -> None:
    defects.wardens_on(local_plan(environment))


def make_asynchronous(environment: str, shard: int) -> None:
    defects.set_replication(local_plan(environment), shard, "off")


def make_synchronous(environment: str, shard: int) -> None:
    defects.set_replication(local_plan(environment), shard, "quorum")


def fences_off(environment: str) -> list[str]:
    return defects.fences_off(local_plan(environment))


def fences_on(environment: str) -> list[str]:
    return defects.fences_on(local_plan(environment))


def lengthen_lease(environment: str, shard: int) -> None:
    """A minute, and nobody but the lease's end tells of a primary's death."""
    plan = local_plan(environment)
    defects.wardens_off(plan)
    defects.lengthen_lease(plan, shard, LONG_LEASE_S)


def shorten_lease(environment: str, shard: int) -> None:
    plan = local_plan(environment)
    defects.lengthen_lease(plan, shard, plan.topology.postgres.patroni.ttl)
    defects.wardens_on(plan)


def watchdogs_off(environment: str) -> list[str]:
    return defects.watchdogs_off(local_plan(environment))


def watchdogs_on(environment: str) -> list[str]:
    return defects.watchdogs_on(local_plan(environment))


def make_defective(environment: str, defect: str) -> list[str]:
    return defects.make_defective(local_plan(environment), defect)


def make_sound(environment: str) -> list[str]:
    return defects.make_sound(local_plan(environment))


def keeper_off(environment: str) -> str:
    return defects.take_election(local_plan(environment))


def keeper_on(environment: str) -> None:
    defects.open_election(local_plan(environment))


def point_at_flawed(environment: str, run_dir: str) -> int:
    """Move the pointer to the flawed version of the run before any replica has looked at it."""
    prepared = json.loads((Path(run_dir) / "versions.json").read_text())
    return defects.point_at(local_plan(environment), prepared["versions"][0])


def hold_replay_back(environment: str, shard: int, seconds: float) -> list[str]:
    return defects.hold_replay_back(local_plan(environment), shard, seconds)


def edge_asks_once(environment: str) -> None:
    defects.edge_asks_once(local_plan(environment))


def edge_trusts(environment: str) -> None:
    defects.edge_trusts(local_plan(environment))


def edge_sound(environment: str) -> list[str]:
    return defects.edge_sound(local_plan(environment))


def restart_edge(environment: str) -> None:
    defects.restart_edge(local_plan(environment))


def fill_cache(environment: str) -> None:
    defects.cache_full(local_plan(environment))


def make_room_in_cache(environment: str) -> None:
    defects.cache_roomy(local_plan(environment))


def pretend_to_block(environment: str, run_dir: str, seed: int, seconds: float) -> dict[str, str]:
    """Record a blocked loop as it would be recorded, and block nothing."""
    replicas = open_environment(environment).members("api")
    member = replicas[seed % len(replicas)]
    process = processes.read(member.pid) if member.pid is not None else None
    if process is None:
        raise ExperimentError(f"{member.name} does not run")
    began_ns = time.monotonic_ns()
    time.sleep(seconds)
    proof = FaultProof(member.name, "loop", "block-loop", False, began_ns, (process.id,), False, "an answer came")
    record_fault(Path(run_dir), proof, component="api", proven=True)
    say(run_dir, Event.now("fault", "lifted", member.name))
    return {"member": member.name}


def kill_with_unreplicated_writes(environment: str, run_dir: str, shard: int, scope: Scope) -> dict[str, Any]:
    """Hold both walreceivers back until enough writes are acknowledged, then kill the primary.

    The walreceivers get SIGTERM before they go on: what waits in their sockets must die with them, or the replicas
    would still receive the writes after the primary's death and nothing would be lost.
    """
    plan = local_plan(environment)
    load = LoadPlan.load(Path(run_dir) / "load.json")
    endpoints = next(s for s in load.shards if s.shard == shard)
    bounds = (entity_of(load.run_tag, 0), entity_of(load.run_tag, KEY_MASK))
    receivers = defects.walreceivers(plan, shard)
    with psycopg.connect(endpoints.conninfo("read-write", application_name=APPLICATION), autocommit=True) as primary:

        def written() -> int:
            row = primary.execute(
                "select count(*) from features where event_time = %s and entity_id between %s and %s",
                (load.write_event_time, *bounds),
            ).fetchone()
            return int(row[0]) if row else 0

        try:
            defects.signal_all(receivers, signal.SIGSTOP)
            before, end = written(), time.monotonic() + WAIT_S
            while (more := written() - before) < UNREPLICATED_WRITES:
                if time.monotonic() > end:
                    raise ExperimentError(
                        f"only {more} writes were acknowledged in {WAIT_S:.0f} s while the replicas were held back, "
                        f"{UNREPLICATED_WRITES} are needed; run with a higher --rate"
                    )
                time.sleep(POLL_S)
            defects.signal_all(receivers, signal.SIGTERM)
            killed = kill_primary(environment, run_dir, shard, scope)
        finally:
            defects.signal_all(receivers, signal.SIGCONT)
    return {**killed, "unreplicated": more}


def delete_acknowledged_row(run_dir: str, shard: int) -> dict[str, int]:
    """Delete one row of the run, written before the fault, as a lost write would be missing."""
    load = LoadPlan.load(Path(run_dir) / "load.json")
    endpoints = next(s for s in load.shards if s.shard == shard)
    bounds = (entity_of(load.run_tag, 0), entity_of(load.run_tag, KEY_MASK))
    with psycopg.connect(endpoints.conninfo("read-write", application_name=APPLICATION)) as primary:
        row = primary.execute(
            "delete from features where event_time = %s and entity_id = (select entity_id from features"
            " where event_time = %s and entity_id between %s and %s order by written_at limit 1) returning entity_id",
            (load.write_event_time, load.write_event_time, *bounds),
        ).fetchone()
    if row is None:
        raise ExperimentError(f"shard {shard} holds no row of this run that could be deleted")
    return {"key": key_of(row[0])}


def freeze_edge(environment: str, seconds: float) -> dict[str, float]:
    """Stop the edge's process for some seconds: connections stay open, nothing is answered."""
    target = open_environment(environment)
    edge = target.members("edge")[0].name
    target.pause(edge)
    try:
        time.sleep(seconds)
    finally:
        target.resume(edge)
    return {"seconds": seconds}


def pretend_to_kill(environment: str, run_dir: str, shard: int, scope: Scope) -> dict[str, Any]:
    """Record a kill as it would be recorded, and do nothing: whoever believes it is too trusting."""
    target = open_environment(environment)
    state = target.shard_state(shard)
    member = next(m for m in target.members() if m.name == state.primary)
    process = processes.read(member.pid) if member.pid is not None else None
    if process is None or state.timeline is None:
        raise ExperimentError(f"shard {shard} has no running primary")
    proof = FaultProof(member.name, scope, "SIGKILL", True, time.monotonic_ns(), (process.id,), True, "claimed")
    record_fault(Path(run_dir), proof, component=f"postgres/shard-{shard}", shard=shard, old_timeline=state.timeline)
    return {"member": member.name}


def stall_writers(run_dir: str, seconds: float) -> dict[str, float]:
    """Stop the process of the direct writers for some seconds."""
    started = json.loads((Path(run_dir) / "processes.json").read_text())
    pids = [entry["pid"] for entry in started if "loadtests.writers" in entry["command"]]
    if not pids:
        raise ExperimentError(f"{run_dir}/processes.json names no writers")
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    return {"seconds": seconds}
