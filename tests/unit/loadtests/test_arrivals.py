"""Arrival processes: rate, order, determinism."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.arrivals import NS_PER_S, poisson, uniform

rates = st.floats(min_value=0.1, max_value=5000)
seeds = st.text(max_size=20)
processes = st.sampled_from([poisson, uniform])


@given(processes, rates, seeds)
def test_arrivals_start_after_zero_and_never_go_back(process: type, rate: float, seed: str) -> None:
    offsets = list(islice(process(rate, seed), 200))
    assert offsets[0] >= 0
    assert all(earlier <= later for earlier, later in pairwise(offsets))


@given(processes, rates, seeds)
def test_one_seed_is_one_schedule(process: type, rate: float, seed: str) -> None:
    assert list(islice(process(rate, seed), 50)) == list(islice(process(rate, seed), 50))
    assert list(islice(process(rate, seed), 50)) != list(islice(process(rate, seed + "'"), 50))


@given(rates, seeds)
def test_poisson_keeps_its_rate_on_average(rate: float, seed: str) -> None:
    count = 2000
    last = next(islice(poisson(rate, seed), count - 1, None))
    # The time of the n-th arrival has mean n/rate and standard deviation sqrt(n)/rate; seven of them never happen.
    assert last * rate / NS_PER_S == pytest.approx(count, abs=7 * count**0.5)


@given(rates, seeds)
def test_uniform_leaves_no_gap_longer_than_its_period(rate: float, seed: str) -> None:
    offsets = list(islice(uniform(rate, seed), 200))
    period = NS_PER_S / rate
    assert offsets[0] < period + 1
    assert all(later - earlier == pytest.approx(period, abs=2) for earlier, later in pairwise(offsets))


@given(rates, st.integers(1, 4), seeds)
def test_two_uniform_processes_alternate(rate: float, times: int, seed: str) -> None:
    first = list(islice(uniform(rate, seed), 200))
    second = list(islice(uniform(rate / times, seed, beside=rate), 200 // times))
    half = NS_PER_S / rate / 2
    for at, offset in enumerate(second):
        assert offset - first[at * times] == pytest.approx(half, abs=2)


@given(processes, st.sampled_from([0.0, -1.0, float("nan"), float("inf")]))
def test_a_rate_that_is_none_is_refused(process: type, rate: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        next(process(rate, "seed"))
