"""One platform for the package; every test gets it with an empty registry cache and everything up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from services.h2o.train import TrainedModel
from tests.integration.api.platform import Platform, Replica
from tests.integration.api.redis_server import RedisServer


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory, genmodel_jar: Path) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("platform"), genmodel_jar) as platform:
        yield platform


@pytest.fixture(scope="module")
def replica(platform: Platform, trained: Mapping[str, TrainedModel]) -> Iterator[Replica]:
    """A ready replica that serves v1."""
    platform.registry.publish(trained["v1"])
    with Replica(platform) as replica:
        replica.wait_for("/readyz")
        yield replica


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A cache of the test's own."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.close()
