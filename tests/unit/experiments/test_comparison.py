"""Comparing runs: a regression is said only when the figure moved by more than it moves by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.checkers.finding import Verdict
from experiments.comparison import LEAST_REPEATS, Change, Measured, compare

RTO = Measured("next-ack", "next acknowledged write", Verdict.TRUE, 0.30, "<", 2.0, "s")
LOST = Measured("lost", "writes lost", Verdict.TRUE, 0, "==", 0, "writes")
KEPT = Measured("load", "the load kept its schedule", Verdict.TRUE, 100.0, ">=", 99.0, "%")
QUIET = (0.28, 0.30, 0.32, 0.29, 0.31)
NOISY = (0.2, 0.9, 1.4, 0.4, 0.6)


def change(now: Measured, before: Measured, repeats: tuple[float, ...] = QUIET) -> tuple[Change, str]:
    others = [{before.id: replace(before, value=value)} for value in repeats]
    (entry,) = compare({now.id: now}, {before.id: before}, others).promises
    return entry.change, entry.reason


@pytest.mark.parametrize(
    ("value", "repeats", "said"),
    [
        (0.30, QUIET, Change.NONE),
        (0.35, (), Change.NONE),
        (0.90, QUIET, Change.REGRESSION),
        (0.90, NOISY, Change.NONE),
        (0.90, QUIET[:3], Change.UNKNOWN),
        (0.05, QUIET, Change.IMPROVEMENT),
        (0.05, (), Change.NONE),
    ],
)
def test_a_figure_is_worse_when_it_moved_beyond_its_noise(
    value: float, repeats: tuple[float, ...], said: Change
) -> None:
    assert change(replace(RTO, value=value), RTO, repeats)[0] is said


def test_a_broken_promise_is_a_regression_whatever_the_noise() -> None:
    broken = replace(LOST, value=1, verdict=Verdict.FALSE)
    assert change(broken, LOST, ()) == (Change.REGRESSION, "kept before, broken now")
    assert change(LOST, broken, ()) == (Change.IMPROVEMENT, "broken before, kept now")


def test_more_is_better_where_the_promise_says_so() -> None:
    assert change(replace(KEPT, value=90.0, verdict=Verdict.FALSE), KEPT)[0] is Change.REGRESSION
    assert change(KEPT, replace(KEPT, value=94.0), (99.9, 100.0, 100.0, 99.8))[0] is Change.IMPROVEMENT


@pytest.mark.parametrize(
    ("now", "before", "says"),
    [
        (replace(RTO, verdict=Verdict.UNKNOWN), RTO, "the run did not measure it"),
        (RTO, replace(RTO, value=None), "the baseline did not measure it"),
        (RTO, replace(RTO, verdict=Verdict.UNKNOWN), "the baseline did not measure it"),
        (RTO, replace(RTO, target=30.0), "the baseline promised < 30 s"),
    ],
)
def test_what_was_not_measured_cannot_be_told(now: Measured, before: Measured, says: str) -> None:
    assert change(now, before) == (Change.UNKNOWN, says)


def test_a_new_promise_and_an_empty_run_cannot_be_told() -> None:
    assert compare({RTO.id: RTO}, {}, []).exit_code == 2
    assert compare({}, {RTO.id: RTO}, []).exit_code == 2


def test_the_worst_promise_is_the_comparison() -> None:
    run = {"a": replace(RTO, id="a", value=1.9), "b": replace(LOST, id="b")}
    base = {"a": replace(RTO, id="a"), "b": replace(LOST, id="b")}
    repeats = [{"a": replace(RTO, id="a", value=value)} for value in QUIET]
    assert compare(run, base, repeats).exit_code == 1
    assert compare(base, base, repeats).exit_code == 0


def test_one_wild_repeat_excuses_nothing() -> None:
    assert change(replace(RTO, value=1.2), RTO, (*QUIET, 60.0))[0] is Change.REGRESSION


values = st.floats(0, 100, allow_nan=False)


@given(values, values, st.lists(values, min_size=LEAST_REPEATS, max_size=12))
def test_worse_one_way_is_better_the_other_and_never_both(now: float, before: float, repeats: list[float]) -> None:
    one, other = replace(RTO, value=now, target=101), replace(RTO, value=before, target=101)
    there, back = change(one, other, tuple(repeats))[0], change(other, one, tuple(repeats))[0]
    turned = {Change.REGRESSION: Change.IMPROVEMENT, Change.IMPROVEMENT: Change.REGRESSION}
    assert back is turned.get(there, there)
    assert there in {Change.NONE, Change.REGRESSION, Change.IMPROVEMENT}


@given(values, st.lists(values, max_size=12))
def test_a_run_is_never_worse_than_itself(value: float, repeats: list[float]) -> None:
    one = replace(RTO, value=value, target=101)
    assert change(one, one, tuple(repeats))[0] is Change.NONE
