"""Scenario files: S-01 as shipped, and every misspelling refused that Chaos Toolkit would ignore."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from breakwater.verification import LOAD_TEST, load_test
from experiments.checkers import CHECKERS, checker_named
from experiments.errors import ScenarioError
from experiments.lint import problems
from experiments.scenario import Promise, Scenario
from loadtests.profiles import PROFILES
from tests.unit.experiments.synthetic_run import SCENARIO

Edit = Callable[[dict[str, Any]], object]


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(SCENARIO.read_text())
    return loaded


SCENARIOS = sorted(SCENARIO.parent.glob("*.yaml"))


def test_the_scenarios_together_use_every_checker() -> None:
    promises = [promise for path in (*SCENARIOS, LOAD_TEST) for promise in Scenario.read(path).breakwater.promises]
    assert {promise.checker for promise in promises} == set(CHECKERS)


def test_the_load_test_can_be_run_in_every_profile_and_is_none_of_the_scenarios() -> None:
    scenario = load_test("soak", None)
    assert set(scenario.breakwater.variants) == set(PROFILES)
    assert problems(scenario) == []
    assert scenario.breakwater.load.baseline_s == PROFILES["soak"].seconds
    assert load_test("peak", 20).breakwater.load.longest_s == 20
    assert scenario.breakwater.id not in [Scenario.read(path).breakwater.id for path in SCENARIOS]


def test_s01_promises_two_seconds_only_where_death_is_certain() -> None:
    scenario = Scenario.read(SCENARIO)
    assert "next-ack-certain" in [promise.id for promise in scenario.promises_of("server-killed")]
    assert "next-ack-certain" not in [promise.id for promise in scenario.promises_of("member-killed")]


def test_what_chaos_toolkit_gets_is_a_scenario_again() -> None:
    scenario = Scenario.read(SCENARIO)
    assert Scenario.parse(scenario.document(), "again") == scenario


ACTIVITY: dict[str, Any] = {
    "type": "action",
    "name": "kill",
    "provider": {"type": "python", "module": "m", "func": "f", "arguments": {}},
}


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda d: d.update(rollback=[]), "rollback"),
        (lambda d: d.update({"steady-state-hypotesis": {}}), "steady-state-hypotesis"),
        (lambda d: d.update(method=[ACTIVITY | {"tolerence": True}]), "tolerence"),
        (lambda d: d.update(method=[ACTIVITY | {"provider": {"type": "process", "path": "sh"}}]), "provider"),
        (lambda d: d.update(runtime={"rollbacks": {"strategy": "default"}}), "strategy"),
        (lambda d: d["extensions"].append(d["extensions"][0]), "extensions"),
        (lambda d: d["extensions"][0].update(varients={}), "varients"),
        (lambda d: d["extensions"][0].update(probes=["postgrse"]), "probes"),
        (lambda d: d["extensions"][0]["faults"].update(component="postgrse"), "component"),
        (lambda d: d["extensions"][0]["faults"].update(capabilities=["kil"]), "capabilities"),
        (lambda d: d["extensions"][0].pop("faults"), "load profiles"),
        (lambda d: d["extensions"][0]["load"].update(fault_s=0), "more than 0 s"),
        (lambda d: d["extensions"][0].update(demo=["sever-killed"]), "sever-killed"),
        (lambda d: d["extensions"][0]["load"].update(fault_m=1), "fault_m"),
        (lambda d: d["extensions"][0]["promises"][0].update(traget=2), "traget"),
        (lambda d: d["extensions"][0]["promises"][0].update(compare=">"), "compare"),
        (lambda d: d["extensions"][0]["promises"][0].update(variants=["sever-killed"]), "sever-killed"),
        (lambda d: d["extensions"][0]["promises"].append(d["extensions"][0]["promises"][0]), "must differ"),
    ],
)
def test_a_key_that_does_not_belong_is_named(edit: Edit, named: str) -> None:
    changed = document()
    edit(changed)
    with pytest.raises(ScenarioError, match=named):
        Scenario.parse(changed, "s01.yaml")


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match="server-killed, member-killed"):
        Scenario.read(SCENARIO).promises_of("paused")
    with pytest.raises(ScenarioError, match="next_ack"):
        checker_named("next_akc")


@pytest.mark.parametrize(
    ("compare", "kept", "broken"), [("<", 1.99, 2.0), ("<=", 2.0, 2.01), ("==", 2.0, 1.0), (">=", 2.0, 1.99)]
)
def test_a_promise_is_kept_up_to_its_target(compare: str, kept: float, broken: float) -> None:
    promise = Promise.model_validate(
        {"id": "p", "title": "t", "checker": "c", "target": 2, "unit": "s", "compare": compare}
    )
    assert promise.kept(kept)
    assert not promise.kept(broken)


def test_a_parameter_that_is_no_number_is_refused() -> None:
    promise = Promise(id="p", title="t", checker="c", target=0, unit="s", compare="==", params={"floor_ms": "ten"})
    with pytest.raises(ScenarioError, match="floor_ms"):
        promise.number("floor_ms", 25)
