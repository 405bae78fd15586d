"""The suite can fail: each seeded defect is detected, counted and named, also where nothing tells the judge of it."""

from __future__ import annotations

import csv
import json
import random
import secrets
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from breakwater.verification import find_scenario, shortened
from experiments.checkers.finding import Verdict
from experiments.controls.catalogue import CONTROLS, Control
from experiments.evidence import JOURNAL_FILE
from experiments.scenario import SCENARIO_FILE
from tests.e2e.conftest import ENVIRONMENT, PROOF_S, SEEDS, Platform

pytestmark = pytest.mark.e2e

SOAK_ONLY: Final = frozenset(
    {
        *("no-block", "slow-model", "hard-expiry-only"),
        *("lease-of-a-minute", "one-pool", "keeper-off", "edge-stopped", "never-drained"),
    }
)
"""`no-block` asks the same of another scenario as `no-fault`, `slow-model` belongs to `everybody-computes`; the others
take minutes, or want a machine that does nothing else."""

DRAWN: Final = frozenset(
    {
        *("fence-off", "reads-without-bound", "asynchronous", "no-fault", "full-cache", "watchdogs-off"),
        *("deleted-row", "frozen-edge", "stalled-writers"),
        *("breaker-never-opens", "everybody-computes"),
        *("edge-asks-once", "edge-trusts"),
        *("golden-unchecked", "cache-of-any-model", "swap-with-a-gap", "no-warm-up", "pointer-first"),
    }
)
"""Each takes a minute: some of them, by seed, do for one run, beside the two that always run, since what they break is
what nobody may lose: acknowledged writes, and the fast failover. `make soak` takes all."""

DRAWS: Final = 2


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = metafunc.config.getoption("--controls-seed")
    seed = secrets.randbelow(10_000) if asked is None else asked
    always = [control.name for control in CONTROLS if control.name not in DRAWN | SOAK_ONLY]
    drawn = random.Random(seed).sample(sorted(DRAWN), DRAWS)  # noqa: S311 - repeatable choice, no secret
    metafunc.parametrize("name", [*always, *drawn], ids=[*always, *(f"seed{seed}-{name}" for name in drawn)])


@pytest.mark.timeout(PROOF_S)
def test_a_defect_is_detected(trained: Platform, name: str) -> None:
    control = next(control for control in CONTROLS if control.name == name)
    rows = trained.runs / "rows" / name

    for seed in SEEDS:
        arguments = ("--seed", str(seed), "--out", str(trained.runs), "--rows", str(rows))
        done = trained.run("controls", ENVIRONMENT, name, *arguments, code=None)
        if done.returncode == 0 or proves_something(trained.runs / name / "latest", control):
            break
        print(done.stdout)  # noqa: T201 - pytest shows it when the last seed proves nothing either

    latest = trained.runs / name / "latest"
    shown = trained.run("check", str(latest), code=None).stdout
    assert "1 of 1 defects detected" in done.stdout, f"{done.stdout}\n{done.stderr}\n{shown}"
    verdict = json.loads((latest / "verdict.json").read_text())
    broken = {promise for promise, must_be in control.expected.items() if must_be is not Verdict.TRUE}
    promises = {promise["id"]: promise["verdict"] for promise in verdict["promises"]}
    assert {promise: promises[promise] for promise in broken} == {name: control.expected[name] for name in broken}
    with (rows / "controls.csv").open(newline="") as lines:
        said = {row["promise"]: row["is"] for row in csv.DictReader(lines)}
    assert said.items() >= {promise: promises[promise] for promise in control.expected}.items()
    # A stored run is judged the same again, from its files alone, and from files that do not tell of the control.
    unnamed = without_the_control(latest.resolve(), control, trained.runs / "unnamed")
    again = json.loads(trained.run("check", str(unnamed), "--json", code=verdict["exit_code"]).stdout)
    assert found(again) == found(verdict)


def proves_something(run: Path, control: Control) -> bool:
    """Whether the run came to an answer: nothing that the control names is unknown, unless that is the answer."""
    verdict = json.loads((run / "verdict.json").read_text())
    found = {promise["id"]: promise["verdict"] for promise in verdict["promises"]}
    asked = [
        name
        for name, must_be in {"load-kept": Verdict.TRUE, **control.expected}.items()
        if must_be is not Verdict.UNKNOWN
    ]
    return all(found[name] != "unknown" for name in asked)


def without_the_control(run: Path, control: Control, place: Path) -> Path:
    """A copy of the run, away from the control's name, whose scenario and journal are those of a healthy platform."""
    copy = place / run.name
    shutil.copytree(run, copy)
    pristine = shortened(find_scenario(control.scenario))
    (copy / SCENARIO_FILE).write_text(json.dumps(pristine.document()))
    own = {activity.name for activity in [*pristine.method, *pristine.rollbacks]}
    journal = json.loads((copy / JOURNAL_FILE).read_text())
    for done in [*journal["run"], *journal["rollbacks"]]:
        named = done["activity"]["name"]
        done["activity"] = {"type": "action", "name": named if named in own else "wait"}
    del journal["experiment"]
    (copy / JOURNAL_FILE).write_text(json.dumps(journal))
    for name in ("experiment.json", "verdict.json", "junit.xml", "report.html"):
        (copy / name).unlink()
    return copy


def found(verdict: dict[str, Any]) -> dict[str, tuple[str, float | None, int]]:
    """Verdict, value and number of samples of each promise."""
    return {each["id"]: (each["verdict"], each["value"], each["n"]) for each in verdict["promises"]}
