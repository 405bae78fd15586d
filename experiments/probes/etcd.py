"""Watches the shards' leader keys in etcd, when deleted and when set: `python -m experiments.probes.etcd PLAN`."""

from __future__ import annotations

import sys
import threading
from functools import partial
from typing import Final

from experiments.probes.watchers import Watcher, watch
from loadtests.plan import LoadPlan
from services.contracts.events import Event, EventLog
from services.contracts.shards import leader_key
from services.coordination.etcd import EtcdError

SOURCE: Final = "etcd"
RETRY_S: Final = 0.2
"""Pause after etcd did not answer; the watch itself resumes where it was, so nothing is missed."""


def watch_leader(plan: LoadPlan, shard: int, log: EventLog, stop: threading.Event) -> None:
    """Append `leader_set` and `leader_deleted` for one shard until `stop`; the present leader is noted first."""
    client = plan.etcd.client()
    key = leader_key(plan.environment, shard)
    leader: str | None = None
    revision = 0
    while not stop.is_set():
        try:
            if (present := client.get(key)) is not None:
                revision = present.mod_revision + 1
                if present.value != leader:
                    leader = present.value
                    log.append(Event.now(SOURCE, "leader_set", leader, shard=shard, revision=present.mod_revision))
            for change in client.watch(key, start_revision=revision, stop=stop):
                if change.kind == "delete":
                    log.append(Event.now(SOURCE, "leader_deleted", leader, shard=shard, revision=change.revision))
                    leader = None
                elif change.kv.value != leader:
                    leader = change.kv.value
                    log.append(Event.now(SOURCE, "leader_set", leader, shard=shard, revision=change.revision))
        except EtcdError:
            stop.wait(RETRY_S)
    client.close()


def watchers(plan: LoadPlan, log: EventLog, stop: threading.Event) -> list[Watcher]:
    return [partial(watch_leader, plan, shard.shard, log, stop) for shard in plan.shards]


if __name__ == "__main__":
    sys.exit(watch(sys.argv[1:], "experiments.probes.etcd", watchers))
