"""What a client that was itself stopped had under way says nothing about the platform."""

from __future__ import annotations

from experiments.checkers.fault import client_ran
from tests.unit.experiments.judging import history_of

MS = 1_000_000


def op(process: int, sched_ms: int, start_ms: int, end_ms: int) -> dict[str, int]:
    return {"process": process, "sched_ns": sched_ms * MS, "start_ns": start_ms * MS, "end_ns": end_ms * MS}


def test_operations_under_way_in_a_stall_are_told_apart() -> None:
    history = history_of(
        [
            op(1, 0, 0, 5),  # over before the stall
            op(1, 990, 990, 4010),  # sent, then its client was stopped before the answer
            op(1, 1000, 4005, 4012),  # due while it was stopped
            op(1, 2000, 4006, 4013),
            op(1, 4100, 4100, 4105),  # after it
            op(2, 1500, 1500, 1505),  # another process, which ran
        ]
    )
    assert client_ran(history).tolist() == [True, False, False, True, False, True]


def test_a_slow_answer_is_no_stall_when_arrivals_went_out_in_time() -> None:
    history = history_of([op(1, 0, 0, 3000), op(1, 100, 100, 105), op(1, 200, 220, 2900)])
    assert client_ran(history).all()


def test_a_short_delay_inside_a_long_stall_does_not_end_it() -> None:
    history = history_of([op(1, 0, 3000, 3001), op(1, 100, 400, 401), op(1, 2000, 2000, 2500)])
    assert client_ran(history).tolist() == [False, False, False]
