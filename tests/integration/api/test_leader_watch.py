"""A shard's new leader is heard of through a real etcd, also after etcd was away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from services.api.leader_watch import LeaderWatch
from services.api.settings import Settings
from services.api.shards import Shards
from services.breaker import PROBE_EVERY_S, State
from services.contracts.shards import leader_key
from services.coordination.etcd import EtcdClient
from services.featurestore.errors import ShardUnavailable, SlotMapError
from services.featurestore.pools import ShardPool
from tests.integration.api.platform import Platform
from tests.integration.api.test_replica import entity_on
from tests.integration.coordination.etcd_cluster import EtcdCluster
from tests.unit.api.models import until

pytestmark = pytest.mark.integration

ENVIRONMENT = "test"
SOON_S = 10.0


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


async def test_an_election_opens_the_way_to_a_shard_that_nothing_else_found(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the key in etcd to a write, through everything that a replica has in between."""

    async def in_vain(_pool: ShardPool, _opened: float) -> bool:
        return False

    monkeypatch.setattr(ShardPool, "_knock", in_vain)
    shards = Shards(Settings.model_validate(platform.settings(port=1, agent_port=1)))
    await shards.open()

    async def acknowledged() -> bool:
        entity = UUID(entity_on(0))
        try:
            await shards.store.write(entity, datetime.now(UTC), "UA", {}, idempotency_key=uuid4())
        except (ShardUnavailable, SlotMapError):
            return False
        return True

    async def soon_acknowledged() -> None:
        async with asyncio.timeout(SOON_S):
            while True:
                if await acknowledged():
                    return
                await asyncio.sleep(0.01)

    try:
        await soon_acknowledged()
        [breaker] = [each for each in shards.store.breakers() if each.name == "shard-0-write"]
        breaker.trip()
        for _ in range(3):
            assert not await acknowledged()
        await asyncio.to_thread(platform.etcd_client.put, leader_key(ENVIRONMENT, 1), "shard-1-0")
        await asyncio.sleep(2 * PROBE_EVERY_S)
        assert not await acknowledged()
        await asyncio.to_thread(platform.etcd_client.put, leader_key(ENVIRONMENT, 0), "shard-0-0")
        await soon_acknowledged()
        assert breaker.state is State.CLOSED
    finally:
        await shards.close()


async def test_only_elections_are(etcd: EtcdClient, elected: list[int]) -> None:
    etcd.put(leader_key(ENVIRONMENT, 0).replace("leader", "status"), "{}")
    etcd.put(leader_key("another", 0), "shard-0-1")
    etcd.put(leader_key(ENVIRONMENT, 7), "shard-7-0")
    etcd.delete(leader_key(ENVIRONMENT, 1))
    etcd.put(leader_key(ENVIRONMENT, 0), "shard-0-1")
    await until(lambda: elected)
    assert elected == [0]
