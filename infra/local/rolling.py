"""Restarts one member after the other as an update would: what leads hands over, what serves drains, others wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from infra.environment import EnvironmentFault, ProcessId
from infra.local import probe, processes, shard_config
from infra.local.environment import LocalEnvironment
from infra.local.plan import LocalPlan, MemberPlan
from infra.local.supervisor import Supervisor

READY_S: Final = 120.0
"""A JVM that joins its cloud, or a standby that streams again, takes 5 to 20 s; Mage, at low priority, a minute."""
HAND_OVER_S: Final = 40.0
"""What hands a shard over gives up by itself after 30 s."""
POLL_S: Final = 0.1
WAKE_EVERY_S: Final = 0.5
"""By itself Patroni counts a standby in at its next loop, up to 5 s later."""
ORDER: Final = ("etcd", "redis", "registry", "h2o", "postgres", "api", "edge")
"""Whoever is asked before whom asks it, as in an update of everything."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """One member: who ran before and who runs since, and when (monotonic ns).

    `unanswered`: attempts of the edge that a replica of the API left without an answer while it ended; None of others.
    `left_ns` is when it had been counted, the edge having taken it out of rotation.
    """

    member: str
    before: ProcessId
    after: ProcessId
    began_ns: int
    ended_ns: int
    unanswered: int | None = None
    left_ns: int | None = None


def everything(environment: LocalEnvironment) -> Iterator[Restarted]:
    """Restart every member in turn and wait for each; EnvironmentFault when one does not come back in time.

    An H2O cloud that loses a node restarts as a whole anyway, so its nodes go together, and Mage with them: a training
    needs both. Shards go side by side, as they have nothing to do with each other.
    """
    plan = environment.plan
    for component in ORDER:
        members = plan.of(component)
        if component == "h2o":
            yield from _together(environment, (*members, *plan.of("mage")))
        elif component == "postgres":
            shards = range(plan.topology.postgres.shards)
            with ThreadPoolExecutor(len(shards)) as pool:
                for restarted in pool.map(partial(_shard, environment), shards):
                    yield from restarted
        else:
            yield from (_one(environment, member) for member in members)


def _shard(environment: LocalEnvironment, shard: int) -> list[Restarted]:
    """The primary last: it hands over to a member that is new already, so that one switchover does."""
    primary = probe.shard_state(environment.plan, shard).primary
    members = sorted(environment.plan.of_shard(shard), key=lambda member: member.name == primary)
    return [_one(environment, member) for member in members]


def _one(environment: LocalEnvironment, member: MemberPlan) -> Restarted:
    plan = environment.plan
    before, began_ns = _identity(environment, member), time.monotonic_ns()
    unanswered = left_ns = None
    if member.component == "edge":
        reload_edge(environment, member)
    elif member.component == "api":
        known = probe.unanswered(plan).get(member.name, 0)
        environment.stop(member.name)
        _until(lambda: "the edge sends it requests" if probe.rotation(plan).get(member.name) else None, member.name)
        unanswered, left_ns = probe.unanswered(plan).get(member.name, 0) - known, time.monotonic_ns()
        environment.start(member.name)
    else:
        if member.shard is not None:
            _hand_over(member)
        environment.stop(member.name)
        environment.start(member.name)
    _await(plan, member)
    return Restarted(
        member.name, before, _identity(environment, member), began_ns, time.monotonic_ns(), unanswered, left_ns
    )


def _together(environment: LocalEnvironment, members: Sequence[MemberPlan]) -> Iterator[Restarted]:
    before, began_ns = [_identity(environment, member) for member in members], time.monotonic_ns()
    with ThreadPoolExecutor(len(members)) as pool:  # one after the other, those that are left would form a new cloud
        list(pool.map(environment.stop, [member.name for member in members]))
    for member in members:
        environment.start(member.name)
    for member, gone in zip(members, before, strict=True):
        _await(environment.plan, member)
        yield Restarted(member.name, gone, _identity(environment, member), began_ns, time.monotonic_ns())


def _identity(environment: LocalEnvironment, member: MemberPlan) -> ProcessId:
    """The process that does the member's work: of an edge, the worker that its master replaces."""
    found = environment.process_of(member.name)
    if found is not None and member.component == "edge":
        workers = [p.id for p in processes.working_in(member.directory) if p.parent == found.pid]
        found = max(workers, key=lambda worker: worker.start_ticks, default=None)
    if found is None:
        raise EnvironmentFault(f"{member.name} does not run; see `breakwater status {environment.name}`")
    return found


def reload_edge(environment: LocalEnvironment, member: MemberPlan) -> None:
    """A new worker takes the listening sockets over; the old one answers what it has, and ends."""
    old, master = _identity(environment, member), environment.process_of(member.name)
    if master is not None:
        os.kill(master.pid, signal.SIGUSR2)
    _until(lambda: None if _identity(environment, member) != old else "the old worker still serves", member.name)


def _hand_over(member: MemberPlan) -> None:
    """What the pods' preStop hook does; nothing for a member that leads nobody."""
    command = [sys.executable, "-m", "services.postgres.step_down", str(member.directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HAND_OVER_S, check=False)
    if done.returncode != 0 or "still leading" in done.stderr:
        raise EnvironmentFault(f"{member.name} did not hand its leadership over: {done.stderr.strip()[-300:]}")


def _await(plan: LocalPlan, member: MemberPlan) -> None:
    supervisor = Supervisor(plan)
    woken_s = 0.0

    def lacking() -> str | None:
        nonlocal woken_s
        health = probe.ask(plan, member, supervisor.states())
        if not health.healthy:
            return health.state
        if member.shard is not None:
            missing = probe.missing_redundancy(plan, member.shard)
            if missing is not None and time.monotonic() - woken_s > WAKE_EVERY_S:
                shard_config.wake(plan, member.shard)
                woken_s = time.monotonic()
            return missing
        if member.component == "api":
            return probe.obstacle(member) or (
                None if probe.rotation(plan).get(member.name, False) else "the edge sends it nothing yet"
            )
        return None

    _until(lacking, member.name)


def _until(lacking: Callable[[], str | None], member: str) -> None:
    end = time.monotonic() + READY_S
    while (missing := lacking()) is not None:
        if time.monotonic() > end:
            raise EnvironmentFault(f"{member} did not come back within {READY_S:.0f} s of its restart: {missing}")
        time.sleep(POLL_S)
