"""Shares of a plan: together the whole, apart from each other, and the same wherever they are told."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.arrivals import poisson
from loadtests.launch import Process
from loadtests.plan import LoadError, LoadPlan
from loadtests.share import FIRST_WORKER, Assignment, Share


@given(st.integers(min_value=1, max_value=9), st.lists(st.integers(), max_size=60))
def test_every_item_goes_to_exactly_one_share(count: int, items: list[int]) -> None:
    numbered = list(enumerate(items))
    given = [list(Share(index, count).of(iter(numbered))) for index in range(count)]
    assert sorted(item for share in given for item in share) == numbered
    assert max(map(len, given)) - min(map(len, given)) <= 1
    assert all(share == sorted(share) for share in given)


@given(st.integers(min_value=1, max_value=9), st.text(max_size=5))
def test_workers_send_together_what_one_process_would_have_sent(count: int, seed: str) -> None:
    alone = list(islice(poisson(100, seed), 60 * count))
    shared = [offset for index in range(count) for offset in islice(Share(index, count).of(poisson(100, seed)), 60)]
    assert sorted(shared) == alone


def test_each_share_has_a_number_and_a_part_of_its_own() -> None:
    shares = [Share(), *(Share(index, 3) for index in range(3))]
    assert len({share.process for share in shares} | {int(Process.WRITERS)}) == 5
    assert len({share.part(Path()) for share in shares}) == 4
    assert Share().process == Process.LOCUST
    assert Share().part(Path()) == Process.LOCUST.part(Path())
    assert min(FIRST_WORKER, *Process) < FIRST_WORKER


def test_a_worker_understands_its_master(fields: dict[str, Any]) -> None:
    plan = LoadPlan.model_validate_json(json.dumps(fields | {"profile": "peak"}))
    given = Assignment(plan, Share(1, 3), recorded=True, last=False)
    assert Assignment.from_message(given.message()) == given


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"clock_id": "monotonic:elsewhere"}, "start both on one machine"),
        ({"plan": "{}"}, "from one checkout"),
    ],
)
def test_a_message_that_cannot_be_followed_is_refused(
    fields: dict[str, Any], change: dict[str, Any], reason: str
) -> None:
    plan = LoadPlan.model_validate_json(json.dumps(fields))
    message = Assignment(plan, Share(0, 2), recorded=False, last=True).message()
    with pytest.raises(LoadError, match=reason):
        Assignment.from_message(message | change)
