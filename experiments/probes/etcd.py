"""Watches the shards' leader keys in etcd, when deleted and when set: `python -m experiments.probes.etcd PLAN`."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

from loadtests.plan import EXIT_USAGE, LoadError, LoadPlan
from services.contracts.events import Event, EventLog
from services.contracts.shards import leader_key
from services.coordination.etcd import EtcdClient, EtcdError

SOURCE: Final = "etcd"
STOP_POLL_S: Final = 0.1
RETRY_S: Final = 0.2
"""Pause after etcd did not answer; the watch itself resumes where it was, so nothing is missed."""
ENDING_S: Final = 5.0


def watch_leader(plan: LoadPlan, shard: int, log: EventLog, stop: threading.Event) -> None:
    """Append `leader_set` and `leader_deleted` for one shard until `stop`; the present leader is noted first."""
    client = EtcdClient(plan.etcd)
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


def main(arguments: list[str]) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        (path,) = arguments
        plan = LoadPlan.load(Path(path))
    except (ValueError, LoadError) as error:
        sys.stderr.write(f"usage: python -m experiments.probes.etcd PLAN ({error})\n")
        return EXIT_USAGE
    log = EventLog(plan.event_log)
    watchers = [
        threading.Thread(target=watch_leader, args=(plan, shard.shard, log, stop), daemon=True) for shard in plan.shards
    ]
    for watcher in watchers:
        watcher.start()
    while not stop.wait(STOP_POLL_S):
        if plan.over():
            stop.set()
    give_up = time.monotonic() + ENDING_S
    for watcher in watchers:
        watcher.join(max(0.0, give_up - time.monotonic()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
