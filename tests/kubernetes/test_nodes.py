"""A node is emptied, and a node dies: what a drain may take, and the promises of the design for a lost node."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.kubernetes.load import PATIENCE_S, running, told
from tests.kubernetes.platform import KubectlFailed, Platform, eventually, leaves, ready

Record = Callable[[str, object], None]
WRITES_S = 35.0
WITHDRAWN_S = 15.0
SWITCHOVER_S = 30.0
"""How long a primary that leaves looks for a successor (services/postgres/step_down.py): then it ends all the same."""
BAD_SHARE = 0.01
"""Of the operations that a drain does not concern: predictions, and writes to shards whose primary stays. The pods that
serve them leave by their budgets, one after the other."""

pytestmark = pytest.mark.usefixtures("model")


def test_a_drain_respects_the_budgets_and_loses_nothing(platform: Platform, record_property: Record) -> None:
    node, other = _nodes_of_a_primary(platform)
    try:
        with running(platform, patience_s=PATIENCE_S) as load:
            began = time.monotonic()
            _drain(platform, node, "--timeout=150s")
            drained_s = time.monotonic() - began
            eventually("writes go on", 30, lambda: load.acknowledged(0, began + drained_s))
            left = [pod for pod in platform.get("pods") if pod["spec"].get("nodeName") == node]
            paused_s = load.longest_pause(0, began)
            elsewhere = load.ended(after=began, but_shard=0)
            bad = [o for o in elsewhere if not o.answered]
            late = [o for o in elsewhere if o.answered and not o.good]
            # a second node at once: what its budgets let go is gone, so this says only that nothing is lost
            refused = time.monotonic()
            with pytest.raises(KubectlFailed, match=r"disruption budget|global timeout"):
                _drain(platform, other, "--timeout=10s")
        record_property("drained_s", f"{drained_s:.1f}")
        record_property("longest_pause_s", f"{paused_s:.1f}")
        record_property("bad_operations_elsewhere", f"{told(bad, began)}; of {len(elsewhere)}")
        record_property("late_operations_elsewhere", told(late, began))
        record_property("bad_operations_after_the_refused_drain", told(load.bad(after=refused), refused))
        assert paused_s < SWITCHOVER_S
        assert len(bad) <= BAD_SHARE * len(elsewhere), told(bad, began)
        assert [pod["metadata"]["name"] for pod in left if pod["status"]["phase"] == "Running"] == []
        assert len([pod for pod in platform.pods("etcd") if ready(pod)]) == 2
        assert load.lost(platform) == set()
    finally:
        for each in (node, other):
            platform.kubectl("uncordon", each)
    _settled(platform)


def test_a_lost_node_keeps_the_promises(
    platform: Platform, machines: Callable[[str, str], str], record_property: Record
) -> None:
    node, _ = _nodes_of_a_primary(platform)
    try:
        with running(platform) as load:
            fault = time.monotonic()
            machines("node-kill", node)
            eventually("the dust settles", 60, lambda: time.monotonic() > fault + WRITES_S + 5)
            # from before the node died: writes of its last moments were acknowledged
            paused_s = load.longest_pause(0, fault)
            bad = load.bad(after=fault, but_shard=0)
            last_s = max((o.scheduled - fault for o in bad), default=0.0)
            still = [o for o in load.bad(after=fault) if o.scheduled > fault + WRITES_S]
        record_property("paused_s", f"{paused_s:.1f}")
        record_property("bad_operations_elsewhere", told(bad, fault))
        assert paused_s < WRITES_S
        assert last_s <= WITHDRAWN_S
        assert still == []
        assert load.lost(platform) == set()
    finally:
        machines("node-start", node)
    _settled(platform)


def _nodes_of_a_primary(platform: Platform) -> tuple[str, str]:
    """The node of shard 0's primary, with no other shard's primary on it; and another node."""
    primary = eventually("a primary", 60, lambda: platform.primary(0))
    node = platform.node_of(primary)
    for shard in list(platform.plan.shards)[1:]:
        elsewhere = eventually("a primary", 60, lambda shard=shard: platform.primary(shard))
        if platform.node_of(elsewhere) == node:
            platform.kubectl("delete", "pod", elsewhere)
            platform.rolled_out(f"statefulset/shard-{shard}")
            assert platform.node_of(eventually("a primary", 60, lambda s=shard: platform.primary(s))) != node
    names = [made["metadata"]["name"] for made in platform.get("nodes")]
    return node, next(name for name in names if name != node)


def _settled(platform: Platform) -> None:
    """All is as before: what follows begins with a whole platform, spread over all nodes again.

    Nothing moves back by itself to a node that was emptied: after two drains both replicas of the edge may share one.
    """
    for replicas in ("deployment/edge", "deployment/api"):
        platform.kubectl("rollout", "restart", replicas)
        platform.rolled_out(replicas)
    platform.healthy()
    eventually("those that leave are gone", 60, lambda: not any(map(leaves, platform.get("pods"))))


def _drain(platform: Platform, node: str, *options: str) -> None:
    platform.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", *options)
