"""S-02 to S-06 on the whole platform, one short run of each kind: clients hardly notice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from breakwater.verification import SCENARIOS
from experiments.scenario import Scenario
from tests.e2e.conftest import ENVIRONMENT, PROOF_S, Platform

pytestmark = pytest.mark.e2e


def test_the_scenarios_are_listed(platform: Platform) -> None:
    listed = {entry["id"]: entry["variants"] for entry in json.loads(platform.run("scenarios", "--json").stdout)}
    files = [Scenario.read(path).breakwater for path in SCENARIOS.glob("*.yaml")]
    assert listed == {own.id: list(own.variants) for own in files}


@pytest.mark.timeout(PROOF_S)
def test_s04_keeps_its_promises(trained: Platform) -> None:
    promises = kept(trained, "S-04", "one-replica")
    assert 0 < promises["breaker-open"]["value"] < 1
    assert 0 < promises["out-of-rotation"]["value"] < 1
    assert promises["bad-predictions"]["n"] > 1000


@pytest.mark.timeout(PROOF_S)
def test_s02_keeps_its_promises_when_hot_keys_are_deleted(trained: Platform) -> None:
    promises = kept(trained, "S-02", "keys-deleted")
    assert promises["computations"]["n"] == 20
    assert 1 <= promises["computations"]["value"] <= 1.25


@pytest.mark.timeout(PROOF_S)
def test_s03_keeps_its_promises_when_a_node_dies_during_a_training(trained: Platform) -> None:
    trained.settled()
    promises = kept(trained, "S-03", "during-training")
    assert promises["training-finished"]["value"] == 1
    assert promises["same-model"]["n"] > 30


@pytest.mark.timeout(PROOF_S)
def test_s05_keeps_its_promises_when_the_model_is_reloaded(trained: Platform) -> None:
    before = production(trained)
    promises = kept(trained, "S-05", "good")
    assert promises["reloads"]["n"] >= 1000
    assert promises["golden"]["n"] > promises["reloads"]["n"]
    assert production(trained) == before


@pytest.mark.timeout(PROOF_S)
def test_s06_keeps_its_promises_when_everything_is_restarted(trained: Platform) -> None:
    before = {member["name"]: member["pid"] for member in trained.endpoints()["members"]}
    promises = kept(trained, "S-06", "everything")
    assert promises["restarted"]["n"] == len(before)
    after = {member["name"]: member["pid"] for member in trained.endpoints()["members"]}
    assert {name for name in before if before[name] == after[name]} == {"edge-0"}  # its master replaces the worker


def production(platform: Platform) -> str:
    versions = json.loads(platform.run("models", "list", ENVIRONMENT, "--json").stdout)
    (version,) = [each["version"] for each in versions if each["stage"] == "production"]
    return str(version)


def kept(trained: Platform, scenario: str, variant: str) -> dict[str, Any]:
    """Run it; the promises by id."""
    arguments = ("verify", ENVIRONMENT, "--scenario", scenario, "--variant", variant)
    verdict = trained.kept(*arguments, out=trained.runs / scenario)
    return {promise["id"]: promise for promise in verdict["promises"]}
