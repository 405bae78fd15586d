"""Fixtures: a PostgreSQL server with the feature store's tables, in a directory that its user can enter."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.contracts.slots import SlotMap
from services.featurestore.migrate import apply
from services.featurestore.partitions import ensure_partitions
from tests.integration.loadtests.postgres_server import DATABASE, PostgresServer


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresServer]:
    """One server for a module's tests, in a directory of its own: pytest's are closed to the user that it runs as."""
    directory = Path(tempfile.mkdtemp(prefix="breakwater-load-"))
    if os.geteuid() == 0:
        shutil.chown(directory, "postgres", "postgres")
    directory.chmod(0o755)
    found = PostgresServer.fresh(directory, "shard-0-0")
    try:
        yield found
    finally:
        found.stop()
        shutil.rmtree(directory)


@pytest.fixture
def server(cluster: PostgresServer) -> PostgresServer:
    """The module's server, running, with fresh tables and every slot its own."""
    if not cluster.running:
        cluster.start()
    with cluster.connect("postgres") as connection:
        connection.execute(f"drop database if exists {DATABASE} with (force)")
        connection.execute(f"create database {DATABASE}")
    shards = [cluster.endpoints(0)]
    apply(shards)
    ensure_partitions(shards, [datetime.now(UTC).date(), datetime(2013, 1, 1, tzinfo=UTC).date()])
    with cluster.connect() as connection:
        owned = SlotMap.even(1)
        connection.execute(
            "insert into owned_slots select slot, %s from generate_series(0, 1023) slot", (owned.generation,)
        )
    return cluster
