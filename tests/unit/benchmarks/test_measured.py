"""What load generators print becomes figures, and rounds become one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.measured import BenchmarkError, Measured, from_h2load, from_wrk, median, percentile, ratio

ONE = Measured(requests=1000, seconds=2.0, p50_ms=1, p95_ms=2, p99_ms=3, max_ms=4, late=0, errors=0)
WRK = """Running 2s test @ http://127.0.0.1:1
  1 threads and 32 connections
{"requests": 1000, "seconds": 2.0, "p50_ms": 1, "p95_ms": 2, "p99_ms": 3, "max_ms": 4, "late": 0, "errors": 0}
"""


def test_wrk_result_is_found_after_its_own_words() -> None:
    assert from_wrk(WRK) == ONE
    assert ONE.rate == 500


def test_wrk_without_a_result_says_what_it_said() -> None:
    with pytest.raises(BenchmarkError, match="unable to connect"):
        from_wrk("unable to connect to 127.0.0.1:1")


def test_h2load_log_gives_exact_percentiles_and_counts_errors() -> None:
    lines = [f"1700000000000000\t200\t{number * 1000}" for number in range(1, 101)]
    found = from_h2load("\n".join([*lines, "1700000000000000\t503\t9", "1700000000000000\t-1\t9", "17000"]), 4.0)
    assert (found.requests, found.errors, found.rate) == (100, 2, 25)
    assert (found.p50_ms, found.p95_ms, found.p99_ms, found.max_ms) == (50, 95, 99, 100)


def test_h2load_without_an_answer_is_no_measurement() -> None:
    with pytest.raises(BenchmarkError, match="1 others"):
        from_h2load("1700000000000000\t-1\t9\n", 1.0)


@pytest.mark.parametrize(("percent", "value"), [(1, 1), (50, 2), (75, 3), (99, 4), (100, 4)])
def test_percentile_is_the_nearest_rank(percent: float, value: float) -> None:
    assert percentile([1, 2, 3, 4], percent) == value


def test_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


def test_rounds_are_told_by_their_medians_and_no_error_is_lost() -> None:
    rounds = [ONE, replace(ONE, p99_ms=30, errors=1), replace(ONE, p99_ms=5, max_ms=9)]
    total = median(rounds)
    assert (total.p99_ms, total.max_ms, total.errors, total.requests, total.rate) == (5, 9, 1, 3000, 500)


def test_ratio_compares_round_by_round() -> None:
    slow = replace(ONE, requests=500)
    found = ratio([ONE, slow, ONE], [slow, slow, ONE])
    assert (found.median, found.lowest, found.highest) == (1, 1, 2)
