"""The stores' tests again, on servers in containers: only where a Docker engine answers and has their images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException, ImageNotFound
from testcontainers.core.config import testcontainers_config

from services.featurestore.migrate import apply
from services.registry.registry import MIGRATIONS
from tests.integration.containers.servers import (
    POSTGRES_IMAGE,
    REDIS_IMAGE,
    ContainerPostgres,
    ContainerRedis,
)
from tests.integration.featurestore.conftest import (
    empty_shards,
    make_templates,
    pytest_asyncio_loop_factories,
    shards,
)
from tests.integration.registry.conftest import TEMPLATE, client, config, etcd, published, registry

__all__ = [
    "client",
    "config",
    "empty_shards",
    "etcd",
    "published",
    "pytest_asyncio_loop_factories",
    "registry",
    "shards",
]


@pytest.fixture(scope="session")
def engine() -> None:
    """Skips what needs it where there is none; a skipped test is no evidence, and the gate counts it as unknown."""
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        pytest.skip(f"Testcontainers: no Docker engine answers ({error})")
    for image in (POSTGRES_IMAGE, REDIS_IMAGE):
        if not _has(client, image):
            if image.startswith("localhost/"):
                pytest.skip(f"Testcontainers: the engine has no image {image}; `make images` makes it")
            client.images.pull(image)
    # every container ends by itself, so the one that would end them is not missed where it cannot be had
    testcontainers_config.ryuk_disabled = not _has(client, testcontainers_config.ryuk_image)
    client.close()


def _has(client: docker.DockerClient, image: str) -> bool:
    try:
        client.images.get(image)
    except ImageNotFound:
        return False
    return True


@pytest.fixture(scope="package")
def servers(engine: None) -> Iterator[tuple[ContainerPostgres, ContainerPostgres]]:
    first, second = ContainerPostgres.create("shard-0-0"), ContainerPostgres.create("shard-1-0")
    make_templates(first, second)
    yield first, second
    first.destroy()
    second.destroy()


@pytest.fixture(scope="package")
def postgres(servers: tuple[ContainerPostgres, ContainerPostgres]) -> ContainerPostgres:
    """The registry's: the first shard's server, as on the platform."""
    server = servers[0]
    server.create_database(TEMPLATE)
    apply([server.endpoints(0, TEMPLATE)], migrations=MIGRATIONS)
    return server


@pytest.fixture
def redis(engine: None, tmp_path: Path) -> Iterator[ContainerRedis]:
    server = ContainerRedis(tmp_path / "redis")
    server.start()
    yield server
    server.close()
