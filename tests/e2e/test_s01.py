"""S-01 on the whole platform: certain death of one shard's primary, under load, judged from what clients saw."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from tests.e2e.conftest import ENVIRONMENT, Platform

pytestmark = pytest.mark.e2e

FILES = {
    "history.arrow",
    "final.arrow",
    "events.jsonl",
    "journal.json",
    "scenario.json",
    "topology.json",
    "run.json",
    "verdict.json",
    "junit.xml",
    "report.html",
}


@pytest.mark.parametrize("variant", ["server-killed", "member-killed"])
def test_s01_keeps_its_promises(trained: Platform, variant: str) -> None:
    out = trained.runs / "s01"
    done = trained.run(
        "verify", ENVIRONMENT, "--scenario", "S-01", "--variant", variant, "--seed", "7", "--out", str(out)
    )

    run = out / "latest"
    assert {path.name for path in run.iterdir()} >= FILES, done.stdout
    verdict = json.loads((run / "verdict.json").read_text())
    assert (verdict["verdict"], verdict["exit_code"]) == ("true", 0)
    promises = {promise["id"]: promise for promise in verdict["promises"]}
    assert promises["lost-writes"]["value"] == 0
    assert promises["lost-writes"]["n"] > 1000
    cases = ElementTree.parse(run / "junit.xml").getroot().findall(".//testcase")  # noqa: S314 - our own file
    assert len(cases) == len(promises)
    report = (run / "report.html").read_text()
    assert "http://" not in report.replace("http://www.w3.org", "")
    assert "https://" not in report
    for secret in (trained.state / "secrets").iterdir():
        assert secret.read_text().strip().rsplit(":", 1)[-1] not in report
    assert json.loads(trained.run("check", str(run), "--json").stdout) == verdict
