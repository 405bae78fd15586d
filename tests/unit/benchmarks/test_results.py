"""Rows say where they come from, and files only grow."""

from __future__ import annotations

from pathlib import Path

from benchmarks import contest, results, vectors
from tests.unit.benchmarks.test_judged import result


def test_rows_are_added_below_one_header(tmp_path: Path) -> None:
    path = tmp_path / "speed.csv"
    where = dict.fromkeys(results.MACHINE, "x")
    rows = results.contest_rows([result("ours", "ours", 5_000, 5)], where)
    results.append(path, results.CONTEST, rows)
    results.append(path, results.CONTEST, rows)
    header, first, second = path.read_text().splitlines()
    assert header.startswith("day,commit,machine,versions,server,round")
    assert first == second


def test_versions_come_from_the_lock_files() -> None:
    assert "mlserver 1.7.1" in results.peer_versions()
    assert not [line for line in results.peer_versions() if "unknown" in line]


def test_the_machine_has_a_name() -> None:
    assert results.cpu_name("processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\n") == "Fast CPU @ 3 GHz"


def test_every_form_of_answer_is_understood() -> None:
    answers = {
        "named": {"probability": 0.5},
        "bare": {"probability": 0.5},
        "v2": {"outputs": [{"data": [0.5]}]},
        "inputs": {"predictions": [0.5]},
        "rows": [0.5],
    }
    assert set(answers) == set(vectors.FORMS)
    assert {contest.probability(form, answer) for form, answer in answers.items()} == {0.5}
