"""Phases that every scenario has: undisturbed load before the fault, load after it, and the way back to health."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from experiments.checkers.noise import TWICE, unlike_halves
from experiments.faults.written import say
from experiments.history import History
from experiments.planning import PLAN_FILE
from infra.stack import open_environment
from loadtests.arrivals import NS_PER_S
from loadtests.plan import LoadPlan
from services.contracts.events import Event

FLUSHED_S: Final = 2
"""Load writes its history each second; what is older than this can be read."""
CALM_S: Final = 1.0
"""Between looking at the load and the fault: the look costs CPU, which on a small machine is the platform's as well."""


def baseline(run_dir: str, seconds: float, settle_s: float) -> dict[str, float]:
    """Let load run undisturbed until its last `seconds` were steady, `settle_s` longer at most.

    A disk that still writes what an installation left, say, makes a baseline that proves nothing; it is waited for.
    What was bad meanwhile is not forgotten: the undisturbed window holds it.
    """
    begun = Event.now("run", "undisturbed")
    say(run_dir, begun)
    History.so_far(Path(run_dir))  # the first look loads libraries for most of a second: now, not beside the fault
    time.sleep(seconds + FLUSHED_S)
    while True:
        end = time.monotonic_ns() - FLUSHED_S * NS_PER_S
        steady = unlike_halves(History.so_far(Path(run_dir)), (end - int(seconds * NS_PER_S), end))
        if (steady is not None and steady[0] <= TWICE) or end - begun.t_ns >= (seconds + settle_s) * NS_PER_S:
            break
        time.sleep(1.0)
    time.sleep(CALM_S)
    say(run_dir, replace(begun, kind="baseline", t_ns=end - int(seconds * NS_PER_S)))
    return {"seconds": seconds, "settled_s": (end - begun.t_ns) / NS_PER_S - seconds}


def load_to_its_end(run_dir: str) -> dict[str, float]:
    """Let a load test's load run for as long as its plan says, and until its clients have written its end down."""
    plan = LoadPlan.load(Path(run_dir) / PLAN_FILE)
    time.sleep(max(0.0, (plan.end_ns - time.monotonic_ns()) / NS_PER_S) + FLUSHED_S)
    say(run_dir, replace(Event.now("run", "load_test_ended"), t_ns=plan.end_ns))
    return {"seconds": (plan.end_ns - plan.start_ns) / NS_PER_S}


def recovery(run_dir: str, seconds: float) -> dict[str, float]:
    """Let load run on until `seconds` after the member was started again."""
    say(run_dir, Event.now("run", "recovery"))
    time.sleep(seconds)
    say(run_dir, Event.now("run", "recovered"))
    return {"seconds": seconds}


def heal(environment: str) -> list[str]:
    """Undo whatever is still in force; nothing to do is the normal case."""
    return list(open_environment(environment).heal())
