"""Monthly partitions of features and outcomes: made ahead, and dropped when 12 months behind the newest batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Final

import psycopg
from psycopg import sql

from services.contracts.shards import ShardEndpoints
from services.featurestore.sessions import LOCK_TIMEOUT_MS, transaction

PARTITIONED: Final = ("features", "outcomes")
APPLICATION: Final = "breakwater-partitions"
MONTHS_BEHIND: Final = 1
"""Writes for last month still arrive after its end."""
MONTHS_AHEAD: Final = 3
"""A forgotten job is noticed long before a write finds no partition."""
RETENTION_MONTHS: Final = 12
"""Kept behind the newest closed batch, not behind today: old data that is loaded now must not vanish at once."""
MONTHS_PER_YEAR: Final = 12


def month_after(month: date, months: int = 1) -> date:
    """First day of the month that lies `months` after (before, when negative) this one."""
    index = month.year * MONTHS_PER_YEAR + month.month - 1 + months
    return date(index // MONTHS_PER_YEAR, index % MONTHS_PER_YEAR + 1, 1)


def months_between(first: date, last: date) -> list[date]:
    """First days of the months from `first`'s to `last`'s, both included."""
    month = first.replace(day=1)
    months: list[date] = []
    while month <= last:
        months.append(month)
        month = month_after(month)
    return months


def standing_months(today: date) -> list[date]:
    """The months that live writes need now and soon."""
    return months_between(month_after(today, -MONTHS_BEHIND), month_after(today, MONTHS_AHEAD))


def ensure_partitions(shards: Sequence[ShardEndpoints], months: Iterable[date]) -> int:
    """Make the partitions that are missing on each shard; returns how many were made. Safe to repeat at any time."""
    wanted = sorted({month.replace(day=1) for month in months})
    made = 0
    for shard in shards:
        with transaction(shard, application_name=APPLICATION) as connection:
            connection.execute(f"set local lock_timeout = {LOCK_TIMEOUT_MS}")
            existing = _existing(connection)
            for table in PARTITIONED:
                for month in wanted:
                    if (name := f"{table}_{month:%Y_%m}") not in existing:
                        connection.execute(
                            sql.SQL(
                                "create table if not exists {} partition of {} for values from ({}) to ({})"
                            ).format(
                                sql.Identifier(name),
                                sql.Identifier(table),
                                sql.Literal(_midnight(month).isoformat()),
                                sql.Literal(_midnight(month_after(month)).isoformat()),
                            )
                        )
                        made += 1
    return made


def drop_expired(shards: Sequence[ShardEndpoints]) -> list[str]:
    """Drop partitions wholly older than the retention behind the newest closed batch; returns `shard 0: name` each.

    Without a closed batch nothing is dropped.
    """
    dropped: list[str] = []
    for shard in shards:
        with transaction(shard, application_name=APPLICATION) as connection:
            connection.execute(f"set local lock_timeout = {LOCK_TIMEOUT_MS}")
            row = connection.execute("select max(last_event_time) from batches where closed_at is not null").fetchone()
            if row is None or row[0] is None:
                continue
            for name in expired(_existing(connection), row[0].astimezone(UTC)):
                connection.execute(sql.SQL("drop table {}").format(sql.Identifier(name)))
                dropped.append(f"shard {shard.shard}: {name}")
    return dropped


def expired(names: Iterable[str], newest: datetime) -> list[str]:
    """The partitions whose month ended at least the retention before `newest`'s month began."""
    oldest_kept = month_after(newest.date().replace(day=1), -RETENTION_MONTHS)
    return sorted(name for name in names if name[-7:] < f"{oldest_kept:%Y_%m}")


def _existing(connection: psycopg.Connection) -> set[str]:
    rows = connection.execute(
        "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid "
        "where i.inhparent = any(%s::regclass[])",
        [list(PARTITIONED)],
    ).fetchall()
    return {str(name) for (name,) in rows}


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
