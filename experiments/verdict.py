"""The verdict over a stored run: every promise judged from its files alone, with the same answer each time."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from experiments.checkers import checker_named
from experiments.checkers.finding import Finding, Verdict, merge, unknown
from experiments.checkers.recovery import Recovery, recovery_of
from experiments.errors import RunFileError, ScenarioError
from experiments.evidence import Evidence, load_evidence
from experiments.history import History
from experiments.junit import junit_xml
from experiments.record import RunRecord
from experiments.scenario import SCENARIO_FILE, Promise, Scenario

VERDICT_FILE: Final = "verdict.json"
JUNIT_FILE: Final = "junit.xml"

EXIT_CODES: Final = {Verdict.TRUE: 0, Verdict.FALSE: 1, Verdict.UNKNOWN: 2}
"""0 valid, 1 a promise was broken, 2 unknown; 3 (preflight or usage) is an ExperimentError."""

RUN_COMPLETED: Final = Promise(
    id="run-completed",
    title="the run went to its end",
    why="What a run that was cut off did not come to may have gone wrong.",
    checker="run_completed",
    target=1,
    unit="runs",
    compare="==",
)
"""Judged for every run, whatever its scenario promises."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A promise and what was found."""

    promise: Promise
    finding: Finding


@dataclass(frozen=True, slots=True)
class Judgement:
    """All findings of a run, in the scenario's order, and what they come to."""

    run: RunRecord
    title: str
    judged: tuple[Judged, ...]
    recovery: Recovery | None

    @property
    def verdict(self) -> Verdict:
        return merge(entry.finding.verdict for entry in self.judged)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def tally(self, verdict: Verdict) -> int:
        return sum(entry.finding.verdict is verdict for entry in self.judged)

    def of(self, checker: str) -> Finding | None:
        """The first finding of a checker."""
        return next((entry.finding for entry in self.judged if entry.promise.checker == checker), None)

    def worst_first(self) -> tuple[Judged, ...]:
        """Broken promises, then unknown ones, then kept ones; the scenario's order within each."""
        order = list(Verdict)
        return tuple(sorted(self.judged, key=lambda entry: order.index(entry.finding.verdict)))

    def to_json(self) -> dict[str, Any]:
        """verdict.json. Recovery times in ns since the kill."""
        return {
            "schema": 1,
            "run_id": self.run.run_id,
            "environment": self.run.environment,
            "scenario": self.run.scenario,
            "variant": self.run.variant,
            "seed": self.run.seed,
            "commit": self.run.commit,
            "versions": self.run.versions,
            "verdict": self.verdict.value,
            "exit_code": self.exit_code,
            "promises": [_promise_json(entry) for entry in self.judged],
            "recovery": None if self.recovery is None else asdict(self.recovery),
        }


def judge(run: RunRecord, scenario: Scenario, history: History, evidence: Evidence) -> Judgement:
    """Judge every promise of the run's variant. Pure; ScenarioError when scenario and run do not belong together."""
    if scenario.breakwater.id != run.scenario:
        raise ScenarioError(f"run {run.run_id} is of {run.scenario}, but its scenario is {scenario.breakwater.id}")
    promises = scenario.promises_of(run.variant)
    judged = [Judged(promise, _find(promise, run, history, evidence)) for promise in promises]
    judged.append(Judged(RUN_COMPLETED, _completed(run, history, evidence)))
    return Judgement(run, scenario.breakwater.title, tuple(judged), recovery_of(history, evidence, run))


def judge_run(run_dir: Path) -> Judgement:
    """Judge a stored run from its files, offline, changing none. ExperimentError when it is no run at all.

    A run that was cut off is judged, too: what is missing makes its promises unknown.
    """
    run = RunRecord.read(run_dir)
    scenario = Scenario.read(run_dir / SCENARIO_FILE)
    evidence = load_evidence(run_dir)
    try:
        history = History.load(run_dir)
    except RunFileError as error:
        history = History.empty()
        evidence = Evidence(evidence.events, evidence.final, evidence.journal, (str(error), *evidence.missing))
    return judge(run, scenario, history, evidence)


def write_verdict(run_dir: Path, judgement: Judgement) -> None:
    """Write verdict.json and junit.xml, each in one step."""
    verdict = json.dumps(judgement.to_json(), indent=2, ensure_ascii=False) + "\n"
    for name, content in ((VERDICT_FILE, verdict.encode()), (JUNIT_FILE, junit_xml(judgement.to_json()))):
        fresh = run_dir / f"{name}.new"
        fresh.write_bytes(content)
        fresh.replace(run_dir / name)


def _find(promise: Promise, run: RunRecord, history: History, evidence: Evidence) -> Finding:
    """One promise judged. A checker that breaks has found nothing out, and must not end the others' judging."""
    checker = checker_named(promise.checker)
    try:
        return checker(history, evidence, promise, run)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return unknown(promise, f"checker {promise.checker} broke on this run: {type(error).__name__}: {error}")


def _completed(run: RunRecord, history: History, evidence: Evidence) -> Finding:
    problems = [] if run.completed else ["the run was cut off before its end"]
    problems += evidence.missing
    problems += [f"{part.name}: {part.reason}; {part.rows:,} rows were kept" for part in history.torn]
    if problems:
        return unknown(RUN_COMPLETED, "; ".join(problems), value=0, out_of="0 of 1")
    return Finding(1, 1, Verdict.TRUE, 1, "1 of 1", "all phases ran and all files are whole")


def _promise_json(entry: Judged) -> dict[str, Any]:
    promise, finding = entry.promise, entry.finding
    return {
        "id": promise.id,
        "title": promise.title,
        "checker": promise.checker,
        "verdict": finding.verdict.value,
        "value": finding.value,
        "compare": promise.compare,
        "target": finding.target,
        "unit": promise.unit,
        "n": finding.n,
        "out_of": finding.out_of,
        "reason": finding.reason,
        "evidence": [asdict(exhibit) for exhibit in finding.evidence],
    }
