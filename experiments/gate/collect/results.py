"""Test results from JUnit files, as `make test` and CI leave them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from experiments.gate.facts import CaseResult, Known, Missing, SuiteResults

COMMIT: Final = "commit"
"""Property of the suite, which tests/conftest.py writes."""


def results(directory: Path) -> Known[SuiteResults]:
    """All JUnit files of a directory together; Missing when there is none or one of them is damaged."""
    paths = sorted(directory.glob("*.xml"))
    if not paths:
        return Missing(f"no test results in {directory}: run `make test` and `make test-kubernetes`")
    commits: set[str | None] = set()
    cases: list[CaseResult] = []
    for path in paths:
        try:
            root = ElementTree.parse(path).getroot()  # noqa: S314 - written by our own pytest; entities are not expanded
        except ElementTree.ParseError as error:
            return Missing(f"{path} is cut off or no JUnit file: {error}")
        for suite in root.iter("testsuite"):
            named = suite.find(f"properties/property[@name='{COMMIT}']")
            commits.add(None if named is None else named.get("value"))
            cases.extend(_cases(suite))
    return SuiteResults(tuple(path.name for path in paths), frozenset(commits), tuple(cases))


def _cases(suite: ElementTree.Element) -> Iterator[CaseResult]:
    for case in suite.iter("testcase"):
        outcome, why = "passed", ""
        for entry in case:
            if entry.tag in {"failure", "error"}:
                outcome, why = "failed", entry.get("message", "")
            elif entry.tag == "skipped" and outcome == "passed":
                outcome, why = "skipped", entry.get("message", "")
        # a module that is skipped as a whole has no class, and its own name
        yield CaseResult(f"{case.get('classname')}.{case.get('name')}".strip("."), outcome, why)
