"""Two servers as two shards for the whole session, a fresh database on each for every test, and an etcd."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.contracts.shards import ShardEndpoints
from services.contracts.slots import SlotMap
from services.coordination.etcd import EtcdClient
from services.featurestore.migrate import apply
from services.featurestore.partitions import ensure_partitions, standing_months
from services.featurestore.slots import apply_slot_map
from tests.integration.coordination.etcd_cluster import EtcdCluster
from tests.integration.featurestore.servers import Postgres

_numbers = itertools.count()


@pytest.fixture(scope="session")
def servers() -> Iterator[tuple[Postgres, Postgres]]:
    first, second = Postgres.create("shard-0-0"), Postgres.create("shard-1-0")
    yield first, second
    first.destroy()
    second.destroy()


@pytest.fixture
def empty_shards(servers: tuple[Postgres, Postgres]) -> tuple[ShardEndpoints, ShardEndpoints]:
    """Two shards without any schema."""
    database = f"features_{next(_numbers)}"
    for server in servers:
        server.create_database(database)
    return servers[0].endpoints(0, database), servers[1].endpoints(1, database)


@pytest.fixture
def shards(empty_shards: tuple[ShardEndpoints, ShardEndpoints]) -> tuple[ShardEndpoints, ShardEndpoints]:
    """Two shards that own half of the slots each, ready for this month's writes."""
    apply(empty_shards)
    ensure_partitions(empty_shards, standing_months(datetime.now(UTC).date()))
    apply_slot_map(empty_shards, SlotMap.even(2))
    return empty_shards


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdClient]:
    directory: Path = tmp_path_factory.mktemp("etcd")
    with EtcdCluster(directory, 1) as cluster:
        client = EtcdClient(cluster.clients)
        yield client
        client.close()
