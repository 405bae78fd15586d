"""`breakwater models` as its user meets it: what was trained is in production, and illegal moves say why."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import ENVIRONMENT, Platform

pytestmark = pytest.mark.e2e


def test_what_was_trained_is_registered_and_cannot_be_moved_illegally(trained: Platform) -> None:
    versions = json.loads(trained.run("models", "list", ENVIRONMENT, "--json").stdout)
    [production] = [version for version in versions if version["stage"] == "production"]
    assert 0.5 < production["metrics"]["auc"] < 1.0
    assert production["version"] in trained.run("models", "list", ENVIRONMENT).stdout

    shown = json.loads(trained.run("models", "show", ENVIRONMENT, production["version"]).stdout)
    assert {artifact["kind"] for artifact in shown["artifacts"]} == {"mojo", "card", "golden", "contract"}
    # what follows are reloads of other tests, each of which brings it back
    assert [line["to_stage"] for line in shown["history"]][:3] == ["registered", "staging", "production"]
    assert all(line["actor"] and line["reason"] for line in shown["history"])

    again = trained.run("models", "promote", ENVIRONMENT, production["version"], "--reason", "twice", code=3)
    assert "is production and cannot become production" in again.stderr
    back = trained.run("models", "rollback", ENVIRONMENT, "--reason", "too early", code=3)
    assert "nothing to go back to" in back.stderr
    assert "is not registered" in trained.run("models", "show", ENVIRONMENT, "v0", code=3).stderr
    status = trained.status()["registry-0"]
    assert (status["healthy"], status["state"]) == (True, "rows and pointers agree")
