"""Load profiles: the same arrivals in another time, as many as the changing rate brings, one schedule for one seed."""

from __future__ import annotations

import hashlib
import math
from itertools import islice, pairwise, takewhile
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.arrivals import NS_PER_S, poisson, uniform
from loadtests.profiles import PROFILES, Course, ProfileName

START = 5_000 * NS_PER_S
names = st.sampled_from(list(PROFILES))
changing = st.sampled_from([name for name, profile in PROFILES.items() if not profile.constant])
lengths = st.integers(min_value=1 * NS_PER_S, max_value=4 * 3600 * NS_PER_S)
rates = st.floats(min_value=0.5, max_value=300)
seeds = st.text(max_size=10)
processes = st.sampled_from([poisson, uniform])


def course(name: ProfileName, length_ns: int) -> Course:
    return Course(PROFILES[name], START, START + length_ns)


def test_every_name_has_a_profile_over_all_of_its_time() -> None:
    assert set(PROFILES) == set(get_args(ProfileName))
    for profile in PROFILES.values():
        shares = [share for share, _ in profile.points]
        assert (shares[0], shares[-1]) == (0, 1)
        assert all(earlier < later for earlier, later in pairwise(shares))
        assert all(factor >= 0 for _, factor in profile.points)


@pytest.mark.parametrize(
    ("arrivals", "digest"),
    [
        (poisson(100, "7/predict"), "c8ea4ceb22073954"),
        (uniform(50, "7/write_api/0"), "5a2768d49bdfbf6d"),
    ],
)
def test_the_normal_profile_leaves_every_arrival_as_it_always_was(arrivals: object, digest: str) -> None:
    shaped = course("normal", 60 * NS_PER_S).shaped(arrivals)  # type: ignore[arg-type]
    assert shaped is arrivals
    text = ",".join(str(offset) for offset in islice(shaped, 10_000))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


@given(processes, changing, lengths, rates, seeds)
def test_changed_arrivals_keep_their_order_and_stay_within_the_profile(
    process: type, name: ProfileName, length_ns: int, rate: float, seed: str
) -> None:
    offsets = list(islice(course(name, length_ns).shaped(process(rate, seed)), 2000))
    assert all(earlier <= later for earlier, later in pairwise(offsets))
    assert all(0 <= offset <= length_ns for offset in offsets)
    again = list(islice(course(name, length_ns).shaped(process(rate, seed)), 2000))
    assert offsets == again


@given(changing, lengths, rates, seeds)
def test_evenly_paced_arrivals_come_as_often_as_the_profile_says_at_any_time(
    name: ProfileName, length_ns: int, rate: float, seed: str
) -> None:
    """The n-th of them is due when the rate has brought n, whatever its phase: never more than one off."""
    shape = course(name, length_ns)
    for number, offset in enumerate(islice(shape.shaped(uniform(rate, seed)), 500)):
        assert rate * shape.amount(START, START + offset) == pytest.approx(number, abs=1.01)


@given(names, lengths, st.lists(st.floats(min_value=0, max_value=1), min_size=3, max_size=3))
def test_amounts_add_up_and_never_fall(name: ProfileName, length_ns: int, shares: list[float]) -> None:
    shape = course(name, length_ns)
    first, middle, last = (START + int(share * length_ns) for share in sorted(shares))
    parts = shape.amount(first, middle), shape.amount(middle, last)
    assert all(part >= -1e-9 for part in parts)
    assert sum(parts) == pytest.approx(shape.amount(first, last), rel=1e-9, abs=1e-6)


@given(names, lengths, st.floats(min_value=0.001, max_value=0.999))
def test_the_factor_is_how_fast_the_amount_grows(name: ProfileName, length_ns: int, share: float) -> None:
    shape = course(name, length_ns)
    at, step = START + int(share * length_ns), length_ns // 100_000
    grown = shape.amount(at - step, at + step) / (2 * step / NS_PER_S)
    assert grown == pytest.approx(shape.factor(at), abs=0.01)


@pytest.mark.parametrize(("name", "mean"), [("normal", 1), ("peak", 1.6), ("ramp", 1), ("soak", 0.95)])
def test_what_a_whole_profile_brings(name: ProfileName, mean: float) -> None:
    shape = course(name, 100 * NS_PER_S)
    assert shape.amount(START, shape.end_ns) == pytest.approx(100 * mean)
    sent = len(list(takewhile(lambda offset: offset < 100 * NS_PER_S, shape.shaped(uniform(50, "seed")))))
    assert sent == pytest.approx(100 * 50 * mean, abs=1)
    due = len(list(takewhile(lambda offset: offset < 100 * NS_PER_S, shape.shaped(poisson(50, "seed")))))
    assert due == pytest.approx(100 * 50 * mean, abs=5 * math.sqrt(100 * 50 * mean))


def test_the_peak_is_three_times_as_dense_half_way() -> None:
    shape = course("peak", 100 * NS_PER_S)
    offsets = [offset / NS_PER_S for offset in shape.shaped(uniform(10, "seed"))]
    assert sum(10 <= offset < 20 for offset in offsets) == pytest.approx(100, abs=1)
    assert sum(45 <= offset < 55 for offset in offsets) == pytest.approx(300, abs=1)
    assert sum(80 <= offset < 90 for offset in offsets) == pytest.approx(100, abs=1)


def test_outside_its_time_a_changing_profile_brings_nothing_and_the_constant_one_goes_on() -> None:
    for name, after in (("ramp", 0), ("normal", 50)):
        shape = course(name, 10 * NS_PER_S)  # type: ignore[arg-type]
        assert shape.amount(shape.end_ns, shape.end_ns + 50 * NS_PER_S) == pytest.approx(after)
        assert shape.amount(START - 50 * NS_PER_S, START) == pytest.approx(after)
