"""What a pod's status means to those who experiment."""

from __future__ import annotations

import pytest

from infra.kubernetes.pod import Pod
from tests.unit.infra.kubernetes.pods import pod


def test_a_member_of_a_shard_is_known_by_its_labels() -> None:
    found = Pod.of(pod("shard-0-1", "postgres/shard-0", node="10.0.0.2"))
    assert (found.component, found.shard, found.node) == ("postgres/shard-0", 0, "10.0.0.2")
    assert found.ready
    assert found.runs("warden")
    assert found.runs("server")
    assert not found.runs("configure"), "what has ended does not run"


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"])
def test_an_image_that_is_not_there_is_named_with_what_to_do(reason: str) -> None:
    state = Pod.of(pod("api-1", "api", waiting=reason)).state()
    assert state.startswith(f"image api:1 cannot be had on its node ({reason})")
    assert "breakwater:kubernetes.images" in state


def test_a_pod_says_why_it_does_not_serve() -> None:
    waiting = pod("api-1", "api", waiting="CrashLoopBackOff")
    assert Pod.of(waiting).state() == "server CrashLoopBackOff"
    ended = pod("api-1", "api", ready=False)
    ended["status"]["containerStatuses"][0]["state"] = {"terminated": {"exitCode": 137}}
    assert Pod.of(ended).state() == "server ended with 137"
    leaving = pod("api-1", "api")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert Pod.of(leaving).state() == "ends"
    homeless = pod("api-1", "api", ready=False)
    said = "0/3 nodes are available: 3 Insufficient memory."
    homeless["status"] = {"conditions": [{"type": "PodScheduled", "status": "False", "message": said}]}
    assert Pod.of(homeless).state() == f"no node takes it: {said}"
    assert Pod.of(homeless).node is None
