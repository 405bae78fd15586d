"""Reads that are older than they say: true, false and unknown, and the sorted search against every pair."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.checkers.finding import Finding, Verdict
from experiments.checkers.staleness import MIN_TELLING, freshness, stale_reads
from experiments.evidence import Evidence
from experiments.history import History, TornPart
from loadtests.record import NOT_STATED, Durability, Error, Kind
from tests.unit.experiments.direct import at, event, promise, run
from tests.unit.experiments.judging import history_of
from tests.unit.experiments.synthetic_run import MS, S

PROMISE = promise("s01.yaml", "stale-reads")
OK, FAIL, UNKNOWN = Durability.OK, Durability.FAIL, Durability.UNKNOWN


@dataclass(frozen=True)
class Write:
    start: int
    end: int
    value: int
    durability: Durability = OK
    key: int = 1

    def row(self) -> dict[str, Any]:
        return {
            "kind": Kind.WRITE_API, "shard": 0, "key": self.key, "value": self.value, "sched_ns": self.start * MS,
            "start_ns": self.start * MS, "end_ns": self.end * MS, "durability": self.durability,
        }  # fmt: skip


@dataclass(frozen=True)
class Read:
    sent: int
    stated: int | None
    value: int
    key: int = 1

    def row(self) -> dict[str, Any]:
        return {
            "kind": Kind.READ_API, "shard": 0, "key": self.key, "value": self.value, "sched_ns": self.sent * MS,
            "start_ns": self.sent * MS, "end_ns": (self.sent + 2) * MS, "durability": Durability.NONE,
            "timeline": NOT_STATED if self.stated is None else self.stated * 1000,
        }  # fmt: skip

    def must_know(self, writes: Sequence[Write]) -> list[Write]:
        """By every pair: what was acknowledged before the age that this read states."""
        if self.stated is None:
            return []
        told_by = self.sent - self.stated
        return [w for w in writes if w.key == self.key and w.durability is OK and w.end < told_by]

    def is_stale(self, writes: Sequence[Write]) -> bool:
        """No write of the value that it shows could still be current."""
        shown = [w for w in writes if w.key == self.key and w.value == self.value]
        return any(all(w.durability is OK and w.end < needed.start for w in shown) for needed in self.must_know(writes))


def history(*operations: Write | Read) -> History:
    return history_of([operation.row() for operation in operations])


@pytest.mark.parametrize(
    ("operations", "telling", "stale"),
    [
        # acknowledged longer ago than is stated, and there
        ([Write(0, 10, 7), Read(50, 30, 7)], 1, 0),
        ([Write(0, 10, 7), Read(50, 30, 0)], 1, 1),
        # acknowledged just as long ago, or later: nothing is said about it
        ([Write(0, 10, 7), Read(50, 40, 0)], 0, 0),
        ([Write(0, 10, 7), Read(50, 45, 0)], 0, 0),
        ([Write(0, 60, 7), Read(50, 0, 0)], 0, 0),
        # a read that states no age, a key that nobody wrote, a write that was not acknowledged
        ([Write(0, 10, 7), Read(50, None, 0)], 0, 0),
        ([Write(0, 10, 7, key=2), Read(50, 0, 0)], 0, 0),
        ([Write(0, 10, 7, UNKNOWN), Read(50, 0, 0)], 0, 0),
        ([Write(0, 10, 7, FAIL), Read(50, 0, 0)], 0, 0),
        # an older version, the newer one, and one that was under way at the same time
        ([Write(0, 10, 7), Write(20, 30, 8), Read(50, 5, 7)], 1, 1),
        ([Write(0, 10, 7), Write(20, 30, 8), Read(50, 5, 8)], 1, 0),
        ([Write(0, 25, 7), Write(20, 30, 8), Read(50, 5, 7)], 1, 0),
        ([Write(0, 10, 7), Write(20, 30, 8), Read(50, 25, 7)], 1, 0),
        # an unknown write may be applied at any later time
        ([Write(0, 10, 7, UNKNOWN), Write(20, 30, 8), Read(50, 5, 7)], 1, 0),
        # a version that nobody wrote
        ([Write(0, 10, 7), Read(50, 5, 9)], 1, 1),
    ],
)
def test_what_a_read_must_know_of(operations: list[Write | Read], telling: int, stale: int) -> None:
    found = freshness(history(*operations))
    assert (int(found.telling.sum()), int(found.stale.sum())) == (telling, stale)


def test_an_unexplained_version_may_be_explained_by_what_is_missing() -> None:
    torn = dataclasses.replace(
        history(Write(0, 10, 7), Read(50, 5, 9), Read(60, 5, 0)), torn=(TornPart("locust.arrow", 1, "cut off"),)
    )
    assert int(freshness(torn).stale.sum()) == 1


def test_a_read_that_failed_says_nothing() -> None:
    failed = Read(50, 5, 0).row() | {"error": Error.HTTP_5XX, "available": False}
    assert not len(freshness(history_of([Write(0, 10, 7).row(), failed])).reads)


keys = st.integers(1, 3)
writes = st.builds(
    lambda start, took, value, durability, key: Write(start, start + took, value, durability, key),
    st.integers(0, 60), st.integers(1, 15), st.integers(1, 4), st.sampled_from([OK, OK, OK, FAIL, UNKNOWN]), keys,
)  # fmt: skip
reads = st.builds(Read, st.integers(0, 80), st.none() | st.integers(0, 30), st.integers(0, 5), keys)


@given(st.lists(writes, max_size=15), st.lists(reads, max_size=15))
def test_the_sorted_search_finds_what_every_pair_shows(wrote: list[Write], read: list[Read]) -> None:
    found = freshness(history(*wrote, *read))
    assert int(found.telling.sum()) == sum(bool(each.must_know(wrote)) for each in read)
    assert int(found.stale.sum()) == sum(each.is_stale(wrote) for each in read)


def judged(stale: int = 0, fresh: int = 200, *, stated_ms: float = 20.0, proven: bool = True) -> Finding:
    """Writes acknowledged half a second before they are asked for, for ten seconds after the fault."""
    rows = []
    for number in range(stale + fresh):
        sent = at(0.01) + number * (10 * S // (stale + fresh))
        written = sent - S // 2
        common = {"shard": 0, "key": number + 1}
        value = 0 if number < stale else number + 1
        rows += [
            {**common, "kind": Kind.WRITE_API, "value": number + 1, "sched_ns": written - 9 * MS,
             "start_ns": written - 9 * MS, "end_ns": written},
            {**common, "kind": Kind.READ_API, "value": value, "sched_ns": sent, "start_ns": sent,
             "end_ns": sent + 2 * MS, "durability": Durability.NONE, "timeline": round(stated_ms * 1000)},
        ]  # fmt: skip
    return stale_reads(history_of(rows), Evidence((event(0, "fault", "killed"),)), PROMISE, run(proven=proven))


def test_fresh_reads_keep_the_promise_and_say_how_old_they_said_to_be() -> None:
    found = judged()
    assert (found.verdict, found.value, found.n) == (Verdict.TRUE, 0, 200)
    assert "200 telling reads" in found.reason
    assert "median 20 ms, longest 20 ms" in found.reason


def test_one_stale_read_breaks_it_and_is_shown() -> None:
    found = judged(stale=1)
    assert (found.verdict, found.value) == (Verdict.FALSE, 1)
    (exhibit,) = found.evidence
    assert exhibit.rows == ((1, 0, "+0.010 s", "20.0 ms", "509.0 ms", "nothing", "api-0"),)


def test_a_stale_read_counts_also_without_a_proven_fault() -> None:
    assert judged(stale=1, proven=False).verdict is Verdict.FALSE
    assert judged(proven=False).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("few", [{"fresh": MIN_TELLING - 1}, {"stated_ms": 600.0}, {"fresh": 0}])
def test_too_few_reads_that_tell_prove_nothing(few: dict[str, Any]) -> None:
    found = judged(**few)
    assert found.verdict is Verdict.UNKNOWN
    assert f"{MIN_TELLING} are needed" in found.reason


def test_without_a_fault_nothing_is_proven() -> None:
    unharmed = run().model_copy(update={"fault": None})
    assert stale_reads(history(), Evidence(), PROMISE, unharmed).verdict is Verdict.UNKNOWN
