"""Load on the whole platform: a peak judged as a run, and Locust by hand with nothing but the environment's name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests import alone
from loadtests.alone import ENVIRONMENT_VARIABLE
from loadtests.plan import PLAN_VARIABLE
from tests.e2e.conftest import COMMAND_S, ENVIRONMENT, PROOF_S, Platform

pytestmark = pytest.mark.e2e

SECONDS, RATE = 20, 40
SHARDS = 2


@pytest.mark.timeout(PROOF_S)
def test_a_peak_is_sent_as_planned_and_answered(trained: Platform) -> None:
    arguments = ("load-test", ENVIRONMENT, "--profile", "peak", "--seconds", str(SECONDS), "--rate", str(RATE))
    judgement = trained.kept(*arguments, out=trained.runs / "load")
    promises = {entry["id"]: entry for entry in judgement["promises"]}
    assert promises["load-kept"]["value"] >= 99
    (shown,) = promises["answered"]["evidence"]
    scheduled = [float(str(row[1]).removesuffix("/s").replace(",", "")) for row in shown["rows"]]
    assert max(scheduled) == pytest.approx(3 * scheduled[0])
    newest = (trained.runs / "load" / "latest").resolve()
    listed = json.loads(trained.run("runs", "--json", "--out", str(trained.runs / "load")).stdout)
    assert newest.name in str(listed)


def test_locust_needs_nothing_but_the_environments_name(trained: Platform) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in {PLAN_VARIABLE, ENVIRONMENT_VARIABLE}}
    locust = subprocess.run(
        [
            *[sys.executable, "-m", "locust", "-f", str(Path(alone.__file__).with_name("locustfile.py")), "--headless"],
            *["--only-summary", "--rate", "30", "--write-rate", "5", "--seconds", "5"],
            *["--json-file", str(trained.root / "locust")],
        ],
        cwd=trained.root,
        env=kept | {ENVIRONMENT_VARIABLE: ENVIRONMENT, "XDG_STATE_HOME": str(trained.root / "state")},
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    assert locust.returncode == 0, locust.stderr
    counted = {entry["name"]: entry for entry in json.loads((trained.root / "locust.json").read_text())}
    assert counted["/v1/predict"]["num_requests"] == pytest.approx(150, rel=0.4)
    assert counted["/v1/features"]["num_requests"] == pytest.approx(SHARDS * 25, abs=4)
    assert {entry["num_failures"] for entry in counted.values()} == {0}
    assert not re.search("Traceback", locust.stderr)
