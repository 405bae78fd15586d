"""One more shard, one more replica: what the change names changes, and nothing else is touched.

In this order: an autoscaler keeps a third replica for minutes, and a rolling update has no node for a fourth.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.kubernetes.load import PATIENCE_S, running, told
from tests.kubernetes.platform import Platform, eventually, leaves, ready

TOLD = ("api-", "mage-", "migrate-")
"""Who must know every shard, and has new pods for it."""

pytestmark = pytest.mark.usefixtures("model")


def test_one_more_shard_is_made_and_told_to_those_who_must_know(
    platform: Platform, record_property: Callable[[str, object], None]
) -> None:
    shards = platform.plan.topology.postgres.shards
    wider = platform.with_topology(postgres=platform.plan.topology.postgres.model_copy(update={"shards": shards + 1}))
    new = f"shard-{shards}"
    before = platform.identities()
    with running(platform, patience_s=PATIENCE_S) as load:
        began = time.monotonic()
        wider.apply(_without_jobs(wider))
        platform.rolled_out(f"statefulset/{new}")
        (migrate,) = [
            made for made in wider.objects() if made["metadata"]["name"] == "migrate" and made["kind"] == "Job"
        ]
        wider.run(migrate)
        platform.rolled_out("deployment/api")
    after = platform.identities()
    assert _changed(before, after) <= {
        "deployments/api",
        "deployments/mage",
        "horizontalpodautoscalers/api",
        "jobs/migrate",
    }
    made = {name.rpartition("/")[2] for name in after.keys() - before.keys()}
    assert {name for name in made if not name.startswith(TOLD)} == {
        new,
        *(f"{new}-{i}" for i in range(3)),
    }
    gone = before.keys() - after.keys()
    assert all(name.removeprefix("pods/").startswith(TOLD) for name in gone)
    unanswered = [o for o in load.ended(after=0.0) if not o.answered]
    record_property("operations_meanwhile", len(load.operations))
    record_property("late", told(load.bad(after=0.0), began))
    assert unanswered == [], told(unanswered, began)
    assert load.lost(platform) == set()


def test_one_more_replica_adds_just_that(platform: Platform) -> None:
    api = platform.plan.topology.api
    larger = platform.with_topology(api=api.model_copy(update={"replicas": api.replicas + 1}))
    # from the topology that is given, whatever was made of it before
    platform.apply(_without_jobs(platform))
    for deployment in ("deployment/api", "deployment/mage"):
        platform.rolled_out(deployment)
    with platform.impatient():  # new replicas' own beginning is a load to which it may have answered with another one
        eventually(
            "only those that stay", 120, lambda: len(_standing(platform)) == len(platform.pods("api")) == api.replicas
        )
    before = platform.identities()
    larger.apply(_without_jobs(larger))
    eventually("one more replica", 120, lambda: len(_standing(platform)) == api.replicas + 1)
    after = platform.identities()
    assert _changed(before, after) == {"horizontalpodautoscalers/api", "deployments/api"}
    assert len([name for name in after.keys() - before.keys() if name.startswith("pods/api-")]) == 1
    assert len(after) == len(before) + 1


def _standing(platform: Platform) -> list[dict[str, Any]]:
    """Ready replicas that stay."""
    return [pod for pod in platform.pods("api") if ready(pod) and not leaves(pod)]


def _without_jobs(platform: Platform) -> list[dict[str, Any]]:
    return [made for made in platform.objects() if made["kind"] != "Job"]


def _changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name in before.keys() & after.keys() if before[name] != after[name]}
