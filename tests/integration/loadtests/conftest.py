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


@pytest.fixture
def server_directory() -> Iterator[Path]:
    """pytest's own directories are closed to other users; servers started by root need one of theirs."""
    directory = Path(tempfile.mkdtemp(prefix="breakwater-load-"))
    if os.geteuid() == 0:
        shutil.chown(directory, "postgres", "postgres")
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def server(server_directory: Path) -> Iterator[PostgresServer]:
    found = PostgresServer.fresh(server_directory, "shard-0-0")
    found.start()
    try:
        with found.connect("postgres") as connection:
            connection.execute(f"create database {DATABASE}")
        shards = [found.endpoints(0)]
        apply(shards)
        ensure_partitions(shards, [datetime.now(UTC).date(), datetime(2013, 1, 1, tzinfo=UTC).date()])
        with found.connect() as connection:
            owned = SlotMap.even(1)
            connection.execute(
                "insert into owned_slots select slot, %s from generate_series(0, 1023) slot", (owned.generation,)
            )
        yield found
    finally:
        found.stop()
