"""The feature store's two shards, empty and with two months of flights."""

from __future__ import annotations

import pytest

from services.contracts.shards import ShardEndpoints
from services.etl.flights import LoadReport
from tests.integration.etl.loading import Content, content, load
from tests.integration.featurestore.conftest import TEMPLATE, fresh_shards, servers, shards
from tests.integration.featurestore.servers import Postgres

__all__ = ["servers", "shards"]


@pytest.fixture(scope="session")
def undisturbed(servers: tuple[Postgres, Postgres]) -> tuple[str, LoadReport, Content]:
    """The database that one undisturbed load filled, what that load reported, and what it left."""
    shards = fresh_shards(servers, TEMPLATE)
    report = load(shards)
    return shards[0].dbname, report, content(shards)


@pytest.fixture
def loaded(
    servers: tuple[Postgres, Postgres], undisturbed: tuple[str, LoadReport, Content]
) -> tuple[ShardEndpoints, ShardEndpoints]:
    """Two shards that hold the two months."""
    return fresh_shards(servers, undisturbed[0])
