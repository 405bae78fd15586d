"""S-06: its checkers say true, false and unknown where they must."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.checkers.finding import Verdict
from experiments.checkers.rolling import bad_operations, left_unanswered, not_restarted
from experiments.evidence import Evidence
from experiments.history import History
from loadtests.record import Durability, Error, Kind
from services.contracts.events import Event
from tests.unit.experiments.direct import MEMBERS, at, event, promise, run
from tests.unit.experiments.judging import history_of

TRUE, FALSE, UNKNOWN = Verdict.TRUE, Verdict.FALSE, Verdict.UNKNOWN


def back(member: str, *, anew: bool = True) -> Event:
    after = "other" if anew else "same"
    return event(5, "fault", "came_back", member, seconds=4.2, before="same", after=after)


ALL = [back(member) for member in MEMBERS]
STUCK = event(20, "fault", "stayed_away", why="api-1 did not come back within 60 s of its restart: down")


@pytest.mark.parametrize(
    ("verdict", "events", "options"),
    [
        (TRUE, ALL, {}),
        (FALSE, [*ALL[:2], STUCK], {}),
        (UNKNOWN, ALL[1:], {}),
        (UNKNOWN, [*ALL[1:], back(MEMBERS[0], anew=False)], {}),
        (UNKNOWN, [*ALL, Event(at(1), "monotonic:ffffffff", "edge", "api-0", "out", {})], {}),
    ],
)
def test_every_member_must_run_as_another_process(
    verdict: Verdict, events: list[Event], options: dict[str, Any]
) -> None:
    record = run("every member", method="restart", **options)
    finding = not_restarted(History.empty(), Evidence(events=tuple(events)), promise("s06.yaml", "restarted"), record)
    assert finding.verdict is verdict, finding.reason


def drained(member: str, unanswered: int) -> Event:
    return event(5, "edge", "drained", member, unanswered=unanswered, since_ns=at(4))


BOTH = [drained("api-0", 0), drained("api-1", 0)]
STALLED = event(4.5, "machine", "stalled", what="processor", ns=200_000_000)


@pytest.mark.parametrize(
    ("verdict", "value", "events"),
    [
        (TRUE, 0, BOTH),
        (FALSE, 3, [drained("api-0", 3), drained("api-1", 0)]),
        (FALSE, 5, [drained("api-0", 3), drained("api-1", 2)]),
        (FALSE, 3, [drained("api-0", 3)]),
        (UNKNOWN, 0, BOTH[:1]),
        (UNKNOWN, None, []),
        (TRUE, 0, [*BOTH, STALLED]),
        (UNKNOWN, 3, [drained("api-0", 3), drained("api-1", 0), STALLED]),
        (UNKNOWN, 0, [*BOTH, Event(at(1), "monotonic:ffffffff", "edge", "api-0", "out", {})]),
    ],
)
def test_a_replica_that_ends_answers_what_it_was_sent(verdict: Verdict, value: int | None, events: list[Event]) -> None:
    record = run("every member", method="restart")
    found = left_unanswered(History.empty(), Evidence(events=tuple(events)), promise("s06.yaml", "drained"), record)
    assert (found.verdict, found.value) == (verdict, value), found.reason


@given(st.lists(st.integers(0, 9), min_size=2, max_size=2))
def test_all_that_was_left_unanswered_counts(left: list[int]) -> None:
    events = tuple(drained(f"api-{at}", number) for at, number in enumerate(left))
    found = left_unanswered(History.empty(), Evidence(events), promise("s06.yaml", "drained"), run("every member"))
    assert found.value == sum(left)
    assert (found.verdict is TRUE) == (sum(left) == 0)


def operations(count: int, *, bad: int = 0) -> History:
    rows = []
    for number in range(count):
        kind = (Kind.PREDICT, Kind.WRITE_API)[number % 2]
        failed = number < bad
        rows.append(
            {
                "kind": kind,
                "sched_ns": at(number / 100),
                "start_ns": at(number / 100),
                "end_ns": at(number / 100 + 0.01),
                "durability": Durability.NONE if kind is Kind.PREDICT else Durability.OK,
                "available": not failed,
                "error": Error.HTTP_5XX if failed else Error.NONE,
            }
        )
    return history_of(rows)


@pytest.mark.parametrize(
    ("verdict", "history", "options"),
    [
        (TRUE, operations(500), {}),
        (FALSE, operations(500, bad=1), {}),
        (UNKNOWN, operations(50), {}),
        (UNKNOWN, operations(500), {"proven": False}),
    ],
)
def test_no_operation_of_any_kind_may_be_bad(verdict: Verdict, history: History, options: dict[str, Any]) -> None:
    record = run("every member", method="restart", **options)
    finding = bad_operations(history, Evidence(), promise("s06.yaml", "operations"), record)
    assert finding.verdict is verdict, finding.reason
