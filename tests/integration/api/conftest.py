"""One platform for the package; every test gets it with an empty registry cache and everything up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from services.h2o.train import TrainedModel
from tests.integration.api.edge import Edge
from tests.integration.api.pair import Pair
from tests.integration.api.platform import Platform, Replica
from tests.integration.api.redis_server import RedisServer
from tests.integration.api.waiting import wait_until


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


@pytest.fixture(scope="module")
def pair(
    request: pytest.FixtureRequest,
    platform: Platform,
    trained: Mapping[str, TrainedModel],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    """Two ready replicas that serve v1, in an environment that is named after the module."""
    environment = request.module.__name__.rpartition(".test_")[2]
    pair = Pair(platform, tmp_path_factory.mktemp("pair"), trained, environment)
    try:
        pair.registry.publish(trained["v1"])  # before the first replica is up: nobody to ask
        for name in ("api-0", "api-1"):
            pair.start(name).wait_for("/readyz")
        wait_until(lambda: len(pair.current("api-0")["replicas"]) == 2)
        yield pair
    finally:
        pair.close()


@pytest.fixture(scope="module")
def edge(
    platform: Platform, trained: Mapping[str, TrainedModel], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edge]:
    """Two ready replicas that serve v1, behind the real edge."""
    platform.registry.publish(trained["v1"])
    with Edge(platform, tmp_path_factory.mktemp("edge"), chaos=True) as edge:
        yield edge
