"""S-05: its checkers say true, false and unknown where they must, over histories that hold what each answer named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.checkers.finding import Checker, Verdict
from experiments.checkers.reload import (
    flawed_accepted,
    generations_back,
    latency_while_reloading,
    not_golden,
    not_rehearsed,
    reloads_under_load,
    replicas_converged,
)
from experiments.evidence import Evidence
from experiments.history import History
from loadtests.outcome import bits
from loadtests.record import Durability, Kind
from services.contracts.events import Event
from tests.unit.experiments.direct import at, event, promise, run
from tests.unit.experiments.judging import history_of

TRUE, FALSE, UNKNOWN = Verdict.TRUE, Verdict.FALSE, Verdict.UNKNOWN
CHECKERS: dict[str, Checker] = {
    "reloads": reloads_under_load,
    "golden": not_golden,
    "generations": generations_back,
    "converged": replicas_converged,
    "p99": latency_while_reloading,
    "refused": flawed_accepted,
}
RATE = 100
FAULT_S = 12.0
MOVES = (2.0, 5.0, 8.0)
"""When the pointer moves to generations 2, 3 and 4; each replica follows within 0.1 s."""
VERSIONS = {1: "old", 2: "new", 3: "old", 4: "new"}
GOLDEN = {"old": [0.1, 0.2, 0.3], "new": [0.15, 0.25, 0.35]}


def answers(
    *,
    lag_s: float = 0.05,
    wrong: int = 0,
    back: int = 0,
    slow_ms: float = 0.0,
    until_s: float = FAULT_S,
    moves: Sequence[float] = MOVES,
) -> History:
    """A hundred predictions a second by two replicas. `wrong` ones say what another model says, `back` ones name an
    older generation than their replica named before; `slow_ms` longer take those while the model is reloaded."""
    rows = []
    for number in range(round((30 + until_s) * RATE)):
        second = -30 + number / RATE
        generation = 1 + sum(second >= move + lag_s for move in moves)
        if back and second > 9:
            back, generation = back - 1, 3
        flight = number % 3
        said = GOLDEN[VERSIONS[generation]][flight]
        if wrong and second > 6:
            wrong, said = wrong - 1, 0.5
        took = 3 + (slow_ms if second >= 0 else 0)
        rows.append(
            {
                "kind": Kind.PREDICT,
                "shard": 255,
                "key": flight,
                "value": bits(said),
                "sched_ns": at(second),
                "start_ns": at(second),
                "end_ns": at(second + took / 1000),
                "durability": Durability.NONE,
                "server": number % 2,
                "timeline": generation,
            }
        )
    return history_of(rows)


def story(**changes: Any) -> list[Event]:
    """A sound run's events, by name; a change of None takes one away."""
    events: dict[str, Event | None] = {
        **{f"named{g}": event(-30 + g, "load", "model_named", generation=g, version=v) for g, v in VERSIONS.items()},
        **{v: event(-40, "golden", "scored", version=v, probabilities=p) for v, p in GOLDEN.items()},
        "present": event(-40, "models", "pointer", version="old", generation=1),
        **{
            f"move{number}": event(second, "models", "pointer", version=VERSIONS[number], generation=number)
            for number, second in enumerate(MOVES, 2)
        },
        **changes,
    }
    return [found for found in events.values() if found is not None]


def refusals(**changes: Any) -> list[Event]:
    """A flawed version was refused, a replica restarted, the version refused again."""
    events: dict[str, Event | None] = {
        "first": event(1, "fault", "not_reloaded", code="candidate_refused", version="flawed", seconds=1.0),
        "restarted": event(6, "fault", "restarted", "api-0"),
        "second": event(7, "fault", "not_reloaded", code="candidate_refused", version="flawed", seconds=1.0),
        **changes,
    }
    return [found for found in events.values() if found is not None]


ACCEPTED = event(7, "fault", "reloaded", version="flawed", generation=2, seconds=1.0)
TOO_SOON, AT_LAST = (event(second, "models", "pointer", version="new", generation=4) for second in (5.1, 11))
GONE = {"move2": None, "move3": None, "move4": None}
CASES: list[tuple[str, Verdict, dict[str, Any], list[Event], dict[str, Any]]] = [
    ("reloads", TRUE, {}, story(), {}),
    ("reloads", UNKNOWN, {}, story(move4=None), {}),
    ("reloads", UNKNOWN, {"until_s": 8.0}, story(), {}),
    ("reloads", UNKNOWN, {}, story(), {"proven": False}),
    ("golden", TRUE, {}, story(), {}),
    ("golden", FALSE, {"wrong": 1}, story(), {}),
    ("golden", FALSE, {}, story(twice=event(1, "load", "model_named", generation=1, version="new")), {}),
    ("golden", UNKNOWN, {}, story(new=None), {}),
    ("golden", UNKNOWN, {}, story(named3=None), {}),
    ("golden", UNKNOWN, {"moves": ()}, story(new=None), {}),  # one version alone cannot be mistaken for another
    ("generations", TRUE, {}, story(), {}),
    ("generations", FALSE, {"back": 1}, story(), {}),
    ("generations", UNKNOWN, {"moves": ()}, story(), {}),
    ("converged", TRUE, {}, story(), {}),
    ("converged", FALSE, {"lag_s": 5.2, "moves": (2.0,)}, story(move3=None, move4=None), {}),
    ("converged", FALSE, {"moves": (2.0, 5.0)}, story(move4=TOO_SOON), {}),
    ("converged", UNKNOWN, {"moves": (2.0, 5.0)}, story(move4=AT_LAST), {"recovery_s": 1.0}),
    ("converged", UNKNOWN, {}, story(**GONE), {}),
    ("converged", UNKNOWN, {}, story(), {"proven": False}),
    ("p99", TRUE, {"slow_ms": 20.0}, story(), {}),
    ("p99", FALSE, {"slow_ms": 30.0}, story(), {}),
    ("p99", UNKNOWN, {"until_s": 2.0}, story(), {}),
    ("p99", UNKNOWN, {}, story(), {"proven": False}),
    ("refused", TRUE, {}, refusals(), {}),
    ("refused", FALSE, {}, refusals(second=ACCEPTED), {}),
    ("refused", FALSE, {}, refusals(moved=event(3, "models", "pointer", version="flawed", generation=2)), {}),
    ("refused", UNKNOWN, {}, refusals(restarted=None), {}),
    ("refused", UNKNOWN, {}, refusals(second=None), {}),
    ("refused", UNKNOWN, {}, refusals(), {"proven": False}),
]  # fmt: skip


def judged(name: str, history: History, events: Sequence[Event], **options: Any) -> Any:
    ordered = tuple(sorted(events, key=lambda each: each.t_ns))
    wanted = {"fault_s": FAULT_S, "recovery_s": 0.0, **options}
    record = run("every replica", method="reload", **wanted)
    return CHECKERS[name](history, Evidence(events=ordered), promise("s05.yaml", name), record)


@pytest.mark.parametrize(("name", "verdict", "load", "events", "options"), CASES)
def test_verdict(
    name: str, verdict: Verdict, load: dict[str, Any], events: list[Event], options: dict[str, Any]
) -> None:
    finding = judged(name, answers(**load), events, **options)
    assert finding.verdict is verdict, finding.reason


def test_every_promise_is_seen_true_false_and_unknown() -> None:
    for name in CHECKERS:
        # too few reloads break no promise: they make the run no proof
        never = {FALSE} if name == "reloads" else set()
        assert {verdict for each, verdict, *_ in CASES if each == name} == {TRUE, FALSE, UNKNOWN} - never, name


def test_what_differs_is_shown() -> None:
    (exhibit,) = judged("golden", answers(wrong=3), story()).evidence
    assert exhibit.total == 3
    assert {row[2] for row in exhibit.rows} == {"0.5"}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 60), st.integers(1, 4)), min_size=1, max_size=60))
def test_an_answer_goes_back_only_behind_one_that_had_ended_before_it_began(
    asked: list[tuple[int, int, int]],
) -> None:
    """(start, duration, generation) of one replica's answers, against the definition itself."""
    rows = [
        {"kind": Kind.PREDICT, "start_ns": at(s / 100), "end_ns": at((s + d) / 100), "timeline": g} for s, d, g in asked
    ]
    rows = [{**row, "sched_ns": row["start_ns"]} for row in rows]
    expected = sum(any(s0 + d0 < s and g0 > g for s0, d0, g0 in asked) for s, _, g in asked)
    assert judged("generations", history_of(rows), story()).value == expected


def serves(second: float, member: str, generation: int, rehearsals: int) -> Event:
    return event(second, "metrics", "serving", member, generation=generation, rehearsals=rehearsals)


EACH = [serves(2.2, "api-0", 2, 1001), serves(2.3, "api-1", 2, 1001), serves(5.1, "api-0", 3, 1003)]


@pytest.mark.parametrize(
    ("verdict", "value", "events", "proven"),
    [
        (TRUE, 1001, EACH, True),
        (FALSE, 1, [*EACH, serves(5.2, "api-1", 3, 1)], True),
        (FALSE, 1, [serves(5.2, "api-1", 3, 1)], False),
        (UNKNOWN, 1001, EACH, False),
        (UNKNOWN, 1001, [EACH[0], EACH[2]], True),
        (UNKNOWN, None, [], True),
    ],
)
def test_a_model_has_answered_enough_before_it_serves(
    verdict: Verdict, value: float | None, events: list[Event], proven: bool
) -> None:
    record = run("every replica", method="reload", proven=proven)
    found = not_rehearsed(History.empty(), Evidence(events=tuple(events)), promise("s05.yaml", "rehearsed"), record)
    assert (found.verdict, found.value) == (verdict, value), found.reason


@given(st.lists(st.tuples(st.sampled_from(["api-0", "api-1"]), st.integers(0, 2000)), max_size=12))
def test_the_least_rehearsed_model_decides(seen: list[tuple[str, int]]) -> None:
    events = tuple(serves(2 + at, member, 2 + at, calls) for at, (member, calls) in enumerate(seen))
    record = run("every replica", method="reload")
    found = not_rehearsed(History.empty(), Evidence(events), promise("s05.yaml", "rehearsed"), record)
    assert found.value == min((calls for _, calls in seen), default=None)
    if any(calls < 1000 for _, calls in seen):
        assert found.verdict is FALSE
    else:
        assert found.verdict is (TRUE if len({member for member, _ in seen}) == 2 else UNKNOWN)
