"""A promise is kept only when every part of it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import contest, judged, results, stack
from benchmarks.measured import Measured
from benchmarks.rivals import Rival

BOUND = judged.Bound("cache hit", 1_000, 20, 50)
GOOD = Measured(requests=4_000, seconds=4, p50_ms=1, p95_ms=19, p99_ms=49, max_ms=90, late=0, errors=0)


def test_within_all_bounds_is_kept() -> None:
    assert judged.within(GOOD, BOUND)


@pytest.mark.parametrize(
    "broken",
    [replace(GOOD, p95_ms=20), replace(GOOD, p99_ms=50), replace(GOOD, errors=1), replace(GOOD, requests=3_900)],
)
def test_one_broken_bound_is_enough(broken: Measured) -> None:
    assert not judged.within(broken, BOUND)


def result(name: str, kind: str, rate: int, p99_ms: float, *, token: bool = False) -> contest.Result:
    rival = Rival(name, kind, "", 1, "/", "named", token=token)  # type: ignore[arg-type]
    return contest.Result(rival, (replace(GOOD, requests=rate * 4, p99_ms=p99_ms),))


def test_the_comparison_is_with_the_best_peer_at_lower_p99() -> None:
    ours, peers = result("ours", "ours", 5_000, 5), (result("a", "peer", 1_000, 9), result("b", "peer", 500, 1))
    [kept] = judged.of_contest((ours, *peers))
    assert kept.kept
    assert "a, at lower p99" in kept.text
    [slow] = judged.of_contest((result("ours", "ours", 4_900, 5), *peers))
    [late] = judged.of_contest((result("ours", "ours", 5_000, 9), *peers))
    assert not slow.kept
    assert not late.kept


def test_everything_on_needs_less() -> None:
    [promise] = judged.of_contest((result("ours", "ours", 3_000, 5, token=True), result("a", "peer", 1_000, 9)))
    assert promise.kept


def test_steps_without_a_promise_are_not_judged_and_every_step_is_a_row() -> None:
    cost = dict.fromkeys(results.COSTS, 1.0)
    steps = [stack.Step("cache hit", rate, 0, GOOD, cost, 170.0) for rate in (500, 1_000, 0)]
    [promise] = judged.of_stack(steps)
    assert promise.kept
    rows = results.stack_rows(steps, dict.fromkeys(results.MACHINE, "x"))
    assert [row["rate"] for row in rows] == [500, 1_000, "most"]
    assert all(set(row) == set(results.STACK) for row in rows)
