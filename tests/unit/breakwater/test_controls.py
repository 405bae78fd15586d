"""`breakwater controls` shows each promise that a control names, and keeps it as a row."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from breakwater import verification
from breakwater.cli import cli
from breakwater.rows import CONTROL_COLUMNS, append_control
from breakwater.verification import ControlResult, Finished
from experiments.controls.catalogue import CONTROLS, disagreements
from tests.unit.experiments.judging import judge_synthetic

ROOT = Path(__file__).resolve().parents[3]
BY_NAME = {control.name: control for control in CONTROLS}


def result(name: str, **defects: Any) -> ControlResult:
    """A control whose run was this one."""
    judgement = judge_synthetic(**defects)
    finished = Finished(Path("runs/unit"), judgement, Path("runs/unit/report.html"))
    return ControlResult(BY_NAME[name], finished, disagreements(BY_NAME[name], judgement))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_each_promise_that_a_control_names_becomes_a_row_under_one_header(tmp_path: Path) -> None:
    path = tmp_path / "results" / "controls.csv"
    append_control(path, result("deleted-row", lose=1))
    append_control(path, result("reads-without-bound"))
    first, *others = rows(path)
    assert tuple(first) == CONTROL_COLUMNS
    assert first == {
        **{"day": "2026-11-21", "commit": "3f9c2ab", "control": "deleted-row", "promise": "lost-writes"},
        **{"must_be": "false", "is": "false", "measured": "1", "target": "== 0 writes", "detected": "yes"},
    }
    assert [row["promise"] for row in others] == list(BY_NAME["reads-without-bound"].expected)
    assert (others[0]["must_be"], others[0]["is"], others[0]["measured"]) == ("false", "true", "0")
    assert {row["detected"] for row in others} == {"no"}, "what is as it must be does not make a control detected"


def test_what_was_broken_beside_the_defect_is_a_row_that_decides_nothing(tmp_path: Path) -> None:
    append_control(tmp_path / "controls.csv", result("deleted-row", lose=1, frozen_s=(1, 2)))
    said = {row["promise"]: (row["must_be"], row["is"], row["detected"]) for row in rows(tmp_path / "controls.csv")}
    assert said["lost-writes"] == ("false", "false", "yes")
    assert said["predictions"] == ("any", "false", "yes")


def test_what_was_not_measured_stays_empty(tmp_path: Path) -> None:
    append_control(tmp_path / "controls.csv", result("no-fault", proven=False, outage_s=0))
    kept = {row["promise"]: row for row in rows(tmp_path / "controls.csv")}
    assert (kept["next-ack"]["is"], kept["next-ack"]["measured"]) == ("unknown", "")


@pytest.mark.parametrize(
    ("defects", "code", "says"),
    [
        ({"lose": 1}, 0, ["1 of 1 defects detected"]),
        ({}, 1, ["lost-writes is true, must be false", "0 of 1 defects detected"]),
    ],
)
def test_the_command_shows_them_and_ends_as_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defects: dict[str, Any], code: int, says: list[str]
) -> None:
    def run(environment: str, names: tuple[str, ...], **given: Any) -> list[ControlResult]:
        done: Callable[[ControlResult], None] = given["done"]
        done(found := result(*names, **defects))
        return [found]

    monkeypatch.setenv("BREAKWATER_PROJECT", str(ROOT))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(verification, "controls", run)
    said = CliRunner().invoke(cli, ["controls", "local", "deleted-row", "--rows", str(tmp_path / "kept")])
    seen = "false" if defects else "true"
    assert said.exit_code == code, said.output
    assert re.search(rf"acknowledged writes lost +{len(defects)} +0 +is {seen} +must be false", said.output)
    assert all(words in said.output for words in says)
    assert [row["is"] for row in rows(tmp_path / "kept" / "controls.csv")] == [seen]
