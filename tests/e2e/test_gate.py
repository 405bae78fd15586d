"""The gate examines a platform that runs: its edge, its JVMs' flags, its readiness while an H2O node is dead."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import ENVIRONMENT, Platform

pytestmark = pytest.mark.e2e


def test_the_gate_finds_what_runs_as_it_must_be_and_leaves_the_cloud_whole(platform: Platform) -> None:
    nodes = [name for name, line in platform.settled().items() if line["component"] == "h2o"]

    done = platform.run("gate", ENVIRONMENT, "--json", "--runs", str(platform.runs), code=None)

    said = {item["id"]: (item["verdict"], item["seen"]) for item in json.loads(done.stdout)["items"]}
    for item in ("tls", "memory-split", "readiness"):
        assert said[item][0] == "true", said[item]
    assert f"{len(nodes)} running" in said["memory-split"][1]
    assert "all ready again" in said["readiness"][1]
    after = platform.settled()
    assert all(after[node]["healthy"] for node in nodes)
