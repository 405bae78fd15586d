"""Every run becomes one row: what was measured stands in it, what was not stays empty."""

from __future__ import annotations

import csv
from pathlib import Path

from breakwater.rows import COLUMNS, append, row
from tests.unit.experiments.judging import judge_synthetic


def test_a_good_run_gives_its_figures() -> None:
    found = row(judge_synthetic())
    assert set(found) == set(COLUMNS)
    assert (found["verdict"], found["lost"], found["not_true"]) == ("true", 0, "")
    layers = [found[f"{name}_ms"] for name in ("detect", "promote", "route", "client")]
    next_ack_s = found["next_ack_s"]
    assert isinstance(next_ack_s, float)
    assert abs(sum(layer for layer in layers if isinstance(layer, int | float)) - next_ack_s * 1000) < 1


def test_what_was_not_measured_stays_empty() -> None:
    found = row(judge_synthetic(proven=False))
    assert found["verdict"] == "unknown"
    assert (found["next_ack_s"], found["detect_ms"], found["streaming_again_s"]) == (None, None, None)
    assert "fault-proven" in str(found["not_true"]).split()


def test_rows_are_appended_under_one_header(tmp_path: Path) -> None:
    path = tmp_path / "results" / "S-01.csv"
    append(path, judge_synthetic())
    append(path, judge_synthetic(proven=False))
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [entry["verdict"] for entry in rows] == ["true", "unknown"]
    assert rows[1]["next_ack_s"] == ""
