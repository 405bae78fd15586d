"""The training cut: closed batches only, split by time, the same files from the same batches."""

from __future__ import annotations

import csv
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from services.contracts.flights import FEATURES
from services.contracts.shards import ShardEndpoints
from services.etl.errors import NoTrainingData
from services.etl.source import months_of_flights, read_source
from services.etl.training import TrainingCut, export_training_csv
from services.featurestore.sessions import transaction

pytestmark = pytest.mark.integration

Shards = tuple[ShardEndpoints, ShardEndpoints]
SPLIT = date(2013, 2, 15)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def cut_of(shards: Shards, directory: Path) -> TrainingCut:
    directory.mkdir()
    return export_training_csv(shards, directory, SPLIT)


def test_everything_with_an_outcome_is_on_its_side_of_the_split(loaded: Shards, tmp_path: Path) -> None:
    arrived = [row for month in months_of_flights(read_source(), (1, 2)) for row in month.rows if row.late is not None]
    boundary = datetime(2013, 2, 15, tzinfo=UTC)
    before = [row for row in arrived if row.event_time < boundary]

    cut = cut_of(loaded, tmp_path / "cut")
    assert (cut.train_rows, cut.test_rows) == (len(before), len(arrived) - len(before))
    assert cut.rows == len(arrived)
    assert cut.max_train < boundary <= cut.min_test
    assert cut.max_train == max(row.event_time for row in before)
    assert len(cut.batches) == 2

    train = read(cut.train_csv)
    assert tuple(train[0]) == (*FEATURES, "late", "event_time")
    assert len(train) == cut.train_rows
    assert sum(row["late"] == "1" for row in train) == sum(row.late is True for row in before)
    assert {row["late"] for row in train} == {"0", "1"}
    assert datetime.fromisoformat(train[-1]["event_time"]) == cut.max_train
    assert {row["month"] for row in train} == {"1", "2"}
    assert any(row["plane_year"] == "" for row in train), "missing is empty"


def test_every_shard_says_that_it_was_read_in_one_snapshot(loaded: Shards, tmp_path: Path) -> None:
    witnesses = cut_of(loaded, tmp_path / "cut").snapshots
    assert [witness.shard for witness in witnesses] == [0, 1]
    assert {witness.isolation for witness in witnesses} == {"repeatable read"}
    assert all(witness.begin == witness.end for witness in witnesses)


def test_the_same_batches_give_the_same_files(loaded: Shards, tmp_path: Path) -> None:
    first, second = cut_of(loaded, tmp_path / "first"), cut_of(loaded, tmp_path / "second")
    assert first.train_csv.read_bytes() == second.train_csv.read_bytes()
    assert first.test_csv.read_bytes() == second.test_csv.read_bytes()


def test_a_batch_that_one_shard_has_not_closed_is_left_out(loaded: Shards, tmp_path: Path) -> None:
    whole = cut_of(loaded, tmp_path / "whole")
    with transaction(loaded[1], application_name="test") as connection:
        connection.execute("update batches set closed_at = null where label = '2013-01'")
    part = cut_of(loaded, tmp_path / "part")
    assert len(part.batches) == 1
    assert {row["month"] for row in read(part.train_csv)} == {"2"}
    assert part.test_rows == whole.test_rows


def test_a_split_that_leaves_one_side_empty_is_refused(loaded: Shards, tmp_path: Path) -> None:
    with pytest.raises(NoTrainingData, match="both sides need some"):
        export_training_csv(loaded, tmp_path, date(2013, 6, 1))


def test_without_a_closed_batch_there_is_nothing_to_learn_from(shards: Shards, tmp_path: Path) -> None:
    with pytest.raises(NoTrainingData, match="0 closed batches"):
        export_training_csv(shards, tmp_path, SPLIT)
