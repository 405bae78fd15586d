"""`breakwater train` through Mage, and an H2O node that dies in the middle of it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ENVIRONMENT, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SAME = 1e-6
BEGUN_S = 120.0
ENDED_S = 30.0
"""The outcome is there before Mage has closed its run, which takes a turn of its loop or two."""


def versions(platform: Platform) -> dict[str, dict[str, Any]]:
    listed = json.loads(platform.run("models", "list", ENVIRONMENT, "--json").stdout)
    return {line["version"]: line for line in listed}


def runs(platform: Platform) -> set[Path]:
    return set((platform.state / "members" / "mage-0" / "runs").glob("2*"))


def test_mage_is_a_member_that_takes_orders(trained: Platform) -> None:
    end = time.monotonic() + ENDED_S
    while (mage := trained.settled()["mage-0"])["state"] != "takes orders":
        assert mage["state"] == "run 1 is under way", mage
        assert time.monotonic() < end, mage
        time.sleep(0.5)
    assert (mage["component"], mage["role"], mage["healthy"]) == ("mage", "scheduler", True)


def test_a_node_killed_in_mid_training_ends_in_an_equal_model(trained: Platform) -> None:
    trained.settled()
    before, known = versions(trained), runs(trained)
    [undisturbed] = [line for line in before.values() if line["stage"] == "production"]
    training = trained.start("train", ENVIRONMENT)
    end = time.monotonic() + BEGUN_S
    while not any(b"split_begun" in (run / "events.jsonl").read_bytes() for run in runs(trained) - known):
        assert training.poll() is None, training.communicate()
        assert time.monotonic() < end, "no split began"
        time.sleep(0.1)
    [node] = [member for member in trained.endpoints()["members"] if member["name"] == "h2o-0"]
    os.kill(node["pid"], signal.SIGKILL)
    said, complaints = training.communicate(timeout=400)
    assert training.returncode == 0, said + complaints

    assert "stays registered" in said
    assert "not better by" in said
    after = versions(trained)
    [new] = [line for version, line in after.items() if version not in before]
    for metric in ("auc", "logloss", "prior"):
        assert new["metrics"][metric] == pytest.approx(undisturbed["metrics"][metric], abs=SAME)
    assert [line["stage"] for line in after.values()].count("production") == 1
    assert new["stage"] == "registered"
