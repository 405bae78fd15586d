"""`chaos run FILE` alone: Chaos Toolkit itself runs the file, with load and records around it or not at all."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaoslib.experiment import run_experiment
from chaoslib.loader import load_experiment

from experiments import alone
from experiments.errors import ScenarioError
from experiments.planning import PreflightFailed
from experiments.run import Order
from experiments.scenario import Scenario
from tests.unit.experiments.synthetic_run import SCENARIO

S04 = SCENARIO.with_name("s04.yaml")
ALWAYS = {"runtime": {"rollbacks": {"strategy": "always"}}}


class Beside:
    """Stands for all that goes on beside the experiment: says what was asked of it and how it ended."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.obstacle: Exception | None = None
        self.broken_end: Exception | None = None
        self.held: list[str] = []
        self.orders: list[Order] = []
        self.ended: list[str] = []

    @contextlib.contextmanager
    def locked(self, environment: str) -> Iterator[None]:
        self.held.append(environment)
        try:
            yield
        finally:
            self.held.remove(environment)

    @contextlib.contextmanager
    def recorded(self, order: Order, *, passed: object) -> Iterator[Beside]:
        assert self.held == [order.environment]
        if self.obstacle is not None:
            raise self.obstacle
        self.orders.append(order)
        try:
            yield self
        except KeyboardInterrupt:
            self.ended.append("cut off")
            raise
        self.ended.append("whole")
        if self.broken_end is not None:
            raise self.broken_end


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Beside:
    made = Beside(tmp_path)
    monkeypatch.setattr(alone, "locked", made.locked)
    monkeypatch.setattr(alone, "recorded", made.recorded)
    return made


def strike(run_dir: str, seed: int) -> dict[str, Any]:
    """Stands for the fault."""
    (Path(run_dir) / "struck").write_text(str(seed))
    return {"struck": True}


def interrupt() -> None:
    raise KeyboardInterrupt


def undo() -> None:
    """Stands for a rollback."""


def experiment(fault: str = "strike") -> dict[str, Any]:
    """S-04 as it is, but for what its activities call: functions of this file."""
    found: dict[str, Any] = load_experiment(str(S04))
    given = {"run_dir": "${run_dir}", "seed": "${seed}"} if fault == "strike" else {}
    for part, func, arguments in (("method", fault, given), ("rollbacks", "undo", {})):
        provider = {"type": "python", "module": __name__, "func": func, "arguments": arguments}
        found[part] = [{"type": "action", "name": func, "provider": provider}]
    del found["steady-state-hypothesis"]
    return found


def chaos_run(document: dict[str, Any], **variables: object) -> dict[str, Any]:
    journal: dict[str, Any] = run_experiment(document, settings=ALWAYS, experiment_vars=(variables, {}))
    return journal


def test_the_run_has_load_a_directory_and_a_journal(beside: Beside) -> None:
    journal = chaos_run(experiment())
    (order,) = beside.orders
    assert (order.environment, order.variant, order.seed) == ("local", "one-replica", 1)
    assert order.out == Path("runs").resolve()
    assert (beside.directory / "struck").read_text() == "1"
    assert beside.ended == ["whole"]
    assert beside.held == []
    kept = json.loads((beside.directory / "journal.json").read_text())
    assert kept["status"] == "completed"
    assert [activity["status"] for activity in kept["run"] + kept["rollbacks"]] == ["succeeded", "succeeded"]
    assert kept["run"] == journal["run"]


def test_what_var_gives_is_the_order(beside: Beside, tmp_path: Path) -> None:
    chaos_run(experiment(), environment="e2e", seed=7, run_dir=str(tmp_path / "own"), blocked="whole-process")
    (order,) = beside.orders
    assert (order.environment, order.variant, order.seed) == ("e2e", "replica-frozen", 7)
    assert order.out == tmp_path / "own"
    assert (beside.directory / "struck").read_text() == "7"


def test_other_phases_are_another_scenario() -> None:
    document: dict[str, Any] = load_experiment(str(S04))
    stated = document["configuration"]
    assert alone.ordered(document, stated).scenario == Scenario.read(S04)
    shorter = alone.ordered(document, stated | {"recovery_s": 1}).scenario.breakwater
    assert shorter.load == Scenario.read(S04).breakwater.load.model_copy(update={"recovery_s": 1.0})


@pytest.mark.parametrize("obstacle", [PreflightFailed("etcd does not answer"), KeyError("a defect of ours")])
def test_what_cannot_be_begun_touches_nothing(
    obstacle: Exception, beside: Beside, caplog: pytest.LogCaptureFixture
) -> None:
    beside.obstacle = obstacle
    journal = chaos_run(experiment())
    assert journal["status"] == "interrupted"
    assert (journal["run"], journal["rollbacks"]) == ([], [])
    assert list(beside.directory.iterdir()) == []
    assert beside.held == []
    assert f"not begun: {obstacle}" in caplog.text
    beside.obstacle = None
    assert chaos_run(experiment())["status"] == "completed"


def test_an_interruption_is_told(beside: Beside) -> None:
    journal = chaos_run(experiment("interrupt"))
    assert journal["status"] == "interrupted"
    assert len(journal["rollbacks"]) == 1
    assert beside.ended == ["cut off"]
    assert json.loads((beside.directory / "journal.json").read_text())["status"] == "interrupted"


def test_an_end_that_failed_is_said(beside: Beside, caplog: pytest.LogCaptureFixture) -> None:
    beside.broken_end = OSError("no space left on device")
    chaos_run(experiment())
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert said == f"{beside.directory} is not whole and will judge as unknown: no space left on device"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"seed": "7"}, "seed is '7', but must be like 1: a number is `--var seed:int=1`"),
        ({"environment": 3}, "environment is 3, but must be like 'local'"),
        ({"blocked": "nobody"}, "no variant of S-04 has these values"),
    ],
)
def test_values_that_fit_nothing_are_refused(variables: dict[str, object], said: str) -> None:
    document = experiment()
    with pytest.raises(ScenarioError) as refused:
        alone.ordered(document, document["configuration"] | variables)
    assert str(refused.value).startswith(said)


def test_a_run_without_its_faults_is_refused() -> None:
    document = experiment()
    with pytest.raises(ScenarioError, match="leave --dry out"):
        alone.ordered(document | {"dry": "activities"}, document["configuration"])
