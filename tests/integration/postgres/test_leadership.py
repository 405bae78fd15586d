"""Giving a leadership back, against a real etcd: exactly what was seen is deleted, or nothing is."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from services.coordination.etcd import EtcdClient, KeyValue
from services.postgres.leadership import (
    Leadership,
    LeadershipWatch,
    Refused,
    Released,
    ScopeKeys,
    Undecided,
    read,
    release,
)
from tests.integration.coordination.etcd_cluster import EtcdCluster, free_ports

pytestmark = pytest.mark.integration

KEYS = ScopeKeys.of("/breakwater/test/patroni/", "shard-7", "shard-7-1")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), 1) as servers:
        yield servers


@pytest.fixture
def client(servers: EtcdCluster) -> Iterator[EtcdClient]:
    client = EtcdClient(servers.clients)
    yield client
    for kv in client.get_prefix(KEYS.prefix):
        client.delete(kv.key)
    client.close()


@pytest.fixture
def seen(client: EtcdClient) -> Leadership:
    """The member leads, as Patroni writes it: leader key and member key under one lease."""
    lease = client.grant_lease(60)
    client.put(KEYS.leader, "shard-7-1", lease=lease)
    client.put(KEYS.member, '{"role":"primary"}', lease=lease)
    client.put(KEYS.config, json.dumps({"ttl": 20}))
    return read(client, KEYS)[0]


def leader(client: EtcdClient) -> KeyValue | None:
    return client.get(KEYS.leader)


def test_keys_are_where_patroni_puts_them() -> None:
    assert KEYS.leader == "/breakwater/test/patroni/shard-7/leader"
    assert KEYS.member == "/breakwater/test/patroni/shard-7/members/shard-7-1"
    assert ScopeKeys.of("service", "s", "m").leader == "/service/s/leader"


def test_both_keys_go_in_one_step(client: EtcdClient, seen: Leadership) -> None:
    outcome = release(client, KEYS, seen, sent_before=False)
    assert isinstance(outcome, Released)
    assert leader(client) is None
    assert client.get(KEYS.member) is None
    assert client.get(KEYS.config) is not None
    assert outcome.revision == read(client, KEYS)[1]


def test_member_key_that_was_rewritten_by_the_same_patroni_goes_too(client: EtcdClient, seen: Leadership) -> None:
    assert seen.leader is not None
    client.put(KEYS.member, '{"role":"primary","xlog_location":4711}', lease=seen.leader.lease)
    assert isinstance(release(client, KEYS, seen, sent_before=False), Released)
    assert client.get(KEYS.member) is None


def test_member_key_that_is_gone_does_not_matter(client: EtcdClient, seen: Leadership) -> None:
    client.delete(KEYS.member)
    assert isinstance(release(client, KEYS, seen, sent_before=False), Released)
    assert leader(client) is None


@pytest.mark.parametrize(
    ("value", "new_lease", "reason"),
    [
        ("shard-7-2", False, "leader_value_changed"),
        ("shard-7-1", True, "leader_lease_changed"),
        ("shard-7-1", False, "leader_mod_revision_changed"),
    ],
)
def test_another_leadership_is_left_alone(
    client: EtcdClient, seen: Leadership, value: str, new_lease: bool, reason: str
) -> None:
    assert seen.leader is not None
    lease = client.grant_lease(60) if new_lease else seen.leader.lease
    client.put(KEYS.leader, value, lease=lease)
    before = client.get_prefix(KEYS.prefix)
    outcome = release(client, KEYS, seen, sent_before=True)
    assert isinstance(outcome, Refused)
    assert outcome.reason == reason
    assert client.get_prefix(KEYS.prefix) == before


def test_a_new_patroni_of_the_member_is_left_alone(client: EtcdClient, seen: Leadership) -> None:
    client.put(KEYS.member, "{}", lease=client.grant_lease(60))
    before = client.get_prefix(KEYS.prefix)
    outcome = release(client, KEYS, seen, sent_before=False)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "member_lease_changed"
    assert client.get_prefix(KEYS.prefix) == before


@pytest.mark.parametrize("config", ['{"pause": true}', "not json"])
def test_a_paused_cluster_is_left_alone_and_so_is_one_that_cannot_be_read(
    client: EtcdClient, seen: Leadership, config: str
) -> None:
    client.put(KEYS.config, config)
    outcome = release(client, KEYS, seen, sent_before=False)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "maintenance"
    assert leader(client) == seen.leader


def test_a_key_that_ran_out_is_not_claimed_as_our_doing(client: EtcdClient, seen: Leadership) -> None:
    client.delete(KEYS.leader)
    outcome = release(client, KEYS, seen, sent_before=False)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "leader_key_gone"
    assert client.get(KEYS.member) is not None
    assert release(client, KEYS, seen, sent_before=True) == Released(0), "an earlier deletion was not answered"


def test_what_was_never_seen_is_not_given_back(client: EtcdClient, seen: Leadership) -> None:
    assert isinstance(release(client, KEYS, replace(seen, leader=None), sent_before=False), Refused)
    assert leader(client) == seen.leader


def test_etcd_away_leaves_it_undecided() -> None:
    nobody = EtcdClient([f"http://127.0.0.1:{free_ports(1)[0]}"], timeout_s=0.3)
    kv = KeyValue(KEYS.leader, "shard-7-1", 5, 5, 1, 77)
    outcome = release(nobody, KEYS, Leadership(kv, None, False), sent_before=False)
    assert isinstance(outcome, Undecided)
    assert outcome.sent is False


def test_forgotten_history_is_no_outage(
    client: EtcdClient, servers: EtcdCluster, seen: Leadership, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.coordination.etcd.WATCH_IDLE_S", 0.3)
    away: list[Exception] = []
    watch = LeadershipWatch(EtcdClient(servers.clients), KEYS, away.append)
    watch.start()
    wait_for(watch, seen)
    servers.forget()
    time.sleep(1.0)  # it is silent, so the watch was opened again
    client.delete(KEYS.leader)
    wait_for(watch, replace(seen, leader=None))
    watch.stop()
    assert away == []


def wait_for(watch: LeadershipWatch, view: Leadership) -> None:
    deadline = time.monotonic() + 10
    while watch.view != view:
        assert time.monotonic() < deadline, f"{watch.view} is not {view}"
        time.sleep(0.01)


def test_the_watch_follows_who_leads_and_whether_it_is_paused(
    client: EtcdClient, servers: EtcdCluster, seen: Leadership
) -> None:
    away: list[Exception] = []
    watch = LeadershipWatch(EtcdClient(servers.clients), KEYS, away.append)
    watch.start()
    wait_for(watch, seen)
    watch.acknowledge()
    client.put(KEYS.config, '{"pause": true}')
    wait_for(watch, replace(seen, maintenance=True))
    client.put(KEYS.config, "{}")
    client.delete(KEYS.member)
    client.put(KEYS.leader, "shard-7-2")
    wait_for(watch, Leadership(leader(client), None, False))
    client.delete(KEYS.leader)
    wait_for(watch, Leadership(None, None, False))
    watch.stop()
    assert away == []
