"""How long an order has waited, by tables of Mage's shape in a real Postgres."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from services.etl.mage_runs import PIPELINE, idle_s
from services.featurestore.sessions import session
from tests.integration.featurestore.servers import Postgres

pytestmark = pytest.mark.integration

TABLES = """
    create table pipeline_run (
        id serial primary key, pipeline_uuid text not null, status text not null, created_at timestamptz not null,
        started_at timestamptz, completed_at timestamptz, updated_at timestamptz
    );
    create table block_run (
        id serial primary key, pipeline_run_id int not null references pipeline_run, status text not null,
        created_at timestamptz not null, started_at timestamptz, completed_at timestamptz
    );
"""


@pytest.fixture(scope="module")
def database(servers: tuple[Postgres, Postgres]) -> Iterator[psycopg.Connection]:
    servers[0].create_database("mage_shaped")
    with session(servers[0].endpoints(0, "mage_shaped"), application_name="test") as connection:
        connection.execute(TABLES)
        yield connection


@pytest.fixture
def connection(database: psycopg.Connection) -> psycopg.Connection:
    database.execute("truncate block_run, pipeline_run")
    return database


def run(
    connection: psycopg.Connection, status: str, *, created: float, ended: float | None = None, updated: float = 0
) -> int:
    """A run; all times are seconds ago."""
    row = connection.execute(
        "insert into pipeline_run (pipeline_uuid, status, created_at, completed_at, updated_at) "
        "values (%s, %s, now() - %s * interval '1 s', now() - %s::float * interval '1 s', now() - %s * interval '1 s') "
        "returning id",
        (PIPELINE, status, created, ended, updated or created),
    ).fetchone()
    assert row is not None
    return int(row[0])


def block(connection: psycopg.Connection, of: int, status: str, *, created: float, ended: float | None = None) -> None:
    connection.execute(
        "insert into block_run (pipeline_run_id, status, created_at, completed_at) "
        "values (%s, %s, now() - %s * interval '1 s', now() - %s::float * interval '1 s')",
        (of, status, created, ended),
    )


def test_nothing_is_ordered(connection: psycopg.Connection) -> None:
    assert idle_s(connection) == 0
    run(connection, "COMPLETED", created=500, ended=400)
    assert idle_s(connection) == 0


def test_an_order_that_nothing_keeps_from_beginning_waits_from_its_own_time(connection: psycopg.Connection) -> None:
    run(connection, "INITIAL", created=40)
    assert idle_s(connection) == pytest.approx(40, abs=1)


def test_an_order_behind_a_run_waits_for_nobody_while_that_runs(connection: psycopg.Connection) -> None:
    before = run(connection, "RUNNING", created=60)
    block(connection, before, "RUNNING", created=50)
    run(connection, "INITIAL", created=40)
    assert idle_s(connection) == 0


@pytest.mark.parametrize(("ended", "waits"), [(0.2, 0.2), (30, 30)])
def test_once_that_has_ended_the_order_waits_from_its_end(
    connection: psycopg.Connection, ended: float, waits: float
) -> None:
    before = run(connection, "COMPLETED", created=60, ended=ended)
    block(connection, before, "COMPLETED", created=50, ended=ended)
    run(connection, "INITIAL", created=40)
    assert idle_s(connection) == pytest.approx(waits, abs=1)


def test_a_run_that_failed_has_no_end_but_its_last_change(connection: psycopg.Connection) -> None:
    before = run(connection, "FAILED", created=60, updated=5)
    block(connection, before, "FAILED", created=50)
    run(connection, "INITIAL", created=40)
    assert idle_s(connection) == pytest.approx(5, abs=1)


def test_a_run_between_two_blocks_waits_from_the_end_of_the_first(connection: psycopg.Connection) -> None:
    under_way = run(connection, "RUNNING", created=60)
    block(connection, under_way, "COMPLETED", created=50, ended=20)
    block(connection, under_way, "INITIAL", created=60)
    assert idle_s(connection) == pytest.approx(20, abs=1)
