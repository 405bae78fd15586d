"""What the API says of itself is so: schemathesis tries it with what its own description allows and what it forbids."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from tests.integration.api.platform import Platform, Replica

pytestmark = pytest.mark.integration

LONGEST_S: Final = 60.0

CONFIG: Final = """
seed = 20130101
headers = { Authorization = "Bearer ${BREAKWATER_TEST_TOKEN}" }
request-timeout = 10.0
color = false

[generation]
max-examples = 60
deterministic = true
database = "none"
# HTTP has clients and proxies send headers that nobody described
allow-extra-parameters = false

[phases.stateful]
enabled = false

# a caller may allow so little time that the described 503 and 504 are right
[checks.not_a_server_error]
expected-statuses = ["2xx", "4xx", "503", "504"]

[checks.positive_data_acceptance]
expected-statuses = ["200", "404", "503", "504"]

# what is right of a time depends on the day: months have their partitions
[[operations]]
include-name = "POST /v1/features"
[operations.parameters]
"body.event_time" = "EVENT_TIME"
[operations.checks.positive_data_acceptance]
expected-statuses = ["200", "422", "503", "504"]

# versions that nobody registered, and nothing to go back to
[[operations]]
include-path = "/v1/admin/reload-model"
headers = { Authorization = "Bearer ${BREAKWATER_TEST_ADMIN_TOKEN}" }
[operations.checks.positive_data_acceptance]
expected-statuses = ["404", "409"]
"""


def explore(replica: Replica, platform: Platform, directory: Path, document: str | None = None) -> tuple[int, str]:
    """Exit code and words of a run against the replica, by its own description or by another one."""
    config = directory / "schemathesis.toml"
    config.write_text(CONFIG.replace("EVENT_TIME", datetime.now(UTC).isoformat()))
    where = [f"{replica.url}/openapi.json"]
    if document is not None:
        (directory / "openapi.json").write_text(document)
        where = [str(directory / "openapi.json"), "--url", replica.url]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", *where],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "BREAKWATER_TEST_TOKEN": platform.token,
            "BREAKWATER_TEST_ADMIN_TOKEN": platform.admin_token,
        },
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_api_does_what_it_says(replica: Replica, platform: Platform, tmp_path: Path) -> None:
    code, said = explore(replica, platform, tmp_path)
    assert code == 0, said
    described = sum(len(methods) for methods in replica.http.get("/openapi.json").json()["paths"].values())
    assert f"{described} selected / {described} total" in said, said
    assert replica.metric('breakwater_api_request_seconds_count{path="/v1/predict",status="200"}') > 0
    assert replica.metric('breakwater_api_request_seconds_count{path="/v1/features",status="200"}') > 0


def test_a_description_that_is_wrong_is_found(replica: Replica, platform: Platform, tmp_path: Path) -> None:
    document = replica.http.get("/openapi.json").text
    wrong = document.replace('"maximum":12', '"maximum":13')
    assert wrong != document
    code, said = explore(replica, platform, tmp_path, wrong)
    assert code == 1, said
