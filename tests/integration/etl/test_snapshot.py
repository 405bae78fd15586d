"""The cut: closed batches only, as of one moment on all shards, the same file from the same batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from services.contracts.flights import FlightFeatures
from services.contracts.shards import ShardEndpoints
from services.etl import snapshot
from services.etl.errors import NoTrainingData
from services.etl.source import months_of_flights, read_source
from services.etl.transform import transform
from services.featurestore.sessions import transaction

pytestmark = pytest.mark.integration

Shards = tuple[ShardEndpoints, ShardEndpoints]


def test_the_cut_has_every_flight_with_an_outcome_in_the_order_of_time(loaded: Shards, tmp_path: Path) -> None:
    arrived = [row for month in months_of_flights(read_source(), (1, 2)) for row in month.rows if row.late is not None]
    cut = snapshot.take(loaded, tmp_path / "cut.tsv")
    lines = [line.split("\t") for line in (tmp_path / "cut.tsv").read_text().splitlines()]
    assert (cut.rows, len(cut.batches)) == (len(arrived), 2)
    assert len(lines) == len(arrived)
    times = [int(line[0]) for line in lines]
    assert times == sorted(times) == sorted(int(row.event_time.timestamp()) for row in arrived)
    assert sum(line[2] == "1" for line in lines) == sum(row.late is True for row in arrived)
    FlightFeatures.model_validate(json.loads(lines[0][3]))

    features = transform(tmp_path / "cut.tsv", tmp_path / "features.csv", tmp_path / "rejected.jsonl")
    assert [month.label for month in features.months] == ["2013-01", "2013-02"]
    assert (features.rows, features.rejected) == (len(arrived), {})


def test_every_shard_says_that_it_was_read_in_one_snapshot(loaded: Shards, tmp_path: Path) -> None:
    witnesses = snapshot.take(loaded, tmp_path / "cut.tsv").snapshots
    assert [witness.shard for witness in witnesses] == [0, 1]
    assert {witness.isolation for witness in witnesses} == {"repeatable read"}
    assert all(witness.begin == witness.end for witness in witnesses)


def test_the_same_batches_give_the_same_file(loaded: Shards, tmp_path: Path) -> None:
    first, second = (snapshot.take(loaded, tmp_path / name) for name in ("first", "second"))
    assert (first.rows, first.batches) == (second.rows, second.batches)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_batch_that_one_shard_has_not_closed_is_left_out(loaded: Shards, tmp_path: Path) -> None:
    with transaction(loaded[1], application_name="test") as connection:
        connection.execute("update batches set closed_at = null where label = '2013-01'")
    cut = snapshot.take(loaded, tmp_path / "cut.tsv")
    assert len(cut.batches) == 1
    features = transform(tmp_path / "cut.tsv", tmp_path / "features.csv", tmp_path / "rejected.jsonl")
    assert [month.label for month in features.months] == ["2013-02"]


def test_writes_while_the_cut_is_taken_do_not_change_it(
    loaded: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows change, go and come, and a batch is closed, after the snapshots are there and before a row is read."""
    undisturbed = snapshot.take(loaded, tmp_path / "undisturbed")
    read = snapshot._examples
    changed: list[int] = []

    def write_first(connection: psycopg.Connection, batches: set[int]) -> Iterator[snapshot.Example]:
        if not changed:
            for shard in loaded:
                with transaction(shard, application_name="test") as writer:
                    writer.execute("update outcomes set late = not late")
                    writer.execute("delete from features where event_time < '2013-01-05'")
                    changed.append(writer.execute("update features set feature_vector = '{}'").rowcount)
        yield from read(connection, batches)

    monkeypatch.setattr(snapshot, "_examples", write_first)
    disturbed = snapshot.take(loaded, tmp_path / "disturbed")
    assert len(changed) == 2
    assert min(changed) > 1000
    assert (disturbed.rows, disturbed.batches) == (undisturbed.rows, undisturbed.batches)
    assert (tmp_path / "disturbed").read_bytes() == (tmp_path / "undisturbed").read_bytes()


def test_a_stored_row_that_breaks_the_contract_is_kept_with_its_reason(loaded: Shards, tmp_path: Path) -> None:
    with transaction(loaded[0], application_name="test") as connection:
        connection.execute(
            "update features set feature_vector = feature_vector || jsonb_build_object('month', 'soon') "
            "where (entity_id, event_time) in "
            "(select entity_id, event_time from outcomes order by event_time, entity_id limit 3)"
        )
    cut = snapshot.take(loaded, tmp_path / "cut.tsv")
    features = transform(tmp_path / "cut.tsv", tmp_path / "features.csv", tmp_path / "rejected.jsonl")
    [(reason, count)] = features.rejected.items()
    assert reason.startswith("month: Input should be a valid integer")
    assert (count, features.rows) == (3, cut.rows - 3)
    assert len((tmp_path / "rejected.jsonl").read_text().splitlines()) == 3


def test_without_a_closed_batch_there_is_nothing_to_learn_from(shards: Shards, tmp_path: Path) -> None:
    with pytest.raises(NoTrainingData, match="0 closed batches"):
        snapshot.take(shards, tmp_path / "cut.tsv")
