"""Controls: the defect stands where it must, the way back is there, and disagreements are seen and only they."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
from pathlib import Path

import pytest

from experiments.checkers.finding import Exhibit, Finding, Verdict
from experiments.controls.catalogue import (
    ACTIONS,
    CONTROLS,
    TIMED_NAMES,
    Control,
    Insertion,
    beside,
    disagreements,
    seeded,
)
from experiments.evidence import JOURNAL_FILE
from experiments.lint import problems
from experiments.scenario import SCENARIO_FILE, Scenario
from experiments.verdict import Judged, Judgement, judge_run
from tests.unit.experiments.judging import SHORT, judge_synthetic
from tests.unit.experiments.synthetic_run import SCENARIO, Synthetic

S01 = Scenario.read(SCENARIO)
BY_ID = {own.breakwater.id: own for own in map(Scenario.read, SCENARIO.parent.glob("*.yaml"))}
BY_NAME = {control.name: control for control in CONTROLS}


def names(scenario: Scenario) -> list[str]:
    return [activity.name for activity in scenario.method]


def placed(*insertions: Insertion) -> Scenario:
    return seeded(S01, Control("unit", "a test's own", insertions, {}, 1))


@pytest.mark.parametrize("at", range(len(S01.method)))
def test_an_action_goes_before_after_or_instead_of_the_activity_that_it_names(at: int) -> None:
    where = S01.method[at].name
    original = names(S01)
    assert names(placed(Insertion("before", where, "a_defect", {}))) == [
        *original[:at], "a defect", *original[at:]
    ]  # fmt: skip
    assert names(placed(Insertion("after", where, "a_defect", {}))) == [
        *original[: at + 1], "a defect", *original[at + 1 :]
    ]  # fmt: skip
    instead = placed(Insertion("instead", where, "a_defect", {"x": 1}))
    assert names(instead) == original
    assert instead.method[at].provider.func == "a_defect"
    assert instead.method[at].provider.arguments == {"x": 1}


def test_several_insertions_keep_their_places() -> None:
    both = placed(Insertion("before", "kill the primary", "one", {}), Insertion("after", "kill the primary", "two", {}))
    at = names(both).index("kill the primary")
    assert names(both)[at - 1 : at + 2] == ["one", "kill the primary", "two"]


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_seeding_leaves_the_scenario_and_its_promises_untouched(control: Control) -> None:
    scenario = BY_ID[control.scenario]
    before = scenario.model_dump_json()
    changed = seeded(scenario, control)
    assert scenario.model_dump_json() == before
    assert changed.breakwater == scenario.breakwater
    assert changed.method != scenario.method
    assert problems(changed) == []


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_the_way_back_is_added_to_the_rollbacks_and_none_is_lost(control: Control) -> None:
    scenario = BY_ID[control.scenario]
    rollbacks = seeded(scenario, control).rollbacks
    assert rollbacks[: len(scenario.rollbacks)] == scenario.rollbacks
    assert [entry.provider.func for entry in rollbacks[len(scenario.rollbacks) :]] == [func for func, _ in control.undo]


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_a_control_names_what_exists(control: Control) -> None:
    module = importlib.import_module(ACTIONS)
    for func in [*(insertion.func for insertion in control.insertions), *(func for func, _ in control.undo)]:
        assert callable(getattr(module, func))
    scenario = BY_ID[control.scenario]
    assert set(control.expected) | set(control.minimum) | control.may <= {
        promise.id for promise in scenario.promises_of(control.variant)
    }
    assert control.may.isdisjoint(control.expected)
    checkers = {promise.id: promise.checker for promise in scenario.promises_of(control.variant)}
    assert TIMED_NAMES.isdisjoint(checkers[promise] for promise in control.may), "may be false anyway"
    assert Scenario.parse(seeded(scenario, control).document(), "seeded") == seeded(scenario, control)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with something to find, of the scenario as its file has it."""
    return Synthetic(**SHORT, lose=3, stale=2).write(tmp_path_factory.mktemp("stored") / "run")


@pytest.mark.parametrize(
    "control", [c for c in CONTROLS if (c.scenario, c.variant) == ("S-01", "server-killed")], ids=lambda c: c.name
)
def test_the_verdict_is_the_same_whether_or_not_a_run_names_its_control(
    control: Control, stored: Path, tmp_path: Path
) -> None:
    named = tmp_path / "controls" / control.name
    shutil.copytree(stored, named)
    scenario = seeded(S01, control).document()
    (named / SCENARIO_FILE).write_text(json.dumps(scenario))
    journal = json.loads((named / JOURNAL_FILE).read_text())
    actions = [entry for entry in scenario["method"] if entry["provider"]["module"] == ACTIONS]
    journal["experiment"] = scenario
    journal["run"] = [{**done, "activity": actions[at % len(actions)]} for at, done in enumerate(journal["run"])]
    (named / JOURNAL_FILE).write_text(json.dumps(journal))
    verdict = judge_run(named).to_json()
    assert verdict["verdict"] == "false"
    assert verdict == judge_run(stored).to_json()


def judged(**findings: Finding) -> Judgement:
    """A kept run whose named promises were judged otherwise."""
    whole = judge_synthetic()
    changed = {name.replace("_", "-"): finding for name, finding in findings.items()}
    entries = tuple(Judged(entry.promise, changed.get(entry.promise.id, entry.finding)) for entry in whole.judged)
    return dataclasses.replace(whole, judged=entries)


def said(verdict: Verdict, value: float | None = None, *rows: tuple[int, ...]) -> Finding:
    shown = (Exhibit("lost", ("key",), rows, len(rows)),)
    return Finding(value, 0, verdict, 1, "writes", "a test's reason", shown)


def test_a_suite_that_detects_the_defect_agrees() -> None:
    lost = said(Verdict.FALSE, 1, (7,))
    assert disagreements(BY_NAME["deleted-row"], judged(lost_writes=lost)) == []


def test_a_suite_that_sees_nothing_disagrees_in_verdict_size_exit_code_and_key() -> None:
    wrong = disagreements(BY_NAME["deleted-row"], judged(lost_writes=said(Verdict.TRUE, 0)))
    assert wrong == [
        "lost-writes is true, must be false: a test's reason",
        "lost-writes measured 0, must be at least 1",
        "exit code 0, must be 1",
        "no lost key is named",
    ]


def test_a_defect_found_too_small_disagrees() -> None:
    few = said(Verdict.FALSE, 3, (1,), (2,), (3,))
    assert disagreements(BY_NAME["asynchronous"], judged(lost_writes=few)) == [
        "lost-writes measured 3, must be at least 50"
    ]


def test_a_loss_without_a_number_or_a_key_disagrees() -> None:
    assert disagreements(BY_NAME["deleted-row"], judged(lost_writes=said(Verdict.FALSE))) == [
        "lost-writes measured None, must be at least 1",
        "no lost key is named",
    ]


def test_unknown_is_not_false_and_false_is_not_unknown() -> None:
    unproven = judged(fault_proven=said(Verdict.FALSE), next_ack=said(Verdict.UNKNOWN))
    assert disagreements(BY_NAME["no-fault"], unproven) == [
        "fault-proven is false, must be unknown: a test's reason",
        "exit code 1, must be 2",
    ]


def test_a_promise_that_the_defect_does_not_break_must_not_be_broken() -> None:
    control = dataclasses.replace(BY_NAME["deleted-row"], expected={"predictions": Verdict.FALSE}, minimum={})
    both = judged(
        predictions=said(Verdict.FALSE, 1, (7,)), timelines=said(Verdict.FALSE), redundancy=said(Verdict.UNKNOWN)
    )
    assert disagreements(control, both) == ["timelines is false, which the defect does not explain: a test's reason"]
    assert disagreements(dataclasses.replace(control, may=frozenset({"timelines"})), both) == []


def test_what_depends_on_time_may_be_broken_beside_the_defect_and_is_shown() -> None:
    slow = said(Verdict.FALSE, 1)
    lost = said(Verdict.FALSE, 1, (7,))
    found = judged(lost_writes=lost, predictions=slow, old_primary=slow)
    assert disagreements(BY_NAME["deleted-row"], found) == []
    assert [entry.promise.id for entry in beside(BY_NAME["deleted-row"], found)] == ["predictions", "old-primary"]
    sound = dataclasses.replace(
        BY_NAME["deleted-row"], expected={"lost-writes": Verdict.FALSE, "predictions": Verdict.TRUE}
    )
    assert disagreements(sound, found) == []
    assert [entry.promise.id for entry in beside(sound, found)] == ["predictions", "old-primary"]
    # What the defect must break is the question itself, and what no machine explains is none of this.
    asked = dataclasses.replace(
        sound, expected={"predictions": Verdict.FALSE}, minimum={}, may=frozenset({"lost-writes"})
    )
    assert [entry.promise.id for entry in beside(asked, found)] == ["old-primary"]
    undetected = disagreements(sound, judged(predictions=slow))
    assert undetected[0].startswith("lost-writes is true, must be false: every one of")
    assert undetected[1:] == [
        "lost-writes measured 0, must be at least 1",
        "exit code 0, must be 1",
        "no lost key is named",
    ]


def test_a_broken_promise_beside_it_does_not_stand_for_a_run_that_must_prove_nothing() -> None:
    found = judged(fault_proven=said(Verdict.UNKNOWN), next_ack=said(Verdict.UNKNOWN), predictions=said(Verdict.FALSE))
    assert disagreements(BY_NAME["no-fault"], found) == []
    found = judged(next_ack=said(Verdict.UNKNOWN), predictions=said(Verdict.FALSE))
    assert disagreements(BY_NAME["no-fault"], found)[0].startswith("fault-proven is true, must be unknown")


def test_what_makes_a_run_unknown_is_named_beside_its_exit_code() -> None:
    control = dataclasses.replace(BY_NAME["deleted-row"], expected={}, minimum={}, names_key=False)
    assert disagreements(control, judged(redundancy=said(Verdict.UNKNOWN))) == [
        "exit code 2, must be 1; redundancy is unknown: a test's reason"
    ]
