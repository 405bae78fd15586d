"""A shard's new leader is heard of through a real etcd, also after etcd was away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.api.leader_watch import LeaderWatch
from services.contracts.shards import leader_key
from services.coordination.etcd import EtcdClient
from tests.integration.coordination.etcd_cluster import EtcdCluster
from tests.unit.api.models import until

pytestmark = pytest.mark.integration

ENVIRONMENT = "test"


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdClient]:
    with EtcdCluster(tmp_path, 1) as cluster:
        client = EtcdClient(cluster.clients)
        yield client
        client.close()


@pytest.fixture
async def elected(etcd: EtcdClient) -> AsyncIterator[list[int]]:
    """The shards that had an election, once the watch is known to be there."""
    heard: list[int] = []
    watch = LeaderWatch(etcd, ENVIRONMENT, [0, 1], heard.append)
    watch.start()

    def seen() -> bool:
        etcd.put(leader_key(ENVIRONMENT, 1), "shard-1-0")
        return bool(heard)

    await until(seen)
    await asyncio.sleep(0.05)
    heard.clear()
    yield heard
    await asyncio.to_thread(watch.stop)


async def test_an_election_is_told_with_its_shard(etcd: EtcdClient, elected: list[int]) -> None:
    etcd.put(leader_key(ENVIRONMENT, 0), "shard-0-1")
    await until(lambda: elected)
    assert elected == [0]


async def test_only_elections_are(etcd: EtcdClient, elected: list[int]) -> None:
    etcd.put(leader_key(ENVIRONMENT, 0).replace("leader", "status"), "{}")
    etcd.put(leader_key("another", 0), "shard-0-1")
    etcd.put(leader_key(ENVIRONMENT, 7), "shard-7-0")
    etcd.delete(leader_key(ENVIRONMENT, 1))
    etcd.put(leader_key(ENVIRONMENT, 0), "shard-0-1")
    await until(lambda: elected)
    assert elected == [0]
