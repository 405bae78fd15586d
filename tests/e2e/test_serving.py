"""S-02 and S-04 on the whole platform: hot keys gone at once, a replica's event loop blocked; clients hardly notice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import COMMAND_S, ENVIRONMENT, Platform

pytestmark = pytest.mark.e2e

NO_PROOF = 2
SEEDS = (7, 8)
"""A run that proves nothing (a busy machine) is asked once again; a broken promise never is."""


def test_the_scenarios_are_listed(platform: Platform) -> None:
    listed = json.loads(platform.run("scenarios", "--json").stdout)
    assert [(entry["id"], entry["variants"]) for entry in listed] == [
        ("S-01", ["server-killed", "member-killed"]),
        ("S-02", ["keys-deleted", "soft-expiry", "redis-killed", "redis-paused"]),
        ("S-04", ["one-replica"]),
    ]


@pytest.mark.timeout(len(SEEDS) * COMMAND_S)
def test_s04_keeps_its_promises(trained: Platform) -> None:
    promises = kept(trained, "S-04", "one-replica")
    assert 0 < promises["breaker-open"]["value"] < 1
    assert 0 < promises["out-of-rotation"]["value"] < 1
    assert promises["bad-predictions"]["n"] > 1000


@pytest.mark.timeout(len(SEEDS) * COMMAND_S)
def test_s02_keeps_its_promises_when_hot_keys_are_deleted(trained: Platform) -> None:
    promises = kept(trained, "S-02", "keys-deleted")
    assert promises["computations"]["n"] == 20
    assert 1 <= promises["computations"]["value"] <= 1.25


def kept(trained: Platform, scenario: str, variant: str) -> dict[str, Any]:
    """Run it; the promises by id, all of them kept and judged the same again from the stored run."""
    out = trained.runs / scenario
    for seed in SEEDS:
        arguments = ("--scenario", scenario, "--variant", variant, "--seed", str(seed), "--out", str(out))
        done = trained.run("verify", ENVIRONMENT, *arguments, code=None)
        if done.returncode != NO_PROOF:
            break
        print(done.stdout)  # noqa: T201 - pytest shows it when the last seed proves nothing either
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    verdict = json.loads((out / "latest" / "verdict.json").read_text())
    assert json.loads(trained.run("check", str(out / "latest"), "--json").stdout) == verdict
    return {promise["id"]: promise for promise in verdict["promises"]}
