"""What a client that was itself stopped, or had no processor, says of the platform: nothing."""

from __future__ import annotations

import pytest

from experiments.checkers import CHECKERS, TIMED, TIMELESS
from experiments.checkers.fault import client_ran
from experiments.checkers.finding import Finding, Verdict, measured, unknown
from experiments.checkers.machine import unless_starved
from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import RunRecord
from experiments.scenario import Promise
from tests.unit.experiments.direct import AT, run
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


PROMISE = Promise(id="p", title="p", checker="broken", target=1, unit="s", compare="<")


def broken(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    return measured(promise, 2.0, n=1, out_of="1 of 1", reason="after 2 s")


def kept(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    return measured(promise, 0.5, n=1, out_of="1 of 1", reason="after 0.5 s")


def unseen(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    return unknown(promise, "not seen")


@pytest.mark.parametrize(("late", "starved"), [(0, False), (2, False), (3, True), (200, True)])
def test_a_promise_about_time_is_not_broken_for_clients_that_had_no_processor(late: int, starved: bool) -> None:
    """One in a hundred of all that is due in the run may be late; what is due outside of it does not count."""
    due = [AT // MS + n for n in range(200)]
    rows = [op(1, at, at + 900 * (n < late), at + 905) for n, at in enumerate(due)]
    outside = [op(1, at, at + 900, at + 905) for at in (AT // MS - 90_000, AT // MS + 90_000)]
    history = history_of([*outside[:1], *rows, *outside[1:]])

    found = unless_starved(broken)(history, Evidence(), PROMISE, run())
    assert found.verdict is (Verdict.UNKNOWN if starved else Verdict.FALSE)
    assert found.value == 2.0
    assert found.reason.startswith("after 2 s")
    assert (f"clients had no processor: only {200 - late} of 200 operations" in found.reason) is starved
    for other in (kept, unseen):
        assert unless_starved(other)(history, Evidence(), PROMISE, run()) == other(history, Evidence(), PROMISE, run())


def test_a_checker_depends_on_time_or_holds_on_any_machine() -> None:
    named = [checker.__name__ for checker in (*TIMED, *TIMELESS)]
    assert sorted(named) == sorted(CHECKERS)
    assert not {"lost_writes", "unexpected_rows", "timelines_grow", "stale_reads"} & {c.__name__ for c in TIMED}
