"""Who may act for the cloud, on a real etcd and without any H2O node: one keeper, another soon after it is gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.contracts.events import EventLog, read_events
from services.coordination.etcd import EtcdClient
from services.h2o.cloud import NodeAddress
from services.h2o.cluster import H2OCluster
from services.h2o.decision import Process
from services.h2o.errors import ClusterUnavailable, StateUnreadable
from services.h2o.keeper import ELECTION_TTL_S, Keeper
from services.h2o.state import Epoch, Keys, Report, StateWatch, read
from tests.integration.coordination.etcd_cluster import EtcdCluster, free_ports
from tests.integration.h2o.nodes import wait_until

pytestmark = pytest.mark.integration

KEYS = Keys.of("test")


class Candidate:
    """A keeper of two nodes that do not exist, in a thread."""

    def __init__(self, name: str, etcd: EtcdCluster, directory: Path) -> None:
        [port] = free_ports(1)
        nodes = [NodeAddress(name=node, host="127.0.0.1", port=port) for node in ("h2o-0", "h2o-1")]
        self.events = directory / f"{name}.jsonl"
        self._watch = StateWatch(EtcdClient(etcd.clients), KEYS)
        self.keeper = Keeper(name, nodes, EtcdClient(etcd.clients), self._watch, EventLog(self.events))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.keeper.run, args=(self._stop,))
        self._watch.start()
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        self._watch.stop()

    def said(self, kind: str) -> int:
        return sum(event.kind == kind for event in read_events(self.events))


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path / "etcd", 1) as cluster:
        yield cluster


def test_one_keeper_at_a_time_and_its_word_goes_with_it(etcd: EtcdCluster, tmp_path: Path) -> None:
    client = EtcdClient(etcd.clients)
    first = Candidate("h2o-0", etcd, tmp_path)
    second = None
    try:
        wait_until(lambda: read(client, KEYS).status is not None, 10.0, "the first is elected and speaks")
        second = Candidate("h2o-1", etcd, tmp_path)
        epoch = read(client, KEYS).epoch
        assert epoch is not None
        assert (epoch.generation, epoch.reason) == (1, "first")
        with pytest.raises(ClusterUnavailable, match=r"bw-1 is forming \(agent_away h2o-0\)"):
            H2OCluster(client, "test").wait_whole(timeout_s=0.0)
        assert (first.keeper.elected, second.keeper.elected) == (True, False)
        # The agents of both nodes say that their JVMs ended: whoever is elected raises the epoch, once.
        for node in ("h2o-0", "h2o-1"):
            client.put(KEYS.report(node), Report(generation=1, process=Process.EXITED).to_json())
        wait_until(lambda: H2OCluster(client, "test").generation() == 2, 5.0, "the epoch is raised")
        assert (first.said("raised"), second.said("raised")) == (2, 0)
        first.end()
        wait_until(lambda: second is not None and second.keeper.elected, ELECTION_TTL_S + 2.0, "the other takes over")
        wait_until(lambda: (word := read(client, KEYS).status) is None or word.keeper == "h2o-1", 5.0, "it speaks")
        assert H2OCluster(client, "test").generation() == 2
    finally:
        first.end()
        if second is not None:
            second.end()
    assert read(client, KEYS).status is None, "a word does not outlive its keeper"
    assert read(client, KEYS).keeper is None


def test_a_key_of_another_release_is_named_and_nothing_is_done(etcd: EtcdCluster, tmp_path: Path) -> None:
    client = EtcdClient(etcd.clients)
    client.put(KEYS.epoch, '{"schema": 2}')
    keeper = Candidate("h2o-0", etcd, tmp_path)
    try:
        wait_until(lambda: keeper.said("state_unreadable"), 10.0, "the keeper says so")
        with pytest.raises(StateUnreadable, match="run one release only"):
            _ = read(client, KEYS).epoch
        client.put(KEYS.epoch, Epoch(generation=5, reason="first", failures=0, raised_at=0.0).to_json())
        wait_until(lambda: read(client, KEYS).status is not None, 5.0, "it goes on")
    finally:
        keeper.end()
