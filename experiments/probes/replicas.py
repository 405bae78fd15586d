"""Watches each API replica's own word and the edge's rotation: `python -m experiments.probes.replicas PLAN`.

The word is what the replica's watchdog tells the edge's agent check; it is asked as the edge asks, but each 20 ms, so
that a breaker that opens is seen when it opens. Rotation is the edge's own word about whom it sends requests.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

from experiments.probes.watchers import Watcher, watch
from infra.environment import Environment
from infra.stack import open_environment
from loadtests.plan import LoadPlan
from services.contracts.events import Event, EventLog

POLL_S: Final = 0.020
"""As fine as times are resolved elsewhere; each question costs a replica a tenth of a millisecond."""
ANSWER_S: Final = 0.5
SILENT: Final = "silent"


def agents_word(host: str, port: int) -> str:
    """First word of the agent's answer (`up`, `down`), or `silent` when it has none to give."""
    try:
        with socket.create_connection((host, port), timeout=ANSWER_S) as agent:
            words = agent.recv(256).split()
    except OSError:
        return SILENT
    return words[0].decode("ascii", "replace") if words else SILENT


def watch_agent(member: str, host: str, port: int, log: EventLog, stop: threading.Event) -> None:
    """Append the replica's word whenever it changes, its first one included."""
    known = None
    while not stop.is_set():
        began = time.monotonic()
        word = agents_word(host, port)
        if word != known:
            log.append(Event.now("agent", word, member))
            known = word
        stop.wait(max(0.0, began + POLL_S - time.monotonic()))


def watch_rotation(environment: Environment, log: EventLog, stop: threading.Event) -> None:
    """Append `in` or `out` for each replica whenever that changes; an edge that does not answer changes nothing."""
    known: Mapping[str, bool] = {}
    while not stop.is_set():
        began = time.monotonic()
        try:
            found = environment.rotation()
        except OSError:
            found = known
        for member, serving in found.items():
            if known.get(member) is not serving:
                log.append(Event.now("edge", "in" if serving else "out", member))
        known = found
        stop.wait(max(0.0, began + POLL_S - time.monotonic()))


def watchers(plan: LoadPlan, log: EventLog, stop: threading.Event) -> list[Watcher]:
    environment = open_environment(plan.environment)
    asked: list[Watcher] = [partial(watch_rotation, environment, log, stop)]
    for member in environment.members("api"):
        if member.agent_port is not None:
            asked.append(partial(watch_agent, member.name, member.host, member.agent_port, log, stop))
    return asked


if __name__ == "__main__":
    sys.exit(watch(sys.argv[1:], "experiments.probes.replicas", watchers))
