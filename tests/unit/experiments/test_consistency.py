"""Duplicates, outdated primaries, error budget, redundancy and leaks: each said true, false and unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.checkers.budget import error_budget
from experiments.checkers.consistency import duplicated_writes, timelines_grow
from experiments.checkers.finding import Verdict
from experiments.evidence import Evidence, load_evidence
from experiments.history import FinalReads, History
from experiments.record import RunRecord
from experiments.scenario import Promise
from loadtests.record import Kind
from tests.unit.experiments.judging import SHORT, finding, history_of
from tests.unit.experiments.synthetic_run import KILL, MS, S, Synthetic

Rows = tuple[tuple[int, int, int], ...]
NONE = Promise(id="p", title="p", checker="c", target=0, unit="rows", compare="==")
RUN = Synthetic().record()


@pytest.mark.parametrize(
    ("promise", "defects", "says"),
    [
        ("duplicated-writes", {"duplicates": 2}, "2 rows too many of 2 keys on shard 0"),
        ("timelines", {"outdated": 3}, "3 writes acknowledged on a timeline that had a successor"),
        ("redundancy", {}, "shard-1-2 last"),
        ("redundancy", {"third_streams_s": None}, "shard-1-1 not seen streaming"),
        ("error-budget", {}, "availability 99."),
        ("descriptors", {"descriptors_grown": 140}, "api-0 +140, api-1 +140"),
    ],
)
def test_what_was_found_is_said_in_words(promise: str, defects: dict[str, Any], says: str) -> None:
    assert says in finding(promise, **defects).reason


@pytest.mark.parametrize(("days", "verdict"), [(30, Verdict.TRUE), (0.01, Verdict.FALSE)])
def test_the_same_outage_uses_up_a_shorter_budget(tmp_path: Path, days: float, verdict: Verdict) -> None:
    run_dir = Synthetic(**SHORT, frozen_s=(0.5, 5.5)).write(tmp_path / "run")
    promise = NONE.model_copy(update={"target": 1.0, "compare": "<=", "params": {"period_days": days}})
    found = error_budget(History.load(run_dir), load_evidence(run_dir), promise, RunRecord.read(run_dir))
    assert found.verdict is verdict, found.reason


def rows_of(*rows: tuple[int, int, int]) -> History:
    """Acknowledged writes of shard 1 by start, end (s) and timeline."""
    return history_of(
        [
            {"kind": Kind.WRITE, "shard": 1, "sched_ns": s * S, "start_ns": s * S, "end_ns": e * S, "timeline": t}
            for s, e, t in rows
        ]
    )


@pytest.mark.parametrize(
    ("rows", "outdated"),
    [
        (((1, 2, 1), (3, 4, 2)), 0),
        (((1, 4, 1), (2, 3, 2)), 0),
        (((1, 2, 2), (3, 4, 1)), 1),
        (((1, 2, 2), (2, 4, 1)), 0),
        (((1, 2, 3), (3, 4, 2), (5, 6, 1)), 2),
    ],
)
def test_only_what_was_sent_after_a_newer_answer_is_outdated(rows: Rows, outdated: int) -> None:
    found = timelines_grow(rows_of(*rows), Evidence(), NONE, RUN)
    assert (found.verdict is Verdict.FALSE) == bool(outdated)
    assert (found.value or 0) == outdated


writes = st.tuples(st.integers(0, 40), st.integers(1, 6), st.integers(1, 4)).map(lambda w: (w[0], w[0] + w[1], w[2]))


@given(st.lists(writes, min_size=1, max_size=30))
def test_the_linear_search_finds_what_every_pair_shows(rows: list[tuple[int, int, int]]) -> None:
    wanted = sum(any(other[1] < row[0] and other[2] > row[2] for other in rows) for row in rows)
    found = timelines_grow(rows_of(*rows), Evidence(), NONE, RUN)
    assert (found.value or 0) == wanted


@pytest.mark.parametrize(
    ("on_each", "outdated", "verdict", "says"),
    [
        ((100, 130), 0, Verdict.TRUE, "100 of them after the fault on shard 0"),
        ((130, 100), 0, Verdict.TRUE, "100 of them after the fault on shard 1"),
        ((130, 99), 0, Verdict.UNKNOWN, "only 99 writes acknowledged on shard 1 after the fault; 100 are needed"),
        ((130, 0), 0, Verdict.UNKNOWN, "only 0 writes acknowledged on shard 1"),
        ((130, 99), 1, Verdict.FALSE, "1 write acknowledged on a timeline that had a successor"),
    ],
)
def test_a_fault_that_struck_no_shard_is_looked_at_on_each(
    on_each: tuple[int, int], outdated: int, verdict: Verdict, says: str
) -> None:
    assert RUN.fault is not None
    lost = {"component": "etcd", "member": "etcd-0", "shard": None, "old_timeline": None}
    run = RUN.model_copy(update={"fault": RUN.fault.model_copy(update=lost)})
    rows = [
        {"shard": shard, "sched_ns": at, "start_ns": at, "end_ns": at + MS, "timeline": 2}
        for shard, writes in enumerate(on_each)
        for at in range(KILL, KILL + writes * 2 * MS, 2 * MS)
    ]
    for row in rows[:outdated]:
        row |= {"sched_ns": KILL + S, "start_ns": KILL + S, "end_ns": KILL + S + MS, "timeline": 1}
    found = timelines_grow(history_of(rows), Evidence(), NONE, run)
    assert found.verdict is verdict, found.reason
    assert says in found.reason


@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0, 1])), max_size=40))
def test_every_row_beyond_the_first_of_a_key_counts(rows: list[tuple[int, int]]) -> None:
    key = np.array([key for key, _ in rows], dtype=np.uint64)
    shard = np.array([shard for _, shard in rows], dtype=np.uint8)
    final = FinalReads(key, key, shard, frozenset({0, 1}))
    found = duplicated_writes(history_of([]), Evidence(final=final), NONE, RUN)
    assert (found.value or 0) == len(rows) - len({key for key, _ in rows})
    assert (found.verdict is Verdict.UNKNOWN) == (not rows)
