"""`runs` and `compare` over stored runs, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from breakwater.history import compare_command, runs_command
from experiments.errors import RunFileError
from experiments.verdict import judge_run, write_verdict
from tests.unit.experiments.judging import SHORT
from tests.unit.experiments.synthetic_run import Synthetic

HOUR_NS = 3_600_000_000_000


def stored(out: Path, name: str, *, hours: int = 0, judged: bool = True, **changes: Any) -> Path:
    """A judged run that began `hours` after the first."""
    run = Synthetic(**{**SHORT, **changes}).write(out / name)
    record = json.loads((run / "run.json").read_text())
    record["wall_anchor"]["unix_ns"] += hours * HOUR_NS
    (run / "run.json").write_text(json.dumps(record))
    if judged:
        write_verdict(run, judge_run(run))
    return run


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six healthy runs, one slow one, one that loses writes."""
    directory = tmp_path_factory.mktemp("runs")
    for hours in range(6):
        stored(directory, f"good-{hours}", hours=hours, outage_s=0.24 + 0.004 * hours)
    stored(directory, "slow", hours=6, outage_s=1.4, promote_s=1.2, route_s=1.3)
    stored(directory, "lossy", hours=7, lose=2)
    (directory / "latest").symlink_to("lossy")
    return directory


def called(command: Any, *words: str) -> Result:
    return CliRunner().invoke(command, list(words), catch_exceptions=True)


def test_runs_are_listed_newest_first(out: Path) -> None:
    listed = json.loads(called(runs_command, "--out", str(out), "--json").output)
    assert [row["run"] for row in listed["runs"][:3]] == ["lossy", "slow", "good-5"]
    assert listed["runs"][0]["verdict"] == "false"
    assert listed["runs"][0]["not_true"] == ["lost-writes"]
    assert called(runs_command, "--out", str(out), "--scenario", "S-02", "--json").output.count('"run"') == 0


def test_the_table_says_the_same(out: Path) -> None:
    lines = called(runs_command, "--out", str(out)).output
    assert "lossy" in lines
    assert "latest" not in lines


def test_a_run_that_was_cut_off_is_listed_as_such(tmp_path: Path) -> None:
    stored(tmp_path, "cut", judged=False, completed=False)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "run.json").write_text("{}")
    answer = called(runs_command, "--out", str(tmp_path))
    assert "cut off" in answer.output
    assert "odd/run.json does not describe a run" in answer.output


def test_a_damaged_verdict_hides_no_run(tmp_path: Path) -> None:
    stored(tmp_path, "whole")
    (stored(tmp_path, "torn", hours=1) / "verdict.json").write_text("{")
    answer = called(runs_command, "--out", str(tmp_path))
    assert "torn" in answer.output
    assert "whole" in answer.output
    assert "judge it again" in answer.output


@pytest.mark.parametrize(
    ("run", "code", "change"), [("good-5", 0, "no change"), ("slow", 1, "regression"), ("lossy", 1, "regression")]
)
def test_a_run_is_compared_with_the_one_before_it(out: Path, run: str, code: int, change: str) -> None:
    answer = called(compare_command, str(out / run), "--baseline", str(out / "good-4"), "--json")
    assert answer.exit_code == code
    assert json.loads(answer.output)["change"] == change


def test_the_newest_earlier_run_is_the_baseline(out: Path) -> None:
    answer = called(compare_command, str(out / "slow"))
    assert answer.exit_code == 1
    assert "good-5" in answer.output
    assert "regression" in answer.output.splitlines()[-1]


def test_without_repeats_a_slower_run_cannot_be_told(tmp_path: Path) -> None:
    stored(tmp_path, "one")
    slow = stored(tmp_path, "two", hours=1, outage_s=1.4, promote_s=1.2, route_s=1.3)
    answer = called(compare_command, str(slow))
    assert answer.exit_code == 2
    assert "cannot tell" in answer.output


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("only",), "holds no earlier judged run of local S-01 server-killed"),
        (("only", "member"), "not comparable"),
        (("only", "raw"), "was not judged"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, names: tuple[str, ...], says: str) -> None:
    stored(tmp_path, "only")
    stored(tmp_path, "member", hours=1, variant="member-killed", outage_s=20.0, fault_s=25.0)
    stored(tmp_path, "raw", hours=2, judged=False)
    words = [str(tmp_path / names[0]), *(["--baseline", str(tmp_path / names[1])] if names[1:] else [])]
    answer = called(compare_command, *words)
    assert isinstance(answer.exception, RunFileError)
    assert says in str(answer.exception)
