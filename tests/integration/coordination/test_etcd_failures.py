"""The etcd client when servers die or freeze: reads go on elsewhere, changes are never silently repeated."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.coordination.etcd import EtcdClient, EtcdOutcomeUnknown, EtcdUnavailable, WatchEvent
from tests.integration.coordination.etcd_cluster import EtcdCluster

pytestmark = pytest.mark.integration


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path, 3) as cluster:
        yield cluster


def wait_for(seen: list[WatchEvent], value: str) -> None:
    deadline = time.monotonic() + 15
    while not any(event.kv.value == value for event in seen):
        assert time.monotonic() < deadline, f"the watch never said {value}: {seen}"
        time.sleep(0.02)


def test_one_server_of_three_dies(cluster: EtcdCluster) -> None:
    """Everything goes on: requests, leases, and a watch that hung on the dead server, with nothing missed or twice."""
    client = EtcdClient(cluster.clients, timeout_s=2.0)
    stop = threading.Event()
    seen: list[WatchEvent] = []
    start = client.put("/k", "before")
    watcher = EtcdClient(cluster.clients, timeout_s=2.0)

    def follow() -> None:
        for event in watcher.watch("/k", start_revision=start, stop=stop):
            seen.append(event)

    follower = threading.Thread(target=follow)
    follower.start()
    wait_for(seen, "before")
    lease = client.grant_lease(30)

    cluster.kill(0)  # both clients talk to server 0
    kv = client.get("/k")
    assert kv is not None
    assert kv.value == "before"
    deadline = time.monotonic() + 10
    while True:  # when server 0 led, the others first elect
        try:
            client.put("/k", "after", lease=lease)
            break
        except EtcdOutcomeUnknown:
            assert time.monotonic() < deadline
            found = client.get("/k")
            if found is not None and found.value == "after":
                break
    assert client.keep_alive(lease) == 30
    wait_for(seen, "after")
    stop.set()
    follower.join(timeout=5)
    assert [event.kv.value for event in seen] == ["before", "after"]


def test_a_frozen_server_leaves_a_change_unknown_and_a_read_certain(cluster: EtcdCluster) -> None:
    client = EtcdClient(cluster.clients, timeout_s=1.0)
    client.put("/k", "1")
    cluster.freeze(0)
    with pytest.raises(EtcdOutcomeUnknown, match="read the keys before trying again"):
        client.put("/k", "2")
    deadline = time.monotonic() + 10
    while True:
        try:
            assert client.get("/k") is not None
            break
        except EtcdUnavailable:
            assert time.monotonic() < deadline
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
