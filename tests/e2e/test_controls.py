"""The suite can fail: each seeded defect is detected, counted and named."""

from __future__ import annotations

import json

import pytest

from experiments.controls.catalogue import CONTROLS
from tests.e2e.conftest import ENVIRONMENT, Platform

pytestmark = pytest.mark.e2e


SOAK_ONLY = {
    "no-block",
    "slow-model",
    *("lease-of-a-minute", "fence-off", "edge-asks-once", "edge-trusts", "everybody-computes", "keeper-off"),
    *("golden-unchecked", "swap-with-a-gap", "pointer-first", "edge-stopped", "one-pool"),
}
"""`no-fault` asks the same of another scenario as `no-block`, `slow-model` belongs to `everybody-computes`; the
others take one to two minutes each, and put their defects in by the ways that the ones below take."""


@pytest.mark.parametrize("name", [control.name for control in CONTROLS if control.name not in SOAK_ONLY])
def test_a_defect_is_detected(trained: Platform, name: str) -> None:
    control = next(control for control in CONTROLS if control.name == name)

    done = trained.run("controls", ENVIRONMENT, name, "--seed", "1", "--out", str(trained.runs))

    assert "1 of 1 defects detected" in done.stdout
    latest = trained.runs / name / "latest"
    verdict = json.loads((latest / "verdict.json").read_text())
    promises = {promise["id"]: promise["verdict"] for promise in verdict["promises"]}
    assert verdict["exit_code"] == control.exit_code
    assert {name: promises[name] for name in control.expected} == dict(control.expected)
    # A stored run is judged the same again, from its files alone.
    assert trained.run("check", str(latest), code=control.exit_code).stdout
