"""Waivers, staging's evidence for production, and what the gate writes for machines."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from experiments.checkers.finding import Verdict
from experiments.gate.facts import Missing
from experiments.gate.items import ITEMS
from experiments.gate.judgement import EvidenceError, GateFile, GateJudgement, Staging, Subject, judge_gate
from experiments.gate.report import junit_xml, last_line, show
from experiments.gate.waivers import Waiver, WaiverError, read_waivers
from tests.unit.experiments.gate.known import GOOD, HERE, OTHER

NOW = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)
TODAY = NOW.date()
NAMES = [item.id for item in ITEMS]
DIGEST = "@sha256:" + "ab" * 32
IMAGES = {"api": f"r.example/api:1{DIGEST}", "h2o": f"r.example/h2o:1{DIGEST}"}
LOCAL = Subject(environment="local", commit=HERE, topology="t")
STAGING = Subject(environment="staging", commit=HERE, topology="staging-topology", images=IMAGES)
PRODUCTION = Subject(environment="production", commit=HERE, topology="production-topology", images=IMAGES)


def waiver(item: str, expires: datetime.date = TODAY, environment: str = "local") -> Waiver:
    return Waiver(environment=environment, item=item, reason="known, mended in 0.2", expires=expires)


def local(*waivers: Waiver, **changes: Any) -> GateJudgement:
    return judge_gate(replace(GOOD, **changes), LOCAL, NOW, waivers=waivers)


@pytest.mark.parametrize(
    ("changes", "verdict", "code"),
    [({}, Verdict.TRUE, 0), ({"tests": Missing("none")}, Verdict.UNKNOWN, 2), ({"handshakes": ()}, Verdict.UNKNOWN, 2)],
)
def test_the_worst_item_is_the_gate(changes: dict[str, Any], verdict: Verdict, code: int) -> None:
    judged = local(**changes)
    assert (judged.verdict, judged.exit_code) == (verdict, code)
    assert [line.item.id for line in judged.lines] == NAMES


def test_a_waiver_lets_its_item_pass_and_is_shown() -> None:
    judged = local(waiver("testcontainers"), waiver("pulumi-engine"), tests=Missing("no docker here"))
    assert judged.exit_code == 0
    text = shown(judged)
    assert "waived until 2026-11-28: known, mended in 0.2" in text
    assert "no docker here" in text
    assert "0 false, 0 unknown, 2 waived" in text


def test_an_expired_waiver_is_ignored_with_a_line() -> None:
    judged = local(waiver("testcontainers", TODAY - datetime.timedelta(days=1)), tests=Missing("none"))
    assert judged.exit_code == 2
    assert "waiver of testcontainers expired on 2026-11-27: known, mended in 0.2" in shown(judged)


def test_a_waiver_of_another_environment_does_not_count_and_one_too_many_is_named() -> None:
    assert local(waiver("testcontainers", environment="staging"), tests=Missing("none")).exit_code == 2
    assert local(waiver("tls")).ignored == ("waiver of tls is not needed any more: remove it",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {environment: local, item: tls, expires: 2026-12-01}", "reason: Field required"),
        ("- {environment: local, item: tls, reason: a long reason}", "expires: Field required"),
        ("- {environment: local, item: tls, reason: short, expires: 2026-12-01}", "at least 10 characters"),
        (
            "- {environment: local, item: speed, reason: a long reason, expires: 2026-12-01}",
            "'speed', which is no item",
        ),
        ("- {environment: local, item: tls, reason: a long reason, expires: 2027-12-01}", "90 days are the most"),
        (
            "- {environment: local, item: tls, reason: a long reason, expires: 2026-12-01, for: ever}",
            "for: Extra inputs",
        ),
        ("tls: true", "holds something else than waivers"),
        ("- [", "is not YAML"),
    ],
)
def test_what_is_no_waiver_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "w.yaml").write_text(text)
    with pytest.raises(WaiverError, match=says.replace("[", r"\[")):
        read_waivers(tmp_path / "w.yaml", NAMES, TODAY)


def test_waivers_are_read_and_none_is_fine(tmp_path: Path) -> None:
    assert read_waivers(tmp_path / "none.yaml", NAMES, TODAY) == ()
    (tmp_path / "w.yaml").write_text("- {environment: local, item: tls, reason: a long reason, expires: 2026-12-01}")
    (read,) = read_waivers(tmp_path / "w.yaml", NAMES, TODAY)
    assert read.expires == datetime.date(2026, 12, 1)


def production(tmp_path: Path, **changes: Any) -> GateJudgement:
    """Production judged with staging's evidence of an hour ago; `changes` are of the evidence's subject or `at`."""
    at = changes.pop("at", NOW - datetime.timedelta(hours=1))
    now = changes.pop("now", STAGING)
    own = changes.pop("own", PRODUCTION)
    facts = replace(GOOD, **changes.pop("facts", {}))
    judge_gate(facts, STAGING.model_copy(update=changes), at).write(tmp_path / "staging.json")
    staging = Staging(tmp_path / "staging.json", GateFile.read(tmp_path / "staging.json"), now)
    mine = replace(GOOD, consensus=Missing("never in production"))
    return judge_gate(mine, own, NOW, staging=staging)


def test_production_takes_stagings_evidence_for_what_needs_faults(tmp_path: Path) -> None:
    judged = production(tmp_path)
    assert judged.exit_code == 0
    taken = {line.item.id for line in judged.lines if line.evidence == "staging"}
    assert taken == {"blocking-calls", "snapshot-isolation", "memory-split", "readiness", "verified"}
    assert all(line.outcome.seen.startswith("staging: ") for line in judged.lines if line.evidence == "staging")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"commit": OTHER}, f"staging was examined at {OTHER}"),
        ({"topology": "older"}, "the topology of staging has changed"),
        ({"images": {**IMAGES, "api": "r.example/api:1@sha256:" + "cd" * 32}}, "staging ran other images: api"),
        (
            {"images": {}, "own": PRODUCTION.model_copy(update={"images": {}})},
            "without a digest cannot be told apart: all",
        ),
        ({"own": PRODUCTION.model_copy(update={"images": {"api": "r.example/api:1"}})}, "cannot be told apart: api"),
        ({"at": NOW - datetime.timedelta(days=8)}, "older than 7 days"),
        ({"at": NOW + datetime.timedelta(days=1)}, "older than 7 days"),
        ({"environment": "local"}, "is of local, not of staging"),
        ({"facts": {"consensus": Missing("nobody killed anything")}}, "staging: nobody killed anything"),
    ],
)
def test_evidence_of_something_else_is_unknown(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    judged = production(tmp_path, **changes)
    assert judged.exit_code == 2
    (line,) = [line for line in judged.lines if line.item.id == "readiness"]
    assert line.outcome.verdict is Verdict.UNKNOWN
    assert says in line.outcome.seen


def test_without_evidence_production_is_unknown_and_damaged_evidence_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "staging.json"
    judged = judge_gate(GOOD, PRODUCTION, NOW, staging=Staging(path, GateFile.read(path), STAGING))
    assert "run `breakwater gate staging`" in next(
        line.outcome.seen for line in judged.lines if line.item.id == "readiness"
    )
    path.write_text('{"schema": 1}')
    with pytest.raises(EvidenceError, match=r"is no result of `breakwater gate`"):
        GateFile.read(path)


def test_junit_has_one_case_for_each_item() -> None:
    judged = local(waiver("pulumi-engine"), tests=Missing("none"), handshakes=())
    root = ElementTree.fromstring(junit_xml(judged))  # noqa: S314 - our own document
    assert (root.get("tests"), root.get("failures"), root.get("errors"), root.get("skipped")) == ("10", "0", "2", "1")
    skipped = root.find(".//skipped")
    assert skipped is not None
    assert skipped.get("message") == "unknown, waived until 2026-11-28: known, mended in 0.2"
    assert {error.get("message") for error in root.iter("error")} == {
        "none",
        "nobody offered TLS 1.3; nobody offered TLS 1.2",
    }


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    judged = local(waiver("tls"), tests=Missing("none"))
    judged.write(tmp_path / "deep" / "local.json")
    assert GateFile.read(tmp_path / "deep" / "local.json") == judged.stored()


def test_the_last_line_stands_alone() -> None:
    assert last_line(local()).plain == f"gate local true   10 items, 0 false, 0 unknown, 0 waived    commit {HERE}"


def shown(judged: GateJudgement) -> str:
    console = Console(width=140, color_system=None, force_terminal=False)
    with console.capture() as capture:
        show(console, judged)
    return capture.get()
