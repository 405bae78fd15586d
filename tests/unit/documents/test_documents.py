"""What the documents say about the repository is so: links, commands, scenarios, promises, controls and ports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from breakwater.cli import cli
from experiments.controls.catalogue import CONTROLS
from experiments.scenario import Scenario
from infra.haproxy import EDGE_PROBLEMS
from infra.local.plan import LocalPlan
from infra.topology import load
from services.api.problems import CODES

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "loadtests" / "README.md"])
SCENARIOS = sorted((ROOT / "experiments" / "scenarios").glob("*.yaml"))
ERROR = re.compile(r"^\| `(\w+)` \| (\d+) \|", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s#]+)(?:#([^)\s]+))?\)")


def anchors(document: Path) -> set[str]:
    """GitHub's anchors of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    for target, anchor in LINK.findall(document.read_text()):
        if target.startswith("https://"):
            continue
        found = document.parent / target
        assert found.exists(), f"{document.relative_to(ROOT)} links to {target}"
        assert not anchor or anchor in anchors(found), f"{document.relative_to(ROOT)} links to {target}#{anchor}"


@pytest.mark.parametrize("folder", ["adr", "runbooks", "scenarios", "architecture"])
def test_every_document_is_in_its_index(folder: str) -> None:
    index = (ROOT / "docs" / folder / "README.md").read_text()
    missing = [path.name for path in (ROOT / "docs" / folder).glob("*.md") if f"({path.name}" not in index]
    assert missing == ["README.md"]


def test_readme_lists_every_command_and_no_other() -> None:
    table = (ROOT / "README.md").read_text().split("## Commands")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `([\w-]+)", table, re.MULTILINE)
    assert sorted(listed) == sorted(cli.commands)


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_has_a_page_that_names_its_promises(file: Path) -> None:
    scenario = Scenario.read(file).breakwater
    page = (ROOT / "docs" / "scenarios" / f"{scenario.id}.md").read_text()
    assert f"({scenario.id}.md)" in (ROOT / "docs" / "scenarios" / "README.md").read_text()
    for variant in scenario.variants:
        assert f"`{variant}`" in page
    for promise in scenario.promises:
        assert f"| {re.split('[,(]', promise.title)[0].strip()} |" in page, f"{scenario.id}.md lacks {promise.title!r}"


def test_every_control_is_documented_with_what_must_be_said() -> None:
    page = (ROOT / "docs" / "architecture" / "scenarios.md").read_text()
    assert re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE) == [control.name for control in CONTROLS]


def test_ports_stand_in_the_physical_view() -> None:
    page = (ROOT / "docs" / "architecture" / "physical.md").read_text()
    plan = LocalPlan(load(ROOT, "local"), Path("/unused"))
    for member in plan.members:
        first, last = plan.of(member.component)[0], plan.of(member.component)[-1]
        spoken = str(member.port) in page or f"{first.port}-{last.port}" in page
        assert spoken, f"physical.md does not give {member.name} port {member.port}"


def test_every_error_code_is_documented_with_its_status_and_no_other() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    replica, edge = page.split("## From the edge")
    assert {code: int(status) for code, status in ERROR.findall(replica)} == dict(CODES)
    assert {code: int(status) for code, status in ERROR.findall(edge)} == {
        code: status for status, code in EDGE_PROBLEMS.items()
    } | {"not_found": 404}
