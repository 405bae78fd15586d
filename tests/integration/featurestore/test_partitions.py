"""Partitions made ahead, again without harm, and dropped behind the newest closed batch."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from services.contracts.shards import ShardEndpoints
from services.featurestore.partitions import drop_expired, ensure_partitions, months_between
from services.featurestore.sessions import session, transaction

pytestmark = pytest.mark.integration

Shards = tuple[ShardEndpoints, ShardEndpoints]


def test_only_missing_partitions_are_made(shards: Shards) -> None:
    year = months_between(date(2013, 1, 1), date(2014, 1, 1))
    assert ensure_partitions(shards, year) == 2 * 2 * 13
    assert ensure_partitions(shards, [*year, date(2014, 2, 28)]) == 2 * 2


def test_a_partition_holds_its_month_in_utc_whatever_the_session_says(shards: Shards) -> None:
    ensure_partitions(shards, [date(2013, 6, 1)])
    with session(shards[0], application_name="test") as connection:
        connection.execute("set timezone = 'Asia/Tokyo'")
        connection.execute("insert into entities (entity_id, segment) select gen_random_uuid(), 'UA'")
        for moment in ("2013-06-01 00:00+00", "2013-06-30 23:59:59.999999+00"):
            connection.execute(
                "insert into features (entity_id, event_time, feature_vector, idempotency_key) "
                "select entity_id, %s, '{}', gen_random_uuid() from entities",
                (moment,),
            )
        found = connection.execute("select count(*) from features_2013_06").fetchone()
    assert found == (2,)


def test_nothing_expires_without_a_closed_batch(shards: Shards) -> None:
    ensure_partitions(shards, [date(1999, 1, 1)])
    assert drop_expired(shards) == []


def test_what_lies_a_year_behind_the_newest_closed_batch_is_dropped(shards: Shards) -> None:
    ensure_partitions(shards, [date(2012, 12, 1), date(2013, 1, 1), date(2014, 1, 1)])
    with transaction(shards[1], application_name="test") as connection:
        connection.execute(
            "insert into batches (batch_id, source, label, closed_at, rows, first_event_time, last_event_time) "
            "values (1, 'test', 'closed', now(), 0, %(newest)s, %(newest)s), "
            "(2, 'test', 'open', null, 0, now(), now())",
            {"newest": datetime(2014, 1, 1, tzinfo=UTC)},
        )
    assert drop_expired(shards) == ["shard 1: features_2012_12", "shard 1: outcomes_2012_12"]
    assert drop_expired(shards) == []
