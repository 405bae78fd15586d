"""Each checker that a promise may name says true, false and unknown of some run; which cannot say one of them, and why.

A checker that never says `unknown` would call a run that proves nothing a success or a failure, and one that never says
`false` proves nothing by `true`. A new checker is in neither table and fails here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from breakwater.verification import load_test
from experiments.checkers import CHECKERS
from experiments.checkers.finding import Finding, Verdict
from experiments.evidence import Evidence
from experiments.history import FinalReads, History
from experiments.record import RunRecord, Windows
from experiments.scenario import Promise, Scenario
from experiments.verdict import judge_run
from loadtests.record import Durability, Error, Kind
from services.contracts.events import Event
from tests.unit.experiments import (
    direct,
    test_cache,
    test_cloud,
    test_election,
    test_load_test,
    test_reload,
    test_rolling,
)
from tests.unit.experiments.judging import history_of, judge_synthetic
from tests.unit.experiments.synthetic_block import Block
from tests.unit.experiments.synthetic_run import SCENARIO

TRUE, FALSE, UNKNOWN = Verdict.TRUE, Verdict.FALSE, Verdict.UNKNOWN

Example = Callable[[str], Finding | None]
"""A small run, judged by the checker of a name."""


def promised(checker: str, file: str) -> Promise:
    """The first promise of a shipped scenario that names the checker."""
    promises = Scenario.read(SCENARIO.with_name(file)).breakwater.promises
    return next(promise for promise in promises if promise.checker == checker)


def primary(**defects: Any) -> Example:
    """S-01, made by arithmetic as files."""
    return lambda checker: judge_synthetic(**defects).of(checker)


def block(**defects: Any) -> Example:
    """S-04, likewise."""
    return lambda checker: _blocked(tuple(sorted(defects.items()))).of(checker)


@cache
def _blocked(defects: tuple[tuple[str, Any], ...]) -> Any:
    with tempfile.TemporaryDirectory() as directory:
        return judge_run(Block(**dict(defects)).write(Path(directory) / "run"))


def stampede(**facts: Any) -> Example:
    """S-02."""
    return lambda checker: test_cache.found(promised(checker, "s02.yaml").id, **facts)


def told(
    file: str, events: Iterable[Event], history: History | None = None, *, member: str = "any", **options: Any
) -> Example:
    """Any scenario, by what was told and, where it matters, what clients saw."""
    ordered = tuple(sorted(events, key=lambda event: event.t_ns))
    record = direct.run(member, **options)
    rows = History.empty() if history is None else history
    return lambda checker: CHECKERS[checker](rows, Evidence(ordered), promised(checker, file), record)


def cloud(changes: Mapping[str, Any] | None = None, **options: Any) -> Example:
    return told("s03.yaml", test_cloud.story(**(changes or {})), **options)


def reloaded(events: Iterable[Event], load: Mapping[str, Any] | None = None, **options: Any) -> Example:
    answers = test_reload.answers(**(load or {}))
    return told("s05.yaml", events, answers, **{"fault_s": test_reload.FAULT_S, "recovery_s": 0.0, **options})


def restarted(events: Iterable[Event], history: History | None = None, **options: Any) -> Example:
    return told("s06.yaml", events, history, method="restart", **options)


def away(took_s: float, *events: Event) -> Example:
    """A shard without leader and without writes for so long, where 6 s are promised."""
    return lambda checker: test_election.judged(CHECKERS[checker], took_s, 6.0, *events)


def loaded(
    operations: int, *, bad: int = 0, forgotten: int = 0, stalled: bool = False, read_back: bool = True
) -> Example:
    """A load test of so many writes in ten seconds."""
    start, ns = test_load_test.START, test_load_test.S
    rows = [
        {
            "kind": Kind.WRITE,
            "key": at,
            "value": at + 1,
            "sched_ns": start + at * 10 * ns // operations,
            "start_ns": start + at * 10 * ns // operations,
            "end_ns": start + at * 10 * ns // operations + ns // 1000,
            "durability": Durability.OK,
            "available": at >= bad,
            "error": Error.NONE if at >= bad else Error.TIMEOUT,
        }
        for at in range(operations)
    ]
    kept = np.arange(forgotten, operations, dtype=np.uint64)
    final = FinalReads(kept, kept + np.uint64(1), np.zeros(len(kept), dtype=np.uint8), frozenset({0}))
    still = Event(start, "c", "machine", None, "stalled", {"what": "disk", "ns": 10 * ns})
    evidence = Evidence((still,) if stalled else (), final=final if read_back else None)
    run: RunRecord = test_load_test.record("normal", windows=Windows(undisturbed=(start, start + 10 * ns)))
    promises = load_test("normal", 10).breakwater.promises

    def judged(checker: str) -> Finding:
        promise = next(each for each in promises if each.checker == checker)
        return CHECKERS[checker](history_of(rows), evidence, promise, run)

    return judged


UNPROVEN: Final = {"proven": False, "outage_s": 0, "read_outage_s": 0}
LONG: Final = {"recovery_s": 61.0}
ANSWERED, REFUSED = test_reload.story(), test_reload.refusals()
ALONE = {"moves": (2.0,)}

EXAMPLES: Final[Mapping[str, Mapping[Verdict, Example]]] = {
    "answered_in_time": {TRUE: loaded(200), FALSE: loaded(200, bad=3), UNKNOWN: loaded(99)},
    "back_in_rotation": {TRUE: block(), FALSE: block(back_s=5.5), UNKNOWN: block(out_s=None)},
    "bad_operations": {
        TRUE: restarted([], test_rolling.operations(500)),
        FALSE: restarted([], test_rolling.operations(500, bad=1)),
        UNKNOWN: restarted([], test_rolling.operations(50)),
    },
    "bad_predictions": {TRUE: primary(), FALSE: primary(frozen_s=(1, 2)), UNKNOWN: primary(**UNPROVEN)},
    "bad_share": {TRUE: block(), FALSE: block(bad=3), UNKNOWN: block(rate=50.0)},
    "baseline_healthy": {TRUE: primary(), UNKNOWN: primary(baseline_noise=20.0)},
    "breaker_opens": {TRUE: block(), FALSE: block(breaker_s=1.2), UNKNOWN: block(watched=False)},
    "cloud_whole_again": {
        TRUE: cloud(),
        FALSE: cloud({"whole": None}, fault_s=90.0),
        UNKNOWN: cloud({"broken": None}),
    },
    "computations_per_key": {
        TRUE: stampede(),
        FALSE: stampede(computed=(16, 10)),
        UNKNOWN: stampede(counted=("api-0",)),
    },
    "hard_expiries": {
        TRUE: stampede(),
        FALSE: stampede(died=(1, 0)),
        UNKNOWN: stampede(proven=False),
    },
    "descriptors_grown": {
        TRUE: primary(),
        FALSE: primary(descriptors_grown=140),
        UNKNOWN: primary(counts=False),
    },
    "duplicated_writes": {TRUE: primary(), FALSE: primary(duplicates=2), UNKNOWN: primary(final=False)},
    "error_budget": {
        TRUE: primary(),
        FALSE: primary(outage_s=99, read_outage_s=99, recovery_s=65.0, frozen_s=(0, 71)),
        UNKNOWN: primary(torn=True),
    },
    "failed_present": {
        TRUE: primary(),
        FALSE: primary(failed_present=1, outage_s=2),
        UNKNOWN: primary(final=False),
    },
    "fault_proven": {TRUE: primary(), UNKNOWN: primary(**UNPROVEN)},
    "flawed_accepted": {
        TRUE: reloaded(REFUSED),
        FALSE: reloaded(test_reload.refusals(second=test_reload.ACCEPTED)),
        UNKNOWN: reloaded(test_reload.refusals(restarted=None)),
    },
    "generations_back": {
        TRUE: reloaded(ANSWERED),
        FALSE: reloaded(ANSWERED, {"back": 1}),
        UNKNOWN: reloaded(ANSWERED, {"moves": ()}),
    },
    "journal_clean": {TRUE: primary(), FALSE: primary(failed_rollback=True), UNKNOWN: primary(journal=False)},
    "latency_after_fault": {TRUE: stampede(), FALSE: stampede(slow_ms=60.0), UNKNOWN: stampede(rate=100)},
    "latency_of_the_rest": {TRUE: block(), FALSE: block(slow_ms=40.0), UNKNOWN: block(rate=50.0)},
    "latency_while_reloading": {
        TRUE: reloaded(ANSWERED),
        FALSE: reloaded(ANSWERED, {"slow_ms": 30.0}),
        UNKNOWN: reloaded(ANSWERED, {"until_s": 2.0}),
    },
    "leadership_ended": {TRUE: away(1.0), FALSE: away(8.0), UNKNOWN: away(8.0, test_election.elected(5.0))},
    "left_unanswered": {
        TRUE: restarted(test_rolling.BOTH),
        FALSE: restarted([test_rolling.drained("api-0", 3), test_rolling.drained("api-1", 0)]),
        UNKNOWN: restarted(test_rolling.BOTH[:1]),
    },
    "load_kept_schedule": {TRUE: primary(), UNKNOWN: primary(torn=True)},
    "longest_silence": {TRUE: away(1.0), FALSE: away(8.0), UNKNOWN: away(8.0, test_election.elected(5.0))},
    "loss_noticed": {TRUE: cloud(), FALSE: cloud({"epoch": None}), UNKNOWN: cloud(proven=False)},
    "lost_under_load": {TRUE: loaded(200), FALSE: loaded(200, forgotten=1), UNKNOWN: loaded(99)},
    "lost_writes": {TRUE: primary(), FALSE: primary(lose=1), UNKNOWN: primary(final=False)},
    "memory_grown": {TRUE: stampede(), FALSE: stampede(grown=(2, 33)), UNKNOWN: stampede(counted=("api-1",))},
    "next_ack": {
        TRUE: primary(),
        FALSE: primary(outage_s=3.5, detect_s=2.0, promote_s=3.2, route_s=3.4),
        UNKNOWN: primary(stalled_s=(0, 3)),
    },
    "not_golden": {
        TRUE: reloaded(ANSWERED),
        FALSE: reloaded(ANSWERED, {"wrong": 1}),
        UNKNOWN: reloaded(test_reload.story(new=None)),
    },
    "not_rehearsed": {
        TRUE: reloaded(test_reload.EACH),
        FALSE: reloaded([*test_reload.EACH, test_reload.serves(5.2, "api-1", 3, 1)]),
        UNKNOWN: reloaded([]),
    },
    "not_restarted": {
        TRUE: restarted(test_rolling.ALL),
        FALSE: restarted([*test_rolling.ALL[:2], test_rolling.STUCK]),
        UNKNOWN: restarted(test_rolling.ALL[1:]),
    },
    "old_primary_streaming": {
        TRUE: primary(),
        FALSE: primary(streaming_s=None, **LONG),
        UNKNOWN: primary(streaming_s=None),
    },
    "other_shards_bad": {TRUE: primary(), FALSE: primary(frozen_s=(1, 2)), UNKNOWN: primary(**UNPROVEN)},
    "out_of_rotation": {TRUE: block(), FALSE: block(out_s=1.01), UNKNOWN: block(watched=False)},
    "pools_back": {
        TRUE: primary(),
        FALSE: primary(pools_back_s=None, **LONG),
        UNKNOWN: primary(pools_seen=False),
    },
    "reads_resume": {TRUE: primary(), FALSE: primary(read_outage_s=2.5), UNKNOWN: primary(**UNPROVEN)},
    "recovery_layers": {TRUE: primary(), UNKNOWN: primary(route_s=None)},
    "redundancy_restored": {
        TRUE: primary(),
        FALSE: primary(streaming_s=None, **LONG),
        UNKNOWN: primary(streaming_s=None),
    },
    "reloads_under_load": {TRUE: reloaded(ANSWERED), UNKNOWN: reloaded(test_reload.story(move4=None))},
    "replicas_converged": {
        TRUE: reloaded(ANSWERED),
        FALSE: reloaded(test_reload.story(move3=None, move4=None), {"lag_s": 5.2, **ALONE}),
        UNKNOWN: reloaded(test_reload.story(**test_reload.GONE)),
    },
    "same_model": {
        TRUE: cloud(),
        FALSE: cloud({"disturbed": test_cloud.trained("disturbed", 25, clouds=2, golden=[0.25, 0.6])}),
        UNKNOWN: cloud({"undisturbed": None}),
    },
    "stale_reads": {TRUE: primary(), FALSE: primary(stale=1), UNKNOWN: primary(read_api_rate=1)},
    "timelines_grow": {TRUE: primary(), FALSE: primary(outdated=3), UNKNOWN: primary(**UNPROVEN)},
    "training_finished": {
        TRUE: cloud(),
        FALSE: cloud({"disturbed": direct.event(25, "training", "failed", "disturbed", error="lost")}),
        UNKNOWN: cloud({"disturbed": None}),
    },
    "unexpected_rows": {TRUE: primary(), FALSE: primary(stray=1), UNKNOWN: primary(final=False)},
    "writes_attempted": {TRUE: primary(), UNKNOWN: primary(stalled_s=(2, 3))},
}

NEVER: Final[Mapping[str, tuple[Verdict, str]]] = {
    "baseline_healthy": (FALSE, "a baseline that is no measure says nothing about the platform"),
    "fault_proven": (FALSE, "a fault that did not happen is no platform's fault"),
    "load_kept_schedule": (FALSE, "load that was not sent met nobody"),
    "recovery_layers": (FALSE, "what no observer saw may have happened all the same"),
    "reloads_under_load": (FALSE, "too few reloads make the run no proof; a reload that fails is other promises'"),
    "writes_attempted": (FALSE, "writes that were not sent met nobody"),
}


@pytest.mark.parametrize("checker", sorted(CHECKERS))
def test_a_checker_says_each_verdict(checker: str) -> None:
    never = {NEVER[checker][0]} if checker in NEVER else set()
    assert set(EXAMPLES[checker]) == set(Verdict) - never
    for verdict, example in EXAMPLES[checker].items():
        found = example(checker)
        assert found is not None, f"the run of this example makes no promise of {checker}"
        assert found.verdict is verdict, found.reason
        assert found.reason


def test_the_tables_name_checkers_and_no_other() -> None:
    assert set(EXAMPLES) == set(CHECKERS)
    assert set(NEVER) <= set(CHECKERS)


@pytest.mark.parametrize(
    ("checker", "example", "says"),
    [
        ("answered_in_time", loaded(99), "only 99 operations seen; 100 are needed"),
        ("answered_in_time", loaded(200, bad=3, stalled=True), "the machine itself stood still at 3 of them"),
        ("lost_under_load", loaded(99), "only 99 writes acknowledged; 100 are needed"),
        ("lost_under_load", loaded(200, read_back=False), "there are no final reads"),
    ],
)
def test_what_a_load_test_does_not_prove(checker: str, example: Example, says: str) -> None:
    found = example(checker)
    assert found is not None
    assert found.verdict is UNKNOWN
    assert says in found.reason
