"""What the nodes' answers amount to: whole only by the word of every node, ages against each node's own news."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.h2o.cloud import Answer, CloudView, NodeAddress, heard_age_s, is_whole
from services.h2o.decision import Port

NODES = tuple(NodeAddress(name=f"h2o-{i}", host="127.0.0.1", port=24060 + 2 * i) for i in range(3))
VIEW = CloudView("bw-4", 3, consensus=True, healthy=True, heard_ms={node.peer: 50_000 for node in NODES})


def answers(view: CloudView = VIEW, **others: Answer) -> dict[str, Answer]:
    return {node.name: Answer(Port.OPEN, view) for node in NODES} | {
        name.replace("_", "-"): answer for name, answer in others.items()
    }


def test_all_agree() -> None:
    assert is_whole(answers(), "bw-4")


@pytest.mark.parametrize(
    "wrong",
    [
        Answer(Port.SILENT),
        Answer(Port.REFUSED),
        Answer(Port.OPEN),
        Answer(Port.OPEN, replace(VIEW, name="bw-3")),
        Answer(Port.OPEN, replace(VIEW, size=2)),
        Answer(Port.OPEN, replace(VIEW, consensus=False)),
        Answer(Port.OPEN, replace(VIEW, healthy=False)),
    ],
)
def test_one_that_does_not_agree_is_enough(wrong: Answer) -> None:
    assert not is_whole(answers(h2o_1=wrong), "bw-4")


def test_age_is_taken_from_whoever_heard_last() -> None:
    stale = replace(VIEW, heard_ms={**VIEW.heard_ms, NODES[1].peer: 41_000})
    quiet = {"h2o_1": Answer(Port.SILENT)}
    assert heard_age_s(NODES[1], answers(stale, **quiet)) == 9.0
    assert heard_age_s(NODES[1], answers(stale, **quiet) | {"h2o-2": Answer(Port.OPEN, VIEW)}) == 0.0
    assert heard_age_s(NODES[1], answers(stale)) == 0.0, "it answered itself"
    assert heard_age_s(NODES[1], {node.name: Answer(Port.SILENT) for node in NODES}) is None


def test_h2os_own_answer_is_understood() -> None:
    node: dict[str, Any] = {"h2o": "/127.0.0.1:24060", "last_ping": 1795375802124, "healthy": True}
    answer = {"cloud_name": "bw-1", "cloud_size": 1, "consensus": True, "cloud_healthy": True, "bad_nodes": 0}
    assert CloudView.parse(answer | {"nodes": [node]}).heard_ms == {"127.0.0.1:24060": 1795375802124}
    assert not CloudView.parse(answer | {"nodes": [node], "bad_nodes": 1}).healthy
    with pytest.raises(KeyError):
        CloudView.parse(answer)


def test_a_node_whose_peers_were_told_a_name_is_heard_of_by_that_name() -> None:
    host = "h2o-0.h2o.staging.svc.cluster.local"
    nodes = [
        {"h2o": f"{host}/10.244.3.4:54321", "last_ping": 41_000},
        {"h2o": "/10.244.1.14:54321", "last_ping": 50_000},
    ]
    answer = {"cloud_name": "bw-4", "cloud_size": 2, "consensus": True, "cloud_healthy": True, "bad_nodes": 0}

    view = CloudView.parse(answer | {"nodes": nodes})

    assert view.age_s(f"{host}:54321") == view.age_s("10.244.3.4:54321") == 9.0
    assert view.age_s("10.244.1.14:54321") == 0.0
