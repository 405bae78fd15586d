"""Two servers as two shards for the whole session, a fresh database on each for every test, and an etcd."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
import uvloop

from services.contracts.shards import ShardEndpoints
from services.contracts.slots import SlotMap
from services.coordination.etcd import EtcdClient
from services.featurestore.migrate import apply
from services.featurestore.partitions import ensure_partitions, standing_months
from services.featurestore.slots import apply_slot_map
from tests.integration.coordination.etcd_cluster import EtcdCluster
from tests.integration.featurestore.servers import Postgres

TEMPLATE: Final = "features_template"
_numbers = itertools.count()


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The API's own event loop: giving up a connection and psycopg's waiting depend on it."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def servers() -> Iterator[tuple[Postgres, Postgres]]:
    """Two servers, each with a template database that owns half of the slots and takes this month's writes."""
    first, second = Postgres.create("shard-0-0"), Postgres.create("shard-1-0")
    make_templates(first, second)
    yield first, second
    first.destroy()
    second.destroy()


def make_templates(first: Postgres, second: Postgres) -> None:
    for server in (first, second):
        server.create_database(TEMPLATE)
    shards = first.endpoints(0, TEMPLATE), second.endpoints(1, TEMPLATE)
    apply(shards)
    ensure_partitions(shards, standing_months(datetime.now(UTC).date()))
    apply_slot_map(shards, SlotMap.even(2))


@pytest.fixture
def empty_shards(servers: tuple[Postgres, Postgres]) -> tuple[ShardEndpoints, ShardEndpoints]:
    """Two shards without any schema."""
    return fresh_shards(servers, "template1")


@pytest.fixture
def shards(servers: tuple[Postgres, Postgres]) -> tuple[ShardEndpoints, ShardEndpoints]:
    """Two shards that own half of the slots each, ready for this month's writes."""
    return fresh_shards(servers, TEMPLATE)


def fresh_shards(servers: tuple[Postgres, Postgres], template: str) -> tuple[ShardEndpoints, ShardEndpoints]:
    """Two shards in new databases, copies of `template`."""
    database = f"features_{next(_numbers)}"
    for server in servers:
        server.create_database(database, template)
    return servers[0].endpoints(0, database), servers[1].endpoints(1, database)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdClient]:
    directory: Path = tmp_path_factory.mktemp("etcd")
    with EtcdCluster(directory, 1) as cluster:
        client = EtcdClient(cluster.clients)
        yield client
        client.close()
