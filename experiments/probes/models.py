"""Watches the model pointer in etcd, what every replica must serve: `python -m experiments.probes.models PLAN`."""

from __future__ import annotations

import json
import sys
import threading
from functools import partial
from typing import Final

from experiments.probes.watchers import Watcher, watch
from loadtests.plan import LoadPlan
from services.contracts.events import Event, EventLog
from services.contracts.flights import MODEL_NAME
from services.coordination.etcd import EtcdError

SOURCE: Final = "models"
RETRY_S: Final = 0.2


def watch_pointer(plan: LoadPlan, log: EventLog, stop: threading.Event) -> None:
    """Append `pointer` with version and generation, the present one first and then each move."""
    client = plan.etcd.client()
    key = f"/breakwater/{plan.environment}/models/{MODEL_NAME}/pointer"
    known = 0
    while not stop.is_set():
        try:
            present, revision = client.get_at(key)
            known = _note([] if present is None else [present.value], known, log)
            for change in client.watch(key, start_revision=revision + 1, stop=stop):
                known = _note([change.kv.value] if change.kind == "put" else [], known, log)
        except EtcdError:
            stop.wait(RETRY_S)
    client.close()


def _note(values: list[str], known: int, log: EventLog) -> int:
    for value in values:
        pointer = json.loads(value)
        if pointer["generation"] != known:
            known = int(pointer["generation"])
            log.append(Event.now(SOURCE, "pointer", None, version=pointer["version"], generation=known))
    return known


def watchers(plan: LoadPlan, log: EventLog, stop: threading.Event) -> list[Watcher]:
    return [partial(watch_pointer, plan, log, stop)]


if __name__ == "__main__":
    sys.exit(watch(sys.argv[1:], "experiments.probes.models", watchers))
