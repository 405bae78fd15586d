"""The linter: what Chaos Toolkit would only find out during a run, if ever, is named before it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from chaoslib import substitute
from chaoslib.configuration import load_configuration, load_dynamic_configuration
from chaoslib.experiment import ensure_experiment_is_valid
from chaoslib.loader import load_experiment

from experiments.lint import problems
from experiments.scenario import Scenario
from tests.unit.experiments.synthetic_run import SCENARIO

Edit = Callable[[dict[str, Any]], object]


def edited(edit: Edit) -> Scenario:
    document: dict[str, Any] = yaml.safe_load(SCENARIO.read_text())
    edit(document)
    return Scenario.parse(document, "edited")


def provider(document: dict[str, Any]) -> dict[str, Any]:
    """Of the activity that kills."""
    found: dict[str, Any] = document["method"][1]["provider"]
    return found


@pytest.mark.parametrize("path", sorted(SCENARIO.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_scenario_has_no_problem(path: Any) -> None:
    assert problems(Scenario.read(path)) == []


@pytest.mark.parametrize("path", sorted(SCENARIO.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_chaos_toolkit_by_itself_finds_a_shipped_scenario_valid(path: Path) -> None:
    ensure_experiment_is_valid(load_experiment(str(path)))  # what `chaos validate` does


@pytest.mark.parametrize("path", sorted(SCENARIO.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_chaos_toolkit_by_itself_resolves_every_reference(path: Path) -> None:
    experiment = load_experiment(str(path))
    configuration = load_dynamic_configuration(load_configuration(experiment["configuration"], {"run_dir": "/given"}))
    activities = [*experiment["steady-state-hypothesis"]["probes"], *experiment["method"], *experiment["rollbacks"]]
    handed = [substitute(activity["provider"]["arguments"], configuration, {}) for activity in activities]
    assert "${" not in json.dumps(handed)
    assert "/given" in {arguments.get("run_dir") for arguments in handed}, "--var did not reach an activity"


def test_the_demo_shows_each_of_the_six_once() -> None:
    shown = [
        own.id for path in SCENARIO.parent.glob("*.yaml") for own in [Scenario.read(path).breakwater] for _ in own.demo
    ]
    assert sorted(shown) == ["S-01", "S-02", "S-03", "S-04", "S-05", "S-06"]


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda d: provider(d).update(func="kil_primary"), "kil_primary, which does not exist"),
        (lambda d: provider(d).update(module="experiments.faults.shrad"), "shrad.kill_primary, which does not exist"),
        (lambda d: provider(d).update(module="os", func="remove"), "not below experiments."),
        (lambda d: provider(d)["arguments"].update(shrad=1), "unexpected keyword argument 'shrad'"),
        (lambda d: provider(d)["arguments"].pop("shard"), "missing a required argument: 'shard'"),
        (lambda d: provider(d)["arguments"].update(shard="${shrad}"), "${shrad}, which nobody gives"),
        (lambda d: d["extensions"][0]["variants"]["member-killed"].clear(), "in variant member-killed"),
        (
            lambda d: d["extensions"][0]["variants"]["member-killed"].update(seed=1),
            "gives seed, which is given already",
        ),
        (lambda d: d["extensions"][0]["promises"][0].update(checker="next_akc"), "'next_akc', which does not exist"),
        (lambda d: d["extensions"][0]["promises"][0].pop("why"), "next-ack-certain does not say why"),
        (lambda d: d["rollbacks"].append(d["rollbacks"][0]), "two activities are called"),
        (lambda d: d["configuration"].pop("run_dir"), "configuration lacks run_dir"),
        (lambda d: d["configuration"].pop("scope"), "configuration lacks scope"),
        (lambda d: d["configuration"].update(own=3), "configuration gives own, which neither"),
        (lambda d: d["configuration"].update(fault_s=16), "configuration gives fault_s as 16, which is 15"),
        (lambda d: d["configuration"].update(scope="member"), "configuration gives scope as member, which is server"),
        (lambda d: d.pop("controls"), "controls must be"),
        (lambda d: d["controls"][0]["provider"].update(module="experiments.alnoe"), "controls must be"),
    ],
)
def test_what_could_not_be_run_is_named(edit: Edit, named: str) -> None:
    found = problems(edited(edit))
    assert len(found) == 1, found
    assert named in found[0]
