"""Watches the shards' leader keys in etcd, and etcd's own elections: `python -m experiments.probes.etcd PLAN`."""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from typing import Final

from experiments.probes.watchers import Watcher, watch
from loadtests.plan import LoadPlan
from services.contracts.events import Event, EventLog
from services.contracts.shards import leader_key
from services.coordination.etcd import EtcdClient, EtcdError, ServerStatus

SOURCE: Final = "etcd"
RETRY_S: Final = 0.2
"""Pause after etcd did not answer; the watch itself resumes where it was, so nothing is missed."""
LOOK_S: Final = 0.5
"""Between two looks at the members' terms: leases last for seconds, and a look is one small question to each."""
ANSWER_S: Final = 0.5
"""A member that stands still hides what the others say for no longer than this."""

Reign = tuple[int, int]
"""A term of etcd, and the id of its leader (0: none yet)."""


def watch_leader(plan: LoadPlan, shard: int, log: EventLog, stop: threading.Event) -> None:
    """Append `leader_set` and `leader_deleted` for one shard until `stop`; the present leader is noted first."""
    client = plan.etcd.client()
    key = leader_key(plan.environment, shard)
    leader: str | None = None
    while not stop.is_set():
        try:
            present, revision = client.get_at(key)
            if present is not None and present.value != leader:
                leader = present.value
                log.append(Event.now(SOURCE, "leader_set", leader, shard=shard, revision=present.mod_revision))
            for change in client.watch(key, start_revision=revision + 1, stop=stop):
                if change.kind == "delete":
                    log.append(Event.now(SOURCE, "leader_deleted", leader, shard=shard, revision=change.revision))
                    leader = None
                elif change.kv.value != leader:
                    leader = change.kv.value
                    log.append(Event.now(SOURCE, "leader_set", leader, shard=shard, revision=change.revision))
        except EtcdError:
            stop.wait(RETRY_S)
    client.close()


def watch_elections(plan: LoadPlan, log: EventLog, stop: threading.Event) -> None:
    """Append `elected` with each new term that has a leader; the present one is none.

    The election lies between `since_ns`, when the last look began that showed nothing of it, and the event.
    """
    hosts = plan.etcd.hosts
    clients = [plan.etcd.model_copy(update={"hosts": (host,)}).client(timeout_s=ANSWER_S) for host in hosts]
    names: dict[int, str] = {}
    known: Reign = (0, 0)
    since_ns = time.monotonic_ns()
    while not stop.is_set():
        began_ns = time.monotonic_ns()
        told: list[Reign] = []
        for host, client in zip(hosts, clients, strict=True):
            if (status := _asked(client)) is not None:
                names[status.member] = host.name
                told.append((status.term, status.leader))
        newest = max((reign for reign in told if reign[1]), default=known)
        if newest[0] > known[0]:
            if known[0]:
                log.append(Event.now(SOURCE, "elected", names.get(newest[1]), term=newest[0], since_ns=since_ns))
            known = newest
        # a leader needs the votes of a majority, so one of these members would know of it
        if 2 * told.count(known) > len(hosts):
            since_ns = began_ns
        stop.wait(max(0.0, LOOK_S - (time.monotonic_ns() - began_ns) / 1e9))
    for client in clients:
        client.close()


def _asked(client: EtcdClient) -> ServerStatus | None:
    try:
        return client.status()
    except EtcdError:
        return None


def watchers(plan: LoadPlan, log: EventLog, stop: threading.Event) -> list[Watcher]:
    leaders: list[Watcher] = [partial(watch_leader, plan, shard.shard, log, stop) for shard in plan.shards]
    return [*leaders, partial(watch_elections, plan, log, stop)]


if __name__ == "__main__":
    sys.exit(watch(sys.argv[1:], "experiments.probes.etcd", watchers))
