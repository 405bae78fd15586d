"""The judges' linear searches against plain models: every pair looked at, every stretch tried, as the words say it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from experiments.checkers import availability, budget, latency, recovery, reload
from experiments.checkers.availability import judged_bad
from experiments.checkers.budget import error_budget
from experiments.checkers.finding import Verdict
from experiments.checkers.latency import against_baseline
from experiments.checkers.recovery import Streak, next_streak
from experiments.checkers.reload import not_golden, replicas_converged
from experiments.checkers.silence import _longest
from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import RunRecord, Windows
from experiments.scenario import Promise
from loadtests.arrivals import ON_TIME_NS
from loadtests.outcome import bits
from loadtests.record import NO_SHARD, Durability, Error, Kind
from services.contracts.events import Event
from tests.unit.experiments.direct import AT, at, event, run
from tests.unit.experiments.judging import history_of
from tests.unit.experiments.synthetic_run import CLOCK, MS

TRUE, FALSE, UNKNOWN = Verdict.TRUE, Verdict.FALSE, Verdict.UNKNOWN
FEW = 4
"""Samples that are enough in these tests: what the checkers ask for would hide every corner behind a hundred rows."""


@contextmanager
def changed(*settings: tuple[Any, str, int]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in settings:
            patch.setattr(module, name, value)
        yield


def promise(target: float, compare: Any = "<=", **params: float) -> Promise:
    return Promise(id="p", title="p", checker="c", target=target, unit="u", compare=compare, params=dict(params))


@dataclass(frozen=True)
class Attempt:
    start: int
    took: int
    good: bool


attempts = st.lists(
    st.builds(Attempt, st.integers(0, 40), st.integers(0, 9), st.sampled_from([True, True, True, False])), max_size=30
).map(lambda found: sorted(found, key=lambda each: each.start))


@given(attempts, st.integers(0, 30), st.integers(1, 4))
def test_a_streak_begins_with_the_first_that_enough_good_ones_follow(
    tried: Sequence[Attempt], since: int, length: int
) -> None:
    rows = history_of(
        [
            {"sched_ns": n, "start_ns": a.start, "end_ns": a.start + a.took, "available": a.good}
            for n, a in enumerate(tried)
        ]
    )
    with changed((recovery, "STREAK", length)):
        found = next_streak(rows, rows.available, since)
    heads = [
        head
        for head in range(len(tried) - length)
        if tried[head].start >= since and all(a.good for a in tried[head : head + length + 1])
    ]
    if not heads:
        assert found is None
        return
    head = heads[0]
    ended = min(a.start + a.took for a in tried[head : head + length + 1])
    before = max([since, *(a.start for a in tried[:head])])
    assert found == Streak(ended, tried[head].start - before, "write", 1)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from(list(Durability)), st.sampled_from([0, 1])), max_size=25),
    st.integers(0, 8),
    st.integers(1, 14),
)
def test_the_longest_silence_is_the_longest_stretch_without_an_acknowledgement(
    ended: list[tuple[int, Durability, int]], begin: int, lasts: int
) -> None:
    window = (begin, begin + lasts)
    rows = [{"end_ns": at_ns, "durability": told, "shard": shard} for at_ns, told, shard in ended]
    told = [at_ns for at_ns, durability, shard in ended if durability is Durability.OK and shard == 1]
    silent = [
        (one, other)
        for one in range(window[0], window[1] + 1)
        for other in range(one, window[1] + 1)
        if not any(one < at_ns < other for at_ns in told)
    ]
    found = _longest(history_of(rows), 1, window)
    assert found in silent
    assert found[1] - found[0] == max(other - one for one, other in silent)


@dataclass(frozen=True)
class Operation:
    """Times in ms after the fault; `late` after its schedule it was sent."""

    due: int
    late: int
    took: int
    available: bool
    process: int

    @property
    def start(self) -> int:
        return self.due + self.late

    @property
    def end(self) -> int:
        return self.start + self.took

    @property
    def on_time(self) -> bool:
        return self.late * MS <= ON_TIME_NS

    def row(self) -> dict[str, Any]:
        return {
            "kind": Kind.PREDICT,
            "shard": NO_SHARD,
            "process": self.process,
            "sched_ns": AT + self.due * MS,
            "start_ns": AT + self.start * MS,
            "end_ns": AT + self.end * MS,
            "durability": Durability.NONE,
            "available": self.available,
            "error": Error.NONE if self.available else Error.TIMEOUT,
        }

    def counts(self, all_of: Sequence[Operation]) -> bool:
        """It was sent in time, and its own client was never stalled while it was under way."""
        return self.on_time and not any(
            not other.on_time and other.process == self.process and other.due < self.end and other.start > self.start
            for other in all_of
        )

    def met(self, stall: tuple[int, int] | None) -> bool:
        """The machine stood still while it was under way, or had stood still for so long just before it was due."""
        if stall is None:
            return False
        begin, lasts = stall
        return self.end >= begin and self.due <= begin + 2 * lasts


operations = st.lists(
    st.builds(
        Operation,
        st.integers(0, 600),
        st.sampled_from([0, 0, 0, 250, 251, 900]),
        st.integers(1, 400),
        st.sampled_from([True, True, False]),
        st.integers(0, 2),
    ),
    max_size=20,
)
stalls = st.none() | st.tuples(st.integers(0, 600), st.integers(1, 400))


def stood(stall: tuple[int, int] | None) -> Evidence:
    if stall is None:
        return Evidence()
    begin, lasts = stall
    return Evidence((Event(AT + begin * MS, CLOCK, "machine", None, "stalled", {"what": "disk", "ns": lasts * MS}),))


@given(operations, stalls, st.integers(0, 3), st.booleans())
def test_bad_is_what_was_sent_in_time_by_a_client_that_ran(
    done: list[Operation], stall: tuple[int, int] | None, allowed: int, proven: bool
) -> None:
    history = history_of([each.row() for each in done])
    counted = [each for each in done if each.counts(done)]
    bad = [each for each in counted if not each.available]
    beyond_doubt = [each for each in bad if not each.met(stall)]
    with changed((availability, "MIN_OPERATIONS", FEW)):
        found = judged_bad(
            history, history.of(Kind.PREDICT), stood(stall), promise(allowed), run(proven=proven), noun="operation"
        )
    assert found.n == len(counted)
    assert (found.value or 0) == len(bad)
    if len(bad) <= allowed:
        assert found.verdict is (TRUE if proven and len(counted) >= FEW else UNKNOWN)
    else:
        assert found.verdict is (FALSE if len(beyond_doubt) > allowed else UNKNOWN)
        assert sum(int(str(row[3])) for row in found.evidence[0].rows) == len(bad)


@given(operations, stalls, st.sampled_from([0.001, 0.1, 5.0]), st.sampled_from([90.0, 99.9]), st.booleans())
def test_the_budget_is_the_share_of_bad_over_the_share_allowed_for_so_long(
    done: list[Operation], stall: tuple[int, int] | None, target: float, objective: float, proven: bool
) -> None:
    """At a constant rate a month holds as many more operations as it is longer than the run."""
    record = run(proven=proven).model_copy(update={"windows": Windows(undisturbed=(AT, at(4)))})
    counted = [each for each in done if each.counts(done)]
    days = 2.0
    month = 4 / (days * 86_400)

    def used(bad: int) -> float:
        return 100 * month * (bad / len(counted)) / (1 - objective / 100)

    with changed((budget, "MIN_OPERATIONS", FEW)):
        judged = promise(target, objective=objective, period_days=days)
        found = error_budget(history_of([each.row() for each in done]), stood(stall), judged, record)
    assert found.n == len(counted)
    if len(counted) < FEW:
        assert (found.verdict, found.value) == (UNKNOWN, None)
        return
    bad = [each for each in counted if not each.available]
    assert found.value == pytest.approx(used(len(bad)))
    kept, surely = (used(len(of)) <= target for of in (bad, [each for each in bad if not each.met(stall)]))
    assume(not any(math.isclose(used(number), target) for number in range(len(bad) + 1)))
    if kept:
        assert found.verdict is (TRUE if proven else UNKNOWN)
    else:
        assert found.verdict is (UNKNOWN if surely else FALSE)


# --- latency against the baseline -------------------------------------------------------------------------------------

milliseconds = st.lists(st.integers(1, 400), min_size=1, max_size=25)


def percentile_99(values: Sequence[int]) -> float:
    """Between the two nearest of the sorted values, by how near each is."""
    place = (len(values) - 1) * 0.99
    low, high = sorted(values)[math.floor(place)], sorted(values)[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


@given(milliseconds, milliseconds, st.sampled_from([1.0, 2.0, 3.0]), st.sampled_from([0.0, 25.0]))
def test_latency_is_held_against_what_the_baseline_allows(
    before: list[int], after: list[int], factor: float, floor_ms: float
) -> None:
    done = [Operation(1000 * -20 + n, 0, took, True, 0) for n, took in enumerate(before)]
    done += [Operation(n, 0, took, True, 0) for n, took in enumerate(after)]
    with changed((latency, "MIN_FOR_P99", FEW)):
        found = against_baseline(
            history_of([each.row() for each in done]),
            Evidence(),
            promise(1, factor=factor, floor_ms=floor_ms),
            run(),
            (AT, at(5)),
        )
    assert found.n == len(after)
    if min(len(before), len(after)) < FEW:
        assert (found.verdict, found.value) == (UNKNOWN, None)
        return
    base, seen = percentile_99(before), percentile_99(after)
    assert found.value == pytest.approx(seen / max(factor * base, base + floor_ms))
    assert found.verdict is (TRUE if found.value is not None and found.value <= 1 else FALSE)


@pytest.mark.parametrize(
    ("held_up", "took", "verdict"),
    [
        (0, 5, TRUE),
        (12, 5, TRUE),  # a dozen sent late by a client that stood still: no answer was slow
        (12, 90, FALSE),  # what was sent in time was slow as well
        (60, 5, FALSE),  # more than one in twenty: no longer by chance
    ],
)
def test_what_a_client_sent_late_is_no_latency_of_the_platform(held_up: int, took: int, verdict: Verdict) -> None:
    """All that came due while it stood still goes out at its end; what was under way before is not judged either."""
    done = [Operation(-5000 + 4 * n, 0, 5, True, 0) for n in range(1000)]
    done += [Operation(4 * n, 0, took if n % 50 == 0 else 5, True, 0) for n in range(1000)]
    done += [Operation(4200 + n, 60 - n if held_up < 60 else 70, 5, True, 0) for n in range(held_up)]
    done.append(Operation(4199, 0, 70, True, 0))
    found = against_baseline(
        history_of([each.row() for each in done]), Evidence(), promise(1, floor_ms=25.0), run(), (AT, at(5))
    )
    assert found.verdict is verdict, found.reason


# --- models under reload ----------------------------------------------------------------------------------------------

Golden = Mapping[str, list[float]]
GOLDEN: Golden = {"old": [0.1, 0.2], "new": [0.1, 0.3]}
"""By flight; the two say the same of the first."""


@dataclass(frozen=True)
class Answer:
    """At a time in tenths of a second after the fault, by a generation; `wrong` says what no version says."""

    second: int
    generation: int
    flight: int
    wrong: bool = False

    def said(self, called: Mapping[int, str], golden: Golden) -> float:
        return 0.9 if self.wrong else golden[called.get(self.generation, "old")][self.flight]

    def row(self, called: Mapping[int, str], golden: Golden) -> dict[str, Any]:
        said = self.said(called, golden)
        sent = at(self.second / 10)
        return {
            "kind": Kind.PREDICT,
            "shard": NO_SHARD,
            "key": self.flight,
            "value": bits(said),
            "sched_ns": sent,
            "start_ns": sent,
            "end_ns": sent + MS,
            "durability": Durability.NONE,
            "timeline": self.generation,
        }


answers = st.lists(
    st.builds(Answer, st.integers(0, 99), st.integers(1, 3), st.integers(0, 1), st.sampled_from([False] * 30 + [True])),
    max_size=25,
)
versions = st.sampled_from(["old", "new"])
names = st.fixed_dictionaries({1: versions, 2: versions, 3: versions}) | st.dictionaries(st.integers(1, 3), versions)


@given(answers, names, st.just({}) | names, st.booleans())
def test_an_answer_is_golden_when_the_version_that_it_names_says_the_same(
    replied: list[Answer], called: dict[int, str], mistaken: dict[int, str], alike: bool
) -> None:
    """`called` is what clients were told of each generation, `mistaken` what answered in its stead."""
    golden = dict.fromkeys(GOLDEN, GOLDEN["old"]) if alike else GOLDEN
    serving = called | mistaken
    scored = [event(-40, "golden", "scored", version=name, probabilities=said) for name, said in golden.items()]
    named = [event(-9, "load", "model_named", generation=g, version=v) for g, v in called.items()]
    history = history_of([each.row(serving, golden) for each in replied])
    with changed((reload, "MIN_OPERATIONS", FEW)):
        found = not_golden(history, Evidence((*scored, *named)), promise(0, "=="), run())
    if not {each.generation for each in replied} <= called.keys():
        assert (found.verdict, found.value) == (UNKNOWN, None)
        return
    wrong = [each for each in replied if each.said(serving, golden) != golden[called[each.generation]][each.flight]]
    if wrong:
        assert (found.verdict, found.value) == (FALSE, len(wrong))
        assert found.evidence[0].total == len(wrong)
    else:
        assert found.verdict is (UNKNOWN if alike or len(replied) < FEW else TRUE)


moved = st.lists(st.integers(0, 90), min_size=1, max_size=3, unique=True).map(sorted)


def converged(replied: Sequence[Answer], moves: Sequence[int], target: float, record: RunRecord) -> Any:
    events = tuple(event(m / 10, "models", "pointer", version="v", generation=n) for n, m in enumerate(moves, 2))
    history: History = history_of([each.row({}, GOLDEN) for each in replied])
    return replicas_converged(history, Evidence(events), promise(target, "<"), record)


@given(answers, moved, st.sampled_from([1.0, 3.0, 20.0]))
def test_replicas_have_converged_when_nobody_is_answered_by_an_older_model_any_more(
    replied: list[Answer], moves: list[int], target: float
) -> None:
    over = 150
    record = run(fault_s=10.0, recovery_s=over / 10 - 10.0)
    found = converged(replied, moves, target, record)
    took: list[float] = []
    for number, (begin, end) in enumerate(zip(moves, [*moves[1:], over], strict=True), 2):
        inside = [each for each in replied if begin <= each.second < end]
        if all(each.generation < number for each in inside):
            assert found.value is None
            assert found.verdict is (UNKNOWN if (end - begin) / 10 < target else FALSE)
            return
        took.append(max((each.second - begin for each in inside if each.generation < number), default=0) / 10)
    assert found.value == pytest.approx(max(took))
    assert found.verdict is (TRUE if found.value < target else FALSE)


@given(answers, moved, st.integers(0, 99))
def test_one_more_answer_of_an_older_model_never_makes_it_sooner(
    replied: list[Answer], moves: list[int], second: int
) -> None:
    record = run(fault_s=10.0, recovery_s=5.0)
    plain = converged(replied, moves, 3.0, record)
    more = converged([*replied, Answer(second, 1, 0)], moves, 3.0, record)
    if plain.value is None:
        return
    assert more.value >= plain.value
    order = list(Verdict)
    assert order.index(more.verdict) <= order.index(plain.verdict)
