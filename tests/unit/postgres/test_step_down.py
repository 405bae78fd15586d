"""Whom a primary hands over to before its pod stops, and when it gives up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from services.postgres.step_down import HAND_OVER_S, candidates, step_down


def cluster(leader: int, standbys: Mapping[int, str]) -> dict[str, Any]:
    members = [{"name": f"shard-0-{leader}", "role": "leader", "state": "running"}]
    members += [{"name": f"shard-0-{n}", "role": role, "state": "streaming"} for n, role in standbys.items()]
    return {"members": members}


@pytest.mark.parametrize(
    ("leader", "expected"),
    [(2, ["shard-0-0", "shard-0-1"]), (1, ["shard-0-0", "shard-0-2"]), (0, ["shard-0-2", "shard-0-1"])],
)
def test_the_last_to_be_replaced_comes_first_and_after_it_the_first_replaced(leader: int, expected: list[str]) -> None:
    standbys = {n: "quorum_standby" for n in range(3) if n != leader}
    assert candidates(cluster(leader, standbys), f"shard-0-{leader}") == expected


def test_only_members_that_hold_every_acknowledged_write_are_asked() -> None:
    view = cluster(0, {1: "replica", 2: "quorum_standby"})
    view["members"].append({"name": "shard-0-3", "role": "quorum_standby", "state": "start failed"})
    assert candidates(view, "shard-0-0") == ["shard-0-2"]


class Shard:
    """A Patroni that refuses some candidates; its clock moves when somebody sleeps."""

    def __init__(self, leader: int, *, refuses: frozenset[str] = frozenset(), away: bool = False) -> None:
        self.leader = leader
        self.refuses = refuses
        self.away = away
        self.asked: list[str] = []
        self.now = 0.0

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, Any]:
        if self.away:
            raise OSError("refused")
        if method == "GET":
            return 200, cluster(self.leader, {n: "quorum_standby" for n in range(3) if n != self.leader})
        assert body is not None
        self.asked.append(body["candidate"])
        if body["candidate"] in self.refuses:
            return 412, {}
        self.leader = int(body["candidate"][-1])
        return 200, {}

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self, own: str) -> str:
        return step_down(own, self.ask, clock=lambda: self.now, sleep=self.sleep)


def test_a_replica_has_nothing_to_hand_over() -> None:
    shard = Shard(0)
    assert shard.run("shard-0-1") == "nothing to hand over, shard-0-0 leads"
    assert shard.asked == []


def test_a_primary_hands_over_and_waits_until_the_other_leads() -> None:
    shard = Shard(2)
    assert shard.run("shard-0-2") == "shard-0-0 leads"


def test_a_candidate_that_is_refused_is_followed_by_the_next() -> None:
    shard = Shard(2, refuses=frozenset({"shard-0-0"}))
    assert shard.run("shard-0-2") == "shard-0-1 leads"
    assert shard.asked == ["shard-0-0", "shard-0-1"]


@pytest.mark.parametrize("shard", [Shard(2, refuses=frozenset({"shard-0-0", "shard-0-1"})), Shard(2, away=True)])
def test_the_pod_stops_in_the_end_whatever_happens(shard: Shard) -> None:
    assert shard.run("shard-0-2").startswith("still leading after 30 s")
    assert HAND_OVER_S <= shard.now < HAND_OVER_S + 1
