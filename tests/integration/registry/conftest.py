"""One Postgres and one etcd for the package; a database, an environment and a store of its own for every test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.coordination.etcd import EtcdClient
from services.featurestore.migrate import apply
from services.registry import ArtifactStore, PublishedModels
from services.registry.reconciler import ReconcilerConfig
from services.registry.registry import MIGRATIONS, ModelRegistry
from tests.integration.coordination.etcd_cluster import EtcdCluster, free_ports
from tests.integration.featurestore.servers import Postgres
from tests.integration.registry.models import MODEL

TEMPLATE = "registry_template"
_numbers = itertools.count()


@pytest.fixture(scope="package")
def postgres() -> Iterator[Postgres]:
    server = Postgres.create("shard-0-0")
    server.create_database(TEMPLATE)
    apply([server.endpoints(0, TEMPLATE)], migrations=MIGRATIONS)
    yield server
    server.destroy()


@pytest.fixture(scope="package")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), 1) as cluster:
        yield cluster


@pytest.fixture
def config(postgres: Postgres, etcd: EtcdCluster, tmp_path: Path) -> ReconcilerConfig:
    number = next(_numbers)
    postgres.create_database(f"registry_{number}", TEMPLATE)
    [port] = free_ports(1)
    return ReconcilerConfig(
        environment=f"test-{number}",
        member="registry-0",
        host="127.0.0.1",
        status_port=port,
        etcd=tuple(etcd.clients),
        database=postgres.endpoints(0, f"registry_{number}"),
        artifacts=str(tmp_path / "artifacts"),
        directory=tmp_path,
    )


@pytest.fixture
def client(etcd: EtcdCluster) -> Iterator[EtcdClient]:
    client = EtcdClient(etcd.clients)
    yield client
    client.close()


@pytest.fixture
def registry(config: ReconcilerConfig, client: EtcdClient) -> ModelRegistry:
    return ModelRegistry(config.database, client, config.environment, ArtifactStore(config.artifacts))


@pytest.fixture
def published(config: ReconcilerConfig, client: EtcdClient, tmp_path: Path) -> PublishedModels:
    """What a replica sees."""
    return PublishedModels(client, config.environment, MODEL, ArtifactStore(config.artifacts), tmp_path / "replica")
