"""Lost-write accounting against a plain model of what a set of writes may leave behind."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from experiments.checkers.durability import Account, settle
from experiments.history import FinalReads
from loadtests.record import Durability, Kind
from tests.unit.experiments.judging import history_of

OK, FAIL, PERHAPS = Durability.OK, Durability.FAIL, Durability.UNKNOWN

outcomes = st.lists(st.sampled_from([OK, FAIL, PERHAPS]), min_size=0, max_size=40)


def account(rows: list[dict[str, Any]], final: dict[int, int]) -> Account:
    reads = FinalReads(
        np.array(list(final), dtype=np.uint64),
        np.array(list(final.values()), dtype=np.uint64),
        np.zeros(len(final), dtype=np.uint8),
        frozenset({0}),
    )
    return settle(history_of(rows), reads, 0)


def once_each(durabilities: list[Durability]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": key + 1000, "durability": durability, "start_ns": key * 10, "end_ns": key * 10 + 5}
        for key, durability in enumerate(durabilities)
    ]


@given(outcomes, st.data())
def test_a_platform_that_keeps_its_word_is_never_accused(durabilities: list[Durability], data: st.DataObject) -> None:
    rows = once_each(durabilities)
    final = {
        row["key"]: row["value"]
        for row in rows
        if row["durability"] is OK or (row["durability"] is PERHAPS and data.draw(st.booleans()))
    }
    found = account(rows, final)
    assert (found.lost, found.stray, found.failed_present) == ([], [], [])
    assert (found.acknowledged, found.uncertain, found.failed) == tuple(map(durabilities.count, (OK, PERHAPS, FAIL)))


@given(outcomes, st.data())
def test_each_defect_is_counted_exactly(durabilities: list[Durability], data: st.DataObject) -> None:
    rows = once_each(durabilities)
    keys = {kind: [row["key"] for row in rows if row["durability"] is kind] for kind in (OK, FAIL, PERHAPS)}
    some = {kind: data.draw(st.sets(st.sampled_from(keys[kind]))) if keys[kind] else set() for kind in (OK, FAIL)}
    foreign = data.draw(st.sets(st.integers(10_000, 10_100), max_size=5))
    final = {key: key + 1000 for key in keys[OK] if key not in some[OK]}
    final |= {key: key + 1000 for key in some[FAIL]}
    final |= dict.fromkeys(foreign, 1)

    found = account(rows, final)

    assert {key for _, key, _ in found.lost} == some[OK]
    assert {key for _, key in found.failed_present} == some[FAIL]
    assert {key for key, _ in found.stray} == foreign | some[FAIL]
    assert found.read == len(final)


@given(st.permutations([1, 2, 3]))
def test_the_order_of_the_record_does_not_matter(order: list[int]) -> None:
    rows = [{"key": 5, "value": n, "start_ns": n * 10, "end_ns": n * 10 + 5, "sched_ns": n * 10} for n in order]
    assert account(rows, {5: 3}).lost == []
    assert [key for _, key, _ in account(rows, {5: 2}).lost] == [5]
    assert [found for _, _, found in account(rows, {}).lost] == [None]


def test_an_uncertain_write_may_come_late_but_an_acknowledged_one_must_not_go_back() -> None:
    late: list[dict[str, Any]] = [
        {"key": 1, "value": 10, "start_ns": 0, "end_ns": 5, "durability": PERHAPS},
        {"key": 1, "value": 20, "start_ns": 10, "end_ns": 15, "durability": OK},
    ]
    assert account(late, {1: 10}).lost == []
    earlier = [late[0] | {"durability": OK}, late[1]]
    assert len(account(earlier, {1: 10}).lost) == 1


def test_concurrent_acknowledged_writes_may_end_either_way() -> None:
    rows = [{"key": 1, "value": n, "start_ns": n, "end_ns": 100 + n} for n in (1, 2)]
    assert account(rows, {1: 1}).lost == account(rows, {1: 2}).lost == []


def test_a_row_on_another_shard_than_its_write_is_lost_here() -> None:
    rows = [{"key": 1, "value": 1, "shard": 1}, {"key": 2, "value": 2, "shard": 0}]
    found = account(rows, {1: 1, 2: 2})
    assert found.stray == [(1, 1)]
    assert found.lost == []


def test_predictions_and_reads_are_no_writes() -> None:
    rows = [{"key": 1, "kind": kind, "durability": Durability.NONE} for kind in (Kind.PREDICT, Kind.READ)]
    assert account(rows, {}).acknowledged == 0
