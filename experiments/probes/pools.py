"""Watches the size of each replica's pools of connections to the shards: `python -m experiments.probes.pools PLAN`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from experiments.probes.watchers import Watcher, watch
from infra.environment import Environment, EnvironmentFault
from infra.stack import open_environment
from loadtests.plan import LoadPlan
from services.contracts.events import Event, EventLog

SOURCE: Final = "pools"
POLL_S: Final = 1.0
"""A page of metrics costs a replica some milliseconds of its loop, and pools are promised back within a minute."""
SHARE: Final = 0.1
"""Of the time, at most, is spent on asking: on Kubernetes each question is a command in a pod."""
CONNECTIONS: Final = "breakwater_api_pool_connections"

Sizes = Mapping[str, tuple[int, int]]


def pool_sizes(text: str) -> Sizes:
    """By pool its connections that are open and that are being dialled, of a page of metrics."""
    found: dict[str, dict[str, int]] = {}
    for family in text_string_to_metric_families(text):
        if family.name == CONNECTIONS:
            for sample in family.samples:
                found.setdefault(sample.labels["pool"], {})[sample.labels["state"]] = round(sample.value)
    return {pool: (states.get("open", 0), states.get("dialling", 0)) for pool, states in found.items()}


def watch_pools(environment: Environment, log: EventLog, stop: threading.Event) -> None:
    """Append `sized` with all pools of a replica whenever one has changed, `silent` when it does not answer.

    One replica after the other: a client of Kubernetes asks for one thing at a time.
    """
    known: dict[str, Sizes | None] = {member.name: {} for member in environment.members("api")}
    while not stop.is_set():
        began = time.monotonic()
        for member, before in known.items():
            sizes = _asked(environment, member)
            if sizes != before:
                log.append(Event.now(SOURCE, "silent" if sizes is None else "sized", member, **(sizes or {})))
                known[member] = sizes
        took_s = time.monotonic() - began
        stop.wait(max(POLL_S, took_s / SHARE) - took_s)


def _asked(environment: Environment, member: str) -> Sizes | None:
    try:
        page = environment.metrics(member)
    except EnvironmentFault:  # its pod is being replaced
        return None
    return None if page is None else pool_sizes(page)


def watchers(plan: LoadPlan, log: EventLog, stop: threading.Event) -> list[Watcher]:
    return [partial(watch_pools, open_environment(plan.environment), log, stop)]


if __name__ == "__main__":
    sys.exit(watch(sys.argv[1:], "experiments.probes.pools", watchers))
