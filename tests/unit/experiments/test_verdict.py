"""Merging verdicts, judging a stored run again, and what is written for machines."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import checkers
from experiments.checkers.finding import Exhibit, Finding, Verdict, merge
from experiments.errors import RunFileError, ScenarioError
from experiments.junit import junit_xml
from experiments.verdict import judge_run, write_verdict
from tests.unit.experiments.judging import SHORT, judge_synthetic
from tests.unit.experiments.synthetic_run import Synthetic

verdicts = st.sampled_from(list(Verdict))


def _parsed(document: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(document)  # noqa: S314 - our own document


@given(verdicts, verdicts, verdicts)
def test_merging_is_associative_commutative_and_idempotent(a: Verdict, b: Verdict, c: Verdict) -> None:
    assert a.worse(b).worse(c) is a.worse(b.worse(c))
    assert a.worse(b) is b.worse(a)
    assert a.worse(a) is a


@given(st.lists(verdicts, min_size=1))
def test_the_worst_wins(listed: list[Verdict]) -> None:
    worst = next(verdict for verdict in (Verdict.FALSE, Verdict.UNKNOWN, Verdict.TRUE) if verdict in listed)
    assert merge(listed) is worst


def test_nothing_judged_is_nothing_known() -> None:
    assert merge([]) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("defects", "code"), [({}, 0), ({"lose": 1}, 1), ({"proven": False, "outage_s": 0, "read_outage_s": 0}, 2)]
)
def test_exit_codes(defects: dict[str, object], code: int) -> None:
    assert judge_synthetic(**defects).exit_code == code


def test_one_broken_promise_outweighs_any_doubt() -> None:
    assert judge_synthetic(lose=1, completed=False, journal=False).verdict is Verdict.FALSE


def test_a_stored_run_gets_the_same_verdict_each_time_and_none_of_its_files_changes(tmp_path: Path) -> None:
    run_dir = Synthetic(**SHORT).write(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run_dir.iterdir() if path.is_file()}

    first, second = judge_run(run_dir), judge_run(run_dir)

    assert first.to_json() == second.to_json()
    assert {path.name: path.read_bytes() for path in run_dir.iterdir() if path.is_file()} == before


def test_what_is_written_for_machines(tmp_path: Path) -> None:
    run_dir = Synthetic(**SHORT, lose=2).write(tmp_path / "run")
    judgement = judge_run(run_dir)

    write_verdict(run_dir, judgement)

    stored = json.loads((run_dir / "verdict.json").read_text())
    assert stored == json.loads(json.dumps(judgement.to_json()))
    assert (stored["verdict"], stored["exit_code"]) == ("false", 1)
    lost = next(promise for promise in stored["promises"] if promise["id"] == "lost-writes")
    assert (lost["value"], lost["target"], lost["verdict"]) == (2, 0, "false")
    suites = _parsed((run_dir / "junit.xml").read_bytes())
    assert suites.get("tests") == str(len(judgement.judged))
    assert (suites.get("failures"), suites.get("errors"), suites.get("skipped")) == ("1", "0", "0")
    (failure,) = suites.iter("failure")
    assert str(lost["evidence"][0]["rows"][0][0]) in (failure.text or "")


def test_unknown_is_a_junit_error() -> None:
    judgement = judge_synthetic(journal=False)
    suites = _parsed(junit_xml(judgement.to_json()))
    assert {error.get("type") for error in suites.iter("error")} == {"unknown"}
    assert int(suites.get("errors", "0")) == judgement.tally(Verdict.UNKNOWN) > 0


def test_junit_survives_characters_that_xml_cannot_hold() -> None:
    document = judge_synthetic(lose=1).to_json()
    document["promises"][0] |= {"reason": "bad \x00 byte", "verdict": "false"}
    document["promises"][0]["evidence"] = [
        {"title": "t\x1b", "columns": ["c"], "rows": [["\ud800", None]], "total": 1},
    ]
    _parsed(junit_xml(document))


@pytest.mark.parametrize("lost", ["history.arrow", "events.jsonl", "final.arrow", "journal.json"])
def test_a_run_without_one_of_its_files_is_unknown_and_says_which(tmp_path: Path, lost: str) -> None:
    run_dir = Synthetic(**SHORT).write(tmp_path / "run")
    (run_dir / lost).unlink()

    judgement = judge_run(run_dir)

    assert judgement.verdict is Verdict.UNKNOWN
    completed = judgement.of("run_completed")
    assert completed is not None
    assert lost in completed.reason


@pytest.mark.parametrize(("lost", "error"), [("run.json", RunFileError), ("scenario.json", ScenarioError)])
def test_a_directory_that_is_no_run_is_refused(tmp_path: Path, lost: str, error: type[Exception]) -> None:
    run_dir = Synthetic(**SHORT).write(tmp_path / "run")
    (run_dir / lost).unlink()
    with pytest.raises(error, match=lost):
        judge_run(run_dir)


def test_a_run_of_another_scenario_is_refused(tmp_path: Path) -> None:
    run_dir = Synthetic(**SHORT).write(tmp_path / "run")
    document = json.loads((run_dir / "scenario.json").read_text())
    document["extensions"][0]["id"] = "S-02"
    (run_dir / "scenario.json").write_text(json.dumps(document))
    with pytest.raises(ScenarioError, match="S-02"):
        judge_run(run_dir)


def test_a_checker_that_breaks_has_found_nothing_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Finding:
        raise ValueError("no such column")

    monkeypatch.setattr(checkers, "CHECKERS", {**checkers.CHECKERS, "lost_writes": broken})
    judgement = judge_run(Synthetic(**SHORT).write(tmp_path / "run"))

    lost = judgement.of("lost_writes")
    assert lost is not None
    assert lost.verdict is Verdict.UNKNOWN
    assert "no such column" in lost.reason
    next_ack = judgement.of("next_ack")
    assert next_ack is not None
    assert next_ack.verdict is Verdict.TRUE


def test_an_exhibit_says_how_much_it_leaves_out() -> None:
    found = next(e.finding for e in judge_synthetic(lose=30).judged if e.promise.id == "lost-writes")
    assert isinstance(found.evidence[0], Exhibit)
    assert len(found.evidence[0].rows) == 20
    assert found.evidence[0].total == 30
