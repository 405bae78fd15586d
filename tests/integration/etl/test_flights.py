"""Loading real flights into two real shards: once, twice, killed half-way, and onto a shard that gave up slots."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from services.contracts.shards import ShardEndpoints
from services.contracts.slots import SlotMap, slot_of
from services.etl.flights import LoadReport
from services.etl.source import months_of_flights, read_source
from services.featurestore.errors import NotOwner
from services.featurestore.sessions import session, transaction
from services.featurestore.slots import apply_slot_map
from tests.integration.etl.loading import MONTHS, Content, content, load

pytestmark = pytest.mark.integration

Shards = tuple[ShardEndpoints, ShardEndpoints]
Undisturbed = tuple[str, LoadReport, Content]
SECOND_BATCH_S = 20.0
"""Longest wait for the second batch to be under way."""


def test_a_load_stores_what_was_published_and_a_second_one_changes_nothing(
    loaded: Shards, undisturbed: Undisturbed
) -> None:
    months = list(months_of_flights(read_source(), MONTHS))
    rows = [row for month in months for row in month.rows]
    _, report, stored = undisturbed
    assert report.rows == len(rows) == 51_955
    assert report.entities == len({row.entity_id for row in rows})
    assert report.outcomes == sum(row.late is not None for row in rows)
    assert report.rejected == {"wind_speed: outside 0 to 254": 1}

    assert sum(count for count, _ in stored["features"]) == len(rows)
    assert sum(count for count, _ in stored["entities"]) == report.entities
    assert sum(count for count, _ in stored["outcomes"]) == report.outcomes
    assert [count for count, _ in stored["rejected_rows"]] == [1, 0]

    assert replace(load(loaded), seconds=report.seconds) == report
    assert content(loaded) == stored

    row = rows[123]
    with session(loaded[SlotMap.even(2).shard_of(row.entity_id)], application_name="test") as connection:
        found = connection.execute(
            "select feature_vector, late, arr_delay_min from features join outcomes using (entity_id, event_time) "
            "where entity_id = %s and event_time = %s",
            (row.entity_id, row.event_time),
        ).fetchone()
    assert found == (orjson.loads(row.vector), row.late, row.arr_delay_min)


def test_a_load_that_was_killed_and_run_again_ends_the_same(
    shards: Shards, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    files = [tmp_path / f"{shard.shard}.json" for shard in shards]
    for file, shard in zip(files, shards, strict=True):
        file.write_text(shard.model_dump_json())
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.etl.loading", *map(str, files)], stdout=subprocess.PIPE
    ) as loader:
        assert loader.stdout is not None
        assert loader.stdout.readline(), "the first batch is in"
        _wait_for_second_batch(shards)
        loader.kill()
    halfway = content(shards)
    assert sum(count for count, _ in halfway["features"]) < 51_955

    load(shards)
    assert content(shards) == undisturbed[2]


def test_a_shard_that_gave_up_a_slot_stops_the_load_and_no_batch_is_closed(
    shards: Shards, undisturbed: Undisturbed
) -> None:
    row = next(iter(months_of_flights(read_source(), MONTHS))).rows[0]
    slot = slot_of(row.entity_id)
    shard = SlotMap.even(2).shard_of(row.entity_id)
    with transaction(shards[shard], application_name="test") as connection:
        connection.execute("delete from owned_slots where slot = %s", (slot,))
    with pytest.raises(NotOwner) as caught:
        load(shards)
    assert (caught.value.shard, caught.value.slot) == (shard, slot)
    for each in shards:
        with session(each, application_name="test") as connection:
            closed = connection.execute("select count(*) from batches where closed_at is not null").fetchone()
        assert closed == (0,)

    apply_slot_map(shards, SlotMap.even(2))
    load(shards)
    assert content(shards) == undisturbed[2]


def _wait_for_second_batch(shards: Shards) -> None:
    """Until a session is at work on the second batch: its transaction is open and its rows are invisible yet."""
    deadline = time.monotonic() + SECOND_BATCH_S
    with session(shards[0], application_name="test") as connection:
        while time.monotonic() < deadline:
            busy = connection.execute(
                "select 1 from pg_stat_activity where application_name = 'breakwater-etl' and xact_start is not null "
                "and query like '%insert into features%'"
            ).fetchone()
            if busy is not None:
                return
            time.sleep(0.01)
    raise TimeoutError(f"no second batch within {SECOND_BATCH_S} s")
