"""Watches the H2O cloud, by etcd's epoch and each node's own word: `python -m experiments.probes.h2o PLAN`.

What the keeper says of the cloud is not asked: it is one of those who are judged.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import urllib3

from experiments.probes.watchers import Watcher, watch
from infra.environment import Environment
from infra.stack import open_environment
from loadtests.plan import LoadPlan
from services.contracts.events import Event, EventLog
from services.coordination.etcd import EtcdError

SOURCE: Final = "h2o"
POLL_S: Final = 0.25
"""A fiftieth of the time in which a cloud forms; a node answers in milliseconds, and the JVMs share the machine."""
ANSWER_S: Final = 1.0
RETRY_S: Final = 0.2

Cloud = Mapping[str, Any]
"""What a node answers to GET /3/Cloud."""


def epoch_key(environment: str) -> str:
    return f"/breakwater/{environment}/h2o/epoch"


def keeper_key(environment: str) -> str:
    return f"/breakwater/{environment}/h2o/keeper"


def cloud_of(url: str) -> Cloud | None:
    """One node's word; None when it does not answer with one."""
    try:
        answer = urllib3.request("GET", f"{url}/3/Cloud?skip_ticks=true", timeout=ANSWER_S, retries=False)
        found = json.loads(answer.data) if answer.status == 200 else None  # noqa: PLR2004 - HTTP
    except (urllib3.exceptions.HTTPError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def lacking(clouds: Mapping[str, Cloud | None]) -> str | None:
    """What the nodes' words lack to be one whole cloud: the same name, every node, consensus, health; None: nothing."""
    for node, cloud in clouds.items():
        if cloud is None:
            return f"{node} does not answer"
        if cloud.get("cloud_size") != len(clouds):
            return f"{node} sees {cloud.get('cloud_size')} of {len(clouds)} nodes"
        if not cloud.get("consensus"):
            return f"{node} is not in consensus"
        if not cloud.get("cloud_healthy") or cloud.get("bad_nodes"):
            return f"{node} is not healthy"
    names = sorted({str(cloud.get("cloud_name")) for cloud in clouds.values() if cloud is not None})
    return None if len(names) == 1 else f"the nodes are of {len(names)} clouds: {', '.join(names)}"


def watch_cloud(environment: Environment, log: EventLog, stop: threading.Event) -> None:
    """Append `whole` (with the cloud's name) and `broken` (with the reason) whenever that changes."""
    nodes: Sequence[tuple[str, str]] = [(m.name, m.url) for m in environment.members("h2o") if m.url is not None]
    known: str | None = None
    with ThreadPoolExecutor(max(1, len(nodes))) as pool:
        while not stop.is_set():
            began = time.monotonic()
            words = pool.map(cloud_of, (url for _, url in nodes))
            clouds = dict(zip((name for name, _ in nodes), words, strict=True))
            why = lacking(clouds)
            if why is not None and known != "":
                known = ""
                log.append(Event.now(SOURCE, "broken", None, why=why))
            elif why is None and (name := next(str(c["cloud_name"]) for c in clouds.values() if c)) != known:
                known = name
                log.append(Event.now(SOURCE, "whole", None, cloud=name))
            stop.wait(max(0.0, began + POLL_S - time.monotonic()))


def watch_epoch(plan: LoadPlan, log: EventLog, stop: threading.Event) -> None:
    """Append `epoch` for each generation that is raised; one that was there before is none."""
    client = plan.etcd.client()
    key = epoch_key(plan.environment)
    known: int | None = None
    while not stop.is_set():
        try:
            present, revision = client.get_at(key)
            if known is None:
                known = 0 if present is None else int(json.loads(present.value)["generation"])
            elif present is not None:
                known = _note(present.value, known, log)
            for change in client.watch(key, start_revision=revision + 1, stop=stop):
                if change.kind == "put":
                    known = _note(change.kv.value, known, log)
        except EtcdError:
            stop.wait(RETRY_S)
    client.close()


def _note(value: str, known: int, log: EventLog) -> int:
    """The generation known after this value; an event if it is a newer one."""
    epoch = json.loads(value)
    if epoch["generation"] <= known:
        return known
    log.append(Event.now(SOURCE, "epoch", None, generation=epoch["generation"], reason=epoch["reason"]))
    return int(epoch["generation"])


def watchers(plan: LoadPlan, log: EventLog, stop: threading.Event) -> list[Watcher]:
    environment = open_environment(plan.environment)
    return [partial(watch_epoch, plan, log, stop), partial(watch_cloud, environment, log, stop)]


if __name__ == "__main__":
    sys.exit(watch(sys.argv[1:], "experiments.probes.h2o", watchers))
