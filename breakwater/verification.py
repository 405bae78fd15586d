"""Run scenarios against an environment, judge them, write their reports, and repeat runs for controls and soak."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from experiments import run as runs
from experiments.checkers.finding import merge
from experiments.controls.catalogue import CONTROLS, Control, disagreements, seeded
from experiments.errors import ScenarioError
from experiments.lint import problems
from experiments.progress import Tell
from experiments.report.page import render
from experiments.scenario import Scenario
from experiments.verdict import EXIT_CODES, Judgement, judge_run, write_verdict
from loadtests.profiles import PROFILES, ProfileName

SCENARIOS: Final = Path(runs.__file__).parent / "scenarios"
LOAD_TEST: Final = Path(runs.__file__).with_name("load-test.yaml")
SHORT_PHASE_S: Final = 6.0
"""Phases of a control's run: a baseline whose halves still have a p99, a fault band with 900 writes."""


@dataclass(frozen=True, slots=True)
class Finished:
    """One run: where it is, and what was judged."""

    directory: Path
    judgement: Judgement
    report: Path

    def shown_report(self) -> Path:
        """The report's path as a person types it: from the working directory when it is below that."""
        here = Path.cwd()
        return self.report.relative_to(here) if self.report.is_relative_to(here) else self.report


@dataclass(frozen=True, slots=True)
class ControlResult:
    control: Control
    finished: Finished
    disagreements: Sequence[str]


def find_scenario(name: str) -> Scenario:
    """The scenario with this id; ScenarioError naming those that exist."""
    known = {scenario.breakwater.id: scenario for _, scenario in all_scenarios()}
    if name not in known:
        raise ScenarioError(f"no scenario {name!r}; there is {', '.join(known)}")
    return known[name]


def find_scenarios(names: Sequence[str]) -> list[Scenario]:
    """The scenarios with these ids, in the given order; `all` stands for every one."""
    if "all" in names:
        return [scenario for _, scenario in all_scenarios()]
    return [find_scenario(name) for name in names]


def all_scenarios() -> list[tuple[Path, Scenario]]:
    """Every scenario with its file, by file name; ScenarioError naming whatever one of them says wrongly."""
    found = []
    for path in sorted(SCENARIOS.glob("*.yaml"), key=lambda path: path.stem):
        scenario = Scenario.read(path)
        wrong = problems(scenario)
        if wrong:
            raise ScenarioError(f"{path.name} cannot be run: {'; '.join(wrong)}")
        found.append((path, scenario))
    return found


def load_test(profile: ProfileName, seconds: float | None) -> Scenario:
    """The load test, as long as somebody says or as its profile lasts by itself."""
    return Scenario.read(LOAD_TEST).with_load(baseline_s=PROFILES[profile].seconds if seconds is None else seconds)


def new_seed() -> int:
    return secrets.randbelow(10_000)


def verify(order: runs.Order, tell: Tell = lambda _: None, passed: Tell = lambda _: None) -> Finished:
    """One run from preflight to report."""
    return finish(runs.run(order, tell, passed))


def finish(directory: Path) -> Finished:
    """Judge a stored run and write verdict.json, junit.xml and report.html into it."""
    judgement = judge_run(directory)
    write_verdict(directory, judgement)
    return Finished(directory, judgement, render(directory, judgement))


def exit_code(finished: Sequence[Finished]) -> int:
    """The worst of all runs; no run at all is unknown."""
    return EXIT_CODES[merge(entry.judgement.verdict for entry in finished)]


def shortened(scenario: Scenario) -> Scenario:
    """The same scenario with short phases; its promises stay as they are."""
    return scenario.with_load(baseline_s=SHORT_PHASE_S, fault_s=SHORT_PHASE_S, recovery_s=SHORT_PHASE_S)


def controls(
    environment: str,
    names: Sequence[str],
    *,
    seed: int,
    out: Path,
    done: Callable[[ControlResult], None],
    begin: Callable[[Control], None],
) -> list[ControlResult]:
    """Run the scenario of each seeded defect once with it and compare what the suite says with what it must say."""
    known = {control.name: control for control in CONTROLS}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ScenarioError(f"no control {', '.join(unknown)}; there is {', '.join(known)}")
    draw = random.Random(seed)  # noqa: S311 - repeatable choice, no secret
    results = []
    for control in CONTROLS:
        if names and control.name not in names:
            continue
        begin(control)
        order = runs.Order(
            environment=environment,
            scenario=seeded(shortened(find_scenario(control.scenario)), control),
            variant=control.variant,
            seed=draw.randrange(10_000),
            out=out / control.name,
        )
        finished = verify(order)
        result = ControlResult(control, finished, disagreements(control, finished.judgement))
        done(result)
        results.append(result)
    return results
