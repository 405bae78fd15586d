"""What the documents say about the repository is so: links, commands, scenarios, promises, controls and ports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from breakwater.cli import cli
from breakwater.verification import LOAD_TEST
from experiments.checkers.validity import VALIDITY
from experiments.controls.catalogue import CONTROLS
from experiments.scenario import Scenario
from infra.haproxy import EDGE_PROBLEMS
from infra.local.plan import LocalPlan
from infra.topology import load
from services.api.problems import CODES

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "loadtests" / "README.md"])
SCENARIOS = sorted((ROOT / "experiments" / "scenarios").glob("*.yaml"))
JUDGED = [*SCENARIOS, LOAD_TEST]
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
NEVER_FALSE = VALIDITY - {"journal_clean"} | {"recovery_layers", "reloads_under_load"}
"""Checkers that say `unknown` where others say `false`: the run is to be repeated, and nothing is to be mended."""
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


def page_of(scenario: str) -> str:
    return (ROOT / "docs" / "scenarios" / f"{scenario}.md").read_text()


def short(title: str) -> str:
    """What a promise is called where there is no room for which of its kind it is."""
    return re.split("[,(]", title)[0].strip()


def rows_below(heading: str, page: str) -> dict[str, str]:
    """The first table below a heading: the first cell of each row and the rest of it."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| (.+?) \| (.+) \|$", section, re.MULTILINE)[2:])


@pytest.mark.parametrize("file", JUDGED, ids=lambda path: path.stem)
def test_every_scenario_has_a_page_that_names_its_promises(file: Path) -> None:
    scenario = Scenario.read(file).breakwater
    page = page_of(scenario.id)
    assert f"({scenario.id}.md)" in (ROOT / "docs" / "scenarios" / "README.md").read_text()
    for variant in scenario.variants:
        assert f"`{variant}`" in page
    meant = rows_below("What each promise means", page)
    lacking = [promise.title for promise in scenario.promises if short(promise.title) not in meant]
    assert not lacking, f"{scenario.id}.md lacks {lacking}"


@pytest.mark.parametrize("file", JUDGED, ids=lambda path: path.stem)
def test_every_promise_has_its_reason_on_its_page_as_in_its_file(file: Path) -> None:
    scenario = Scenario.read(file).breakwater
    told = rows_below("Why each is promised", page_of(scenario.id))
    assert list(told) == [promise.title for promise in scenario.promises]
    for promise in scenario.promises:
        why = told[promise.title]
        if other := re.fullmatch(r"as in \[(.+)\]\(\1\.md\)", why):
            why = rows_below("Why each is promised", page_of(other[1]))[promise.title]
        assert why == promise.why, f"{scenario.id}.md gives another reason for {promise.title!r}"


def named(runbook: str) -> set[str]:
    """What a runbook says what to do about: names in italics, and those in the first cells of its tables."""
    names = re.findall(r"\*([^*\n]+)\*|^\s*\| ([^|]+) \|", runbook, re.MULTILINE)
    return {name.strip().lower() for pair in names for name in "".join(pair).split(", ")}


@pytest.mark.parametrize("file", JUDGED, ids=lambda path: path.stem)
def test_every_promise_that_can_be_false_is_in_a_runbook_of_its_scenario(file: Path) -> None:
    scenario = Scenario.read(file).breakwater
    about = [f"(../scenarios/{scenario.id}.md)", "(../scenarios/README.md)"]
    books = [text for text in map(Path.read_text, RUNBOOKS) if any(link in text for link in about)]
    told = {name for text in books for name in named(text)}
    lacking = [
        promise.title
        for promise in scenario.promises
        if promise.checker not in NEVER_FALSE and short(promise.title).lower() not in told
    ]
    assert not lacking, f"no runbook that links {scenario.id} says what to do about {lacking}"


def test_every_scenario_is_in_the_scenarios_view() -> None:
    view = (ROOT / "docs" / "architecture" / "scenarios.md").read_text()
    ids = [Scenario.read(file).breakwater.id for file in SCENARIOS]
    assert [name for name in ids if f"(../scenarios/{name}.md)" not in view] == []


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
        problem.code: status for status, problem in EDGE_PROBLEMS.items()
    }
