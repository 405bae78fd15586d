"""The training file: rows that keep the contract, month by month; the others are kept with their reason and counted."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.contracts.flights import FEATURES
from services.etl.errors import NoTrainingData
from services.etl.transform import Features, transform

VECTOR = {
    "month": 1, "day_of_week": 2, "departure_minute": 315, "arrival_minute": 499, "distance": 1400.0,
    "carrier": "UA", "origin": "EWR", "dest": "IAH",
}  # fmt: skip


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def write_cut(path: Path, rows: list[tuple[str, object]]) -> Path:
    path.write_text("".join(f"{seconds(time)}\te-{i}\t{i % 2}\t{json.dumps(v)}\n" for i, (time, v) in enumerate(rows)))
    return path


def transformed(directory: Path, rows: list[tuple[str, object]]) -> Features:
    cut = write_cut(directory / "cut.tsv", rows)
    return transform(cut, directory / "features.csv", directory / "rejected.jsonl")


def test_months_are_new_yorks_and_know_their_bytes(tmp_path: Path) -> None:
    features = transformed(
        tmp_path,
        [
            ("2013-01-01T10:00:00+00:00", VECTOR),
            ("2013-02-01T04:59:00+00:00", VECTOR),  # 23:59 on the last of January there
            ("2013-02-01T05:00:00+00:00", VECTOR),
        ],
    )
    assert [(month.label, month.rows) for month in features.months] == [("2013-01", 2), ("2013-02", 1)]
    content = (tmp_path / "features.csv").read_bytes()
    january, february = features.months
    assert (january.begin, january.end, february.end) == (features.header, february.begin, len(content))
    assert content[january.begin : january.end].count(b"\n") == 2
    assert february.first == february.last == datetime(2013, 2, 1, 5, tzinfo=UTC)
    [row, *_] = csv.DictReader(content.decode().splitlines())
    assert (row["carrier"], row["plane_year"], row["late"]) == ("UA", "", "0")
    assert tuple(row) == (*FEATURES, "late", "event_time")


def test_rows_that_break_the_contract_are_kept_whole_with_their_reason_and_counted(tmp_path: Path) -> None:
    broken = {**VECTOR, "month": 13}
    features = transformed(
        tmp_path,
        [
            ("2013-01-01T10:00:00+00:00", VECTOR),
            ("2013-01-02T10:00:00+00:00", broken),
            ("2013-01-03T10:00:00+00:00", {**VECTOR, "colour": "red"}),
            ("2013-01-04T10:00:00+00:00", {**VECTOR, "month": 13}),
        ],
    )
    assert features.rows == 1
    assert features.rejected == {
        "month: Input should be less than or equal to 12": 2,
        "colour: Extra inputs are not permitted": 1,
    }
    kept = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [line["entity_id"] for line in kept] == ["e-1", "e-2", "e-3"]
    assert json.loads(kept[0]["row"]) == broken
    assert kept[0]["event_time"] == "2013-01-02T10:00:00+00:00"


def test_a_month_of_broken_rows_only_is_no_month(tmp_path: Path) -> None:
    features = transformed(
        tmp_path, [("2013-01-01T10:00:00+00:00", VECTOR), ("2013-02-10T10:00:00+00:00", {"month": 2})]
    )
    assert [month.label for month in features.months] == ["2013-01"]
    assert sum(features.rejected.values()) == 1


def test_a_cut_of_broken_rows_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoTrainingData, match="all 1 rows of the cut break the contract"):
        transformed(tmp_path, [("2013-01-01T10:00:00+00:00", [])])
