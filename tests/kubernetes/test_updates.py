"""A rolling restart of a shard's members and of the API, under load: nothing lost, nothing that clients notice."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.kubernetes.load import running, told
from tests.kubernetes.platform import Platform, eventually, ready

Record = Callable[[str, object], None]
SWITCHOVER_S = 30.0
SWITCHOVERS = 2
"""At most: a primary hands over to the lowest number, which is replaced last, and the lowest to the highest, which is
new already (services/postgres/step_down.py)."""

pytestmark = pytest.mark.usefixtures("model")


def test_a_shards_restart_loses_nothing_and_hands_over_at_most_twice(
    platform: Platform, record_property: Record
) -> None:
    before = eventually("a primary", 60, lambda: platform.timeline(0))
    uids = _uids(platform, 0)
    with running(platform) as load:
        began = time.monotonic()
        platform.kubectl("rollout", "restart", "statefulset/shard-0")
        platform.rolled_out("statefulset/shard-0", timeout_s=400)
        took_s = time.monotonic() - began
        eventually("writes go on", 30, lambda: load.acknowledged(0, began + took_s))
        paused_s = load.longest_pause(0, began)
        bad, elsewhere = load.bad(after=began), load.bad(after=began, but_shard=0)
    after = eventually("a primary", 60, lambda: platform.timeline(0))
    record_property("took_s", f"{took_s:.0f}")
    record_property("switchovers", after - before)
    record_property("longest_pause_s", f"{paused_s:.1f}")
    record_property("bad_operations", told(bad, began))
    assert not uids & _uids(platform, 0), "a member was not restarted"
    assert after - before <= SWITCHOVERS
    assert paused_s < SWITCHOVER_S
    assert elsewhere == [], told(elsewhere, began)
    assert load.lost(platform) == set()


def test_the_apis_restart_is_seen_by_no_client(platform: Platform, record_property: Record) -> None:
    eventually("every replica is ready", 120, lambda: all(ready(pod) for pod in platform.pods("api")))
    before = {pod["metadata"]["uid"] for pod in platform.pods("api")}
    with running(platform) as load:
        began = time.monotonic()
        platform.kubectl("rollout", "restart", "deployment/api")
        platform.rolled_out("deployment/api")
        # the last of the old ones serves on until the edge has seen that it leaves
        eventually(
            "the old ones are gone", 60, lambda: not before & {p["metadata"]["uid"] for p in platform.pods("api")}
        )
        took_s = time.monotonic() - began
        bad = load.bad(after=began)
    record_property("took_s", f"{took_s:.0f}")
    record_property("operations", len(load.ended(after=began)))
    record_property("bad_operations", told(bad, began))
    assert bad == [], told(bad, began)
    assert load.lost(platform) == set()


def _uids(platform: Platform, shard: int) -> set[str]:
    return {pod["metadata"]["uid"] for pod in platform.get("pods", "-l", f"breakwater.dev/shard={shard}")}
