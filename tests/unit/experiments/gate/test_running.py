"""What the gate asks of what runs: a cloud that answers as it is told, and a clock that needs no waiting."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from experiments.gate.collect import running
from experiments.gate.facts import ConsensusTrial, Heap, Missing
from infra.environment import Edge, Environment, EnvironmentFault, FaultProof, NodeAnswer
from infra.topology import Topology, load

ROOT = Path(__file__).resolve().parents[4]
NODES = ("h2o-0", "h2o-1", "h2o-2")
YES, NO = NodeAnswer(200, {"ready": True}), NodeAnswer(503, {"ready": False})
DIED_S = 100.0


class Cloud:
    """`after` says what a living node answers so many seconds after the death of another one; None for silence."""

    def __init__(self, after: Callable[[float], NodeAnswer | None], now: Callable[[], float]) -> None:
        self.before: dict[str, NodeAnswer | None] = dict.fromkeys(NODES, YES)
        self.after, self.now = after, now
        self.killed: list[str] = []
        self.mends = True
        self.mended = False

    def h2o_answers(self, path: str) -> Mapping[str, NodeAnswer | None]:
        if path == "/status":
            return {**dict.fromkeys(NODES, NodeAnswer(200, {"running_heap_mb": 716})), "h2o-2": None}
        if not self.killed or self.mended:
            return self.before
        return {node: None if node in self.killed else self.after(self.now() - DIED_S) for node in NODES}

    def kill(self, member: str, *, scope: str, hold: bool) -> FaultProof:
        assert (scope, hold) == ("member", False)
        self.killed.append(member)
        return FaultProof(member, "member", "SIGKILL", hold, int(DIED_S * 1e9), (), True, "gone")

    def wait_ready(self, *, timeout_s: float) -> None:
        if not self.mends:
            raise EnvironmentFault("h2o-0 is not healthy")
        self.mended = True


@pytest.fixture
def topology() -> Topology:
    return load(ROOT, "local")


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[float], NodeAnswer | None]], Cloud]:
    """Makes a cloud whose time goes on by a tenth of a second with each look at the clock."""
    ticks = itertools.count()
    last = [DIED_S]

    def now_ns() -> int:
        last[0] = DIED_S + next(ticks) / 10
        return int(last[0] * 1e9)

    monkeypatch.setattr("experiments.gate.collect.running.time.monotonic_ns", now_ns)
    monkeypatch.setattr("experiments.gate.collect.running.time.sleep", lambda _: None)
    return lambda after: Cloud(after, lambda: last[0])


def trial(cloud: Cloud, topology: Topology) -> Any:
    return running.consensus_trial(cast("Environment", cloud), topology)


@pytest.mark.parametrize("answer", [NO, None], ids=["it says so", "it says nothing"])
def test_others_that_are_not_ready_are_timed(cloud: Any, topology: Topology, answer: NodeAnswer | None) -> None:
    there = cloud(lambda since_s: YES if since_s < 2 else answer)
    found = trial(there, topology)
    assert isinstance(found, ConsensusTrial)
    (victim,) = there.killed
    assert set(found.false_after_s) == set(NODES) - {victim}
    assert all(2 <= cast("float", after) < 3 for after in found.false_after_s.values())
    assert found.proven
    assert found.ready_again


def test_others_that_stay_ready_are_watched_until_late_is_never(cloud: Any, topology: Topology) -> None:
    found = trial(cloud(lambda _: YES), topology)
    assert set(found.false_after_s.values()) == {None}
    assert found.watched_s >= running.WATCHED_S


def test_a_cloud_that_does_not_come_back_is_told(cloud: Any, topology: Topology) -> None:
    there = cloud(lambda _: NO)
    there.mends = False
    assert not trial(there, topology).ready_again


def test_a_cloud_that_was_not_ready_before_loses_no_node(cloud: Any, topology: Topology) -> None:
    there = cloud(lambda _: NO)
    there.before["h2o-1"] = NO
    found = trial(there, topology)
    assert there.killed == []
    assert (found.proven, found.evidence) == (False, "nothing was killed")


def test_one_node_alone_is_no_trial(cloud: Any, topology: Topology) -> None:
    there = cloud(lambda _: NO)
    there.before = {"h2o-0": YES}
    found = trial(there, topology)
    assert isinstance(found, Missing)
    assert "needs two nodes; there are 1" in found.why
    assert there.killed == []


@pytest.mark.parametrize("environment", ["production", "staging"])
def test_no_node_is_killed_where_faults_are_not_allowed(cloud: Any, environment: str) -> None:
    topology = load(ROOT, environment)
    if environment == "staging":
        topology = topology.model_copy(update={"chaos": topology.chaos.model_copy(update={"enabled": False})})
    there = cloud(lambda _: NO)
    found = trial(there, topology)
    assert isinstance(found, Missing)
    assert "does not allow faults on h2o: nothing was killed" in found.why
    assert there.killed == []


def test_heaps_are_those_of_the_jvms_that_run(cloud: Any, topology: Topology) -> None:
    limit_mb = topology.h2o.memory_mb
    assert running.running_heaps(cast("Environment", cloud(lambda _: NO)), topology) == (
        Heap("running h2o-0", True, 716, limit_mb),
        Heap("running h2o-1", True, 716, limit_mb),
        Heap("running h2o-2", True, None, limit_mb),
    )


def test_whatever_an_environment_cannot_say_is_missing_each_for_its_own_reason(
    cloud: Any, topology: Topology, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = cloud(lambda since_s: YES if since_s < 2 else NO)

    def away() -> Any:
        raise EnvironmentFault("the service edge is missing")

    there.endpoints = away
    monkeypatch.setattr(running, "locked", lambda _: contextlib.nullcontext(there))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    seen = running.look(topology, None)
    assert seen.handshakes == Missing("the service edge is missing")
    assert isinstance(seen.consensus, ConsensusTrial)
    assert len(cast("tuple[Heap, ...]", seen.heaps)) == len(NODES)
    assert "no training is recorded" in cast("Missing", seen.training).why


def test_an_environment_on_kubernetes_is_asked_as_well(cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    there = cloud(lambda _: NO)

    def nobody(path: str) -> Any:
        raise EnvironmentFault("the cluster does not answer")

    there.h2o_answers = nobody
    monkeypatch.setattr(running, "locked", lambda _: contextlib.nullcontext(there))
    asked: list[Edge] = []
    monkeypatch.setattr(running, "handshakes", asked.append)
    edge = Edge("https://10.0.0.1:443", Path("ca.crt"))
    seen = running.look(load(ROOT, "staging"), edge)
    assert asked == [edge]
    assert seen.heaps == seen.consensus == Missing("the cluster does not answer")
    assert "leave no record" in cast("Missing", seen.training).why


def test_of_production_nothing_is_looked_at_but_an_edge_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(_: str) -> Any:
        raise AssertionError("production was opened")

    monkeypatch.setattr(running, "locked", opened)
    seen = running.look(load(ROOT, "production"), None)
    assert "give --edge" in cast("Missing", seen.handshakes).why
    assert {cast("Missing", fact).why for fact in (seen.heaps, seen.consensus, seen.training)} == {
        "production is only looked at: its gate takes staging's evidence"
    }
