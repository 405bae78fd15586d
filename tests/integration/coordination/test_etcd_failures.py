"""The etcd client when servers die or freeze: reads go on elsewhere, changes are never silently repeated."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from services.coordination.etcd import EtcdClient, EtcdOutcomeUnknown, EtcdUnavailable
from tests.integration.coordination.etcd_cluster import EtcdCluster, followed, wait_for

pytestmark = pytest.mark.integration

Found = TypeVar("Found")

ELECTED_S = 10.0
"""Without their leader the servers elect another within some of their election timeouts of a second; who asks meanwhile
may be told that there is none, that it changed, or nothing."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path, 3) as cluster:
        yield cluster


def once_elected(ask: Callable[[], Found]) -> Found:
    """What `ask` gives as soon as the servers have a leader; asked again, so a read or a lease's renewal."""
    deadline = time.monotonic() + ELECTED_S
    while True:
        try:
            return ask()
        except EtcdUnavailable:
            assert time.monotonic() < deadline


@pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])
def test_one_server_of_three_dies(cluster: EtcdCluster, leads: bool) -> None:
    """Everything goes on: requests, leases, and a watch that hung on the dead server, with nothing missed or twice."""
    victim = cluster.leader() if leads else (cluster.leader() + 1) % 3
    endpoints = [*cluster.clients[victim:], *cluster.clients[:victim]]
    client = EtcdClient(endpoints, timeout_s=2.0)
    watcher = EtcdClient(endpoints, timeout_s=2.0)
    with followed(watcher, "/k", start_revision=client.put("/k", "before")) as seen:
        wait_for(seen, "before")
        lease = client.grant_lease(30)

        cluster.kill(victim)  # both clients talk to it
        kv = once_elected(lambda: client.get("/k"))
        assert kv is not None
        assert kv.value == "before"
        deadline = time.monotonic() + ELECTED_S
        while True:
            try:
                client.put("/k", "after", lease=lease)
                break
            except EtcdOutcomeUnknown:
                assert time.monotonic() < deadline
                found = once_elected(lambda: client.get("/k"))
                if found is not None and found.value == "after":
                    break
        assert once_elected(lambda: client.keep_alive(lease)) == 30
        wait_for(seen, "after")
    assert [event.kv.value for event in seen] == ["before", "after"]


def test_a_frozen_server_leaves_a_change_unknown_and_a_read_certain(cluster: EtcdCluster) -> None:
    client = EtcdClient(cluster.clients, timeout_s=1.0)
    client.put("/k", "1")
    cluster.freeze(0)
    with pytest.raises(EtcdOutcomeUnknown, match="read the keys before trying again"):
        client.put("/k", "2")
    assert once_elected(lambda: client.get("/k")) is not None
    cluster.thaw(0)


def test_without_a_quorum_nothing_is_promised(cluster: EtcdCluster) -> None:
    client = EtcdClient(cluster.clients, timeout_s=1.0)
    client.put("/k", "1")
    follower = (cluster.leader() + 1) % 3
    for number in range(3):
        if number != follower:
            cluster.kill(number)
    with pytest.raises(EtcdUnavailable):
        client.get("/k")
    with pytest.raises(EtcdUnavailable):
        client.put("/k", "2")
