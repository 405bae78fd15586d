"""The etcd client's promises against one real server."""

import threading
import time
from collections.abc import Iterator

import pytest

from services.coordination.etcd import (
    Compare,
    Delete,
    EtcdClient,
    EtcdError,
    EtcdUnavailable,
    Get,
    HistoryCompacted,
    LeaseGone,
    Put,
)
from tests.integration.coordination.etcd_cluster import EtcdCluster, followed, free_ports, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), 1) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: EtcdCluster) -> Iterator[EtcdClient]:
    client = EtcdClient(cluster.clients)
    yield client
    client.close()


def test_a_key_is_written_read_and_deleted(client: EtcdClient) -> None:
    revision = client.put("/t/one", "größe")
    kv = client.get("/t/one")
    assert kv is not None
    assert (kv.value, kv.mod_revision, kv.version, kv.lease) == ("größe", revision, 1, 0)
    client.put("/t/two", "2")
    client.put("/tx", "outside")
    assert [kv.key for kv in client.get_prefix("/t/")] == ["/t/one", "/t/two"]
    assert client.delete("/t/one") is True
    assert client.delete("/t/one") is False
    assert client.get("/t/one") is None


def test_a_transaction_happens_whole_or_not_at_all(client: EtcdClient) -> None:
    lease = client.grant_lease(30)
    revision = client.put("/txn/leader", "a", lease=lease)
    same = [
        Compare("/txn/leader", "value", "a"),
        Compare("/txn/leader", "lease", lease),
        Compare("/txn/leader", "mod_revision", revision),
        Compare("/txn/other", "create_revision", 0),
    ]
    for wrong in (
        Compare("/txn/leader", "value", "b"),
        Compare("/txn/leader", "lease", lease + 1),
        Compare("/txn/leader", "mod_revision", revision - 1),
        Compare("/txn/leader", "version", 2),
        Compare("/txn/other", "create_revision", 0, "greater"),
    ):
        refused = client.transact([*same, wrong], [Delete("/txn/leader")], [Get("/txn/leader")])
        assert not refused.succeeded
        assert refused.results[0].kvs[0].value == "a"
    done = client.transact(same, [Delete("/txn/leader"), Put("/txn/other", "x")])
    assert done.succeeded
    assert done.results[0].deleted == 1
    assert client.get("/txn/leader") is None
    other = client.get("/txn/other")
    assert other is not None
    assert other.mod_revision == done.revision
    client.revoke_lease(lease)


def test_a_lease_takes_its_keys_with_it(client: EtcdClient) -> None:
    lease = client.grant_lease(30)
    client.put("/lease/key", "x", lease=lease)
    assert client.keep_alive(lease) == 30
    client.revoke_lease(lease)
    client.revoke_lease(lease)
    assert client.get("/lease/key") is None
    with pytest.raises(LeaseGone, match="grant a new one"):
        client.keep_alive(lease)
    with pytest.raises(LeaseGone):
        client.put("/lease/key", "x", lease=lease)


def test_a_watch_replays_from_a_revision_and_then_follows(client: EtcdClient) -> None:
    first = client.put("/watch/a", "1")
    client.put("/watch/b", "2")
    client.delete("/watch/a")
    with followed(client, "/watch/", prefix=True, start_revision=first) as seen:
        client.put("/watch/end", "last")
        wait_for(seen, "last")
    assert [(event.kind, event.kv.key) for event in seen] == [
        ("put", "/watch/a"),
        ("put", "/watch/b"),
        ("delete", "/watch/a"),
        ("put", "/watch/end"),
    ]
    assert [event.revision for event in seen] == list(range(first, first + 4))


def test_a_key_that_has_not_changed_for_long_is_followed_from_where_it_was_read(
    client: EtcdClient, cluster: EtcdCluster
) -> None:
    assert client.get_at("/old/none")[0] is None
    written = client.put("/old/key", "1")
    cluster.forget()
    with pytest.raises(HistoryCompacted, match="oldest revision left"):
        next(client.watch("/old/key", start_revision=written, stop=threading.Event()))
    found, revision = client.get_at("/old/key")
    assert found is not None
    assert (found.value, found.mod_revision) == ("1", written)
    assert revision > written
    with followed(client, "/old/key", start_revision=revision + 1) as seen:
        client.put("/old/key", "2")
        wait_for(seen, "2")
    assert len(seen) == 1


def test_a_watch_of_what_never_changes_says_when_its_history_is_forgotten(
    client: EtcdClient, cluster: EtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.coordination.etcd.WATCH_IDLE_S", 0.3)
    _, revision = client.get_at("/old/idle")
    watching = client.watch("/old/idle", start_revision=revision + 1, stop=threading.Event())
    forgetting = threading.Timer(0.5, cluster.forget)
    forgetting.start()
    with pytest.raises(HistoryCompacted):
        next(watching)
    forgetting.join()


def test_a_watch_ends_when_told(client: EtcdClient) -> None:
    stop = threading.Event()
    follower = threading.Thread(target=lambda: list(client.watch("/nothing", stop=stop)))
    follower.start()
    try:
        time.sleep(0.3)
        assert follower.is_alive()
    finally:
        stop.set()
    follower.join(timeout=5)
    assert not follower.is_alive()


def test_a_refused_request_is_an_error_and_not_an_outage(client: EtcdClient) -> None:
    with pytest.raises(EtcdError, match="was refused") as caught:
        client.put("", "no key")
    assert not isinstance(caught.value, EtcdUnavailable)


def test_nobody_there_is_unavailable() -> None:
    client = EtcdClient([f"http://127.0.0.1:{port}" for port in free_ports(2)], timeout_s=0.5)
    with pytest.raises(EtcdUnavailable, match="check that etcd has a quorum"):
        client.put("/k", "v")
    client.close()
