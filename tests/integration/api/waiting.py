"""What tests of replicas wait for: a condition, and sessions of a shard that wait themselves."""

from __future__ import annotations

import time
from typing import Any

import psycopg


def wait_until(condition: Any, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.02)


def waiting_for_locks(connection: psycopg.Connection) -> int:
    return _backends(connection, "Lock")


def waiting_for_standby(connection: psycopg.Connection) -> int:
    return _backends(connection, "IPC")


def _backends(connection: psycopg.Connection, wait: str) -> int:
    row = connection.execute(
        "select count(*) from pg_stat_activity where wait_event_type = %s and usename = 'breakwater_app'", [wait]
    ).fetchone()
    assert row is not None
    return int(row[0])
