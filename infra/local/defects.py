"""Defects put into a running local environment from outside, so that controls can show that the suite sees them.

Nothing in a service or a checker knows of them. Each has its way back, which the experiment's rollbacks call.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from typing import Final

import psycopg

from infra.environment import EnvironmentFault, ProcessId
from infra.local import processes, shard_config
from infra.local.plan import LocalPlan
from infra.local.probe import shard_state
from infra.local.supervisor import Supervisor

APPLICATION: Final = "breakwater-control"
WAIT_S: Final = 30.0
"""Patroni carries out a change of configuration in its next loop (5 s)."""
POLL_S: Final = 0.02


def wardens_off(plan: LocalPlan) -> int:
    """Stop every warden; returns how many there were."""
    supervisor = Supervisor(plan)
    wardens = [state for state in supervisor.states().values() if state.name.endswith("-warden")]
    supervisor.stop(wardens)
    return len(wardens)


def wardens_on(plan: LocalPlan) -> None:
    supervisor = Supervisor(plan)
    supervisor.start([state for state in supervisor.states().values() if state.name.endswith("-warden")])


def set_replication(plan: LocalPlan, shard: int, mode: str) -> None:
    """Make the shard's replication `quorum` or `off` (asynchronous) and wait until the primary has it so."""
    shard_config.change(plan, shard, {"synchronous_mode": mode, "synchronous_mode_strict": mode == "quorum"})
    end = time.monotonic() + WAIT_S
    with psycopg.connect(plan.admin_endpoints(shard).conninfo("read-write", application_name=APPLICATION)) as primary:
        primary.autocommit = True
        while True:
            row = primary.execute("show synchronous_standby_names").fetchone()
            if row is not None and bool(row[0]) == (mode == "quorum"):
                return
            if time.monotonic() > end:
                raise EnvironmentFault(f"shard {shard} did not change its replication to {mode} within {WAIT_S:.0f} s")
            time.sleep(POLL_S)


def walreceivers(plan: LocalPlan, shard: int) -> tuple[ProcessId, ...]:
    """The process on each replica that receives WAL."""
    primary = shard_state(plan, shard).primary
    found = []
    for member in plan.of_shard(shard):
        if member.name == primary:
            continue
        conninfo = plan.admin_endpoints(shard).member_conninfo(member.name, application_name=APPLICATION)
        with psycopg.connect(conninfo) as replica:
            row = replica.execute("select pid from pg_stat_wal_receiver").fetchone()
        process = processes.read(row[0]) if row else None
        if process is None:
            raise EnvironmentFault(f"{member.name} has no walreceiver: it does not stream; see `breakwater status`")
        found.append(process.id)
    return tuple(found)


def signal_all(identities: Iterable[ProcessId], sig: signal.Signals) -> None:
    """Signal those that still are the same processes."""
    for identity in identities:
        if processes.is_alive(identity):
            os.kill(identity.pid, sig)
