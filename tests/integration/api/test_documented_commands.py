"""The commands of docs/api.md and of a runbook do what stands below them, against the real edge."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from services.api import openapi
from services.api.app import OPERATIONS
from services.h2o.train import TrainedModel
from tests.integration.api.edge import Edge
from tests.integration.api.platform import Platform
from tests.integration.api.publishing import renamed

pytestmark = pytest.mark.integration

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGES = [DOCS / "api.md", DOCS / "runbooks" / "refused-model.md"]
BLOCK = re.compile(r"^```(sh|json|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL_S = 60.0
END = "-- end of a command --"


def blocks(page: Path) -> list[tuple[str, str]]:
    """(command, what it is said to print as `json ...` or `text ...`, or nothing), in the page's order."""
    found: list[tuple[str, str]] = []
    for kind, content in BLOCK.findall(page.read_text()):
        if kind == "sh":
            found.append((content, ""))
        else:
            command, said = found.pop()
            assert not said
            found.append((command, f"{kind} {content}"))
    return found


@pytest.fixture
def state(edge: Edge, platform: Platform, tmp_path: Path) -> Path:
    """An environment's directory, as far as its clients read it."""
    (tmp_path / "tls").mkdir()
    shutil.copy(edge.plan.ca_file, tmp_path / "tls" / "ca.pem")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "api_token").write_text(platform.token)
    (tmp_path / "secrets" / "admin_token").write_text(platform.admin_token)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_print_what_stands_below_them(
    page: Path, edge: Edge, state: Path, platform: Platform, trained: Mapping[str, TrainedModel]
) -> None:
    for version in re.findall(r'"version": "([^"]+)", "reason"', page.read_text()):
        platform.registry.register(renamed(trained["v2"], version))
    with edge.client() as client:
        edge.wait_for(lambda: len(client.get("/v1/models/current").json()["replicas"]) == len(edge.replicas))
    preamble, *examples = blocks(page)
    here = re.sub(r"^STATE=\S+", f"STATE={state}", preamble[0], flags=re.MULTILINE)
    here = re.sub(r"^EDGE=\S+", f"EDGE={edge.plan.edge_url}", here, flags=re.MULTILINE)
    assert here.count(str(state)) == here.count(edge.plan.edge_url) == 1
    printed = run([here, *(command for command, _ in examples)])[1:]
    for (command, said), told in zip(examples, printed, strict=True):
        kind, _, expected = said.partition(" ")
        if kind == "text":
            assert re.sub(r"api-\d", "api-0", told) == expected
        elif kind == "json":
            assert shape(json.loads(told)) == shape(json.loads(expected)), f"{command} printed {told}"
        else:
            assert "code" not in json.loads(told), f"{command} printed {told}"


def test_every_route_and_parameter_has_a_command() -> None:
    commands = [command for command, _ in blocks(PAGES[0])]
    described = openapi.document("test", "1", OPERATIONS)["paths"]
    for path, methods in described.items():
        for method, operation in methods.items():
            mine = [each for each in commands if f"$EDGE{path}" in each and ("--json" in each) == (method == "post")]
            assert mine, f"{method} {path}"
            for parameter in operation["parameters"]:
                if parameter["in"] == "header":
                    assert f'"{parameter["name"]}: ' in "".join(commands).lower(), parameter
                else:
                    assert f"{parameter['name']}=" in "".join(mine), parameter


def run(commands: list[str]) -> list[str]:
    """What each of them prints, run one after the other in one shell, as a reader does; all must succeed."""
    script = "".join(f"{command}\nprintf '%s' '{END}'\n" for command in commands)
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, timeout=SHELL_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split(END)[:-1]


def shape(value: Any) -> Any:
    """Names and types. A list is what its first element is; a number or a missing one may be the other."""
    match value:
        case dict():
            return {name: shape(each) for name, each in value.items()}
        case list():
            return [shape(each) for each in value[:1]]
        case None | int() | float() if not isinstance(value, bool):
            return "number"
    return type(value).__name__
