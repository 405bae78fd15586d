"""The report: one offline file that says the verdict first, shows its evidence, and gives nothing away."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments.checkers.finding import Verdict
from experiments.record import RunRecord
from experiments.report import render
from experiments.report.page import page_of
from experiments.report.terminal import expected, last_line, show, summary
from experiments.verdict import judge_run
from tests.unit.experiments.judging import SHORT, judge_synthetic
from tests.unit.experiments.synthetic_run import Synthetic

VOID = {"meta", "rect", "circle", "line", "path", "br"}

RUNS: dict[str, dict[str, Any]] = {
    "true": {},
    "false": {"lose": 3, "outage_s": 3.5, "detect_s": 2.0, "promote_s": 3.2, "route_s": None},
    "unknown": {"proven": False, "outage_s": 0, "stalled_s": (1, 3), "journal": False},
}


class Page(HTMLParser):
    """Checks nesting while it reads, and collects texts, attributes and headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.headings: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"style"} and data.strip():
            self.words.append(data.strip())
            if self.open[-1] == "h2":
                self.headings.append(data.strip())


def page(directory: Path, **defects: Any) -> tuple[Page, str]:
    run_dir = Synthetic(**{**SHORT, **defects}).write(directory / "run")
    text = render(run_dir, judge_run(run_dir)).read_text()
    return Page(text), text


@pytest.mark.parametrize("verdict", RUNS)
def test_the_page_stands_alone(tmp_path: Path, verdict: str) -> None:
    parsed, text = page(tmp_path, **RUNS[verdict])
    assert "//" not in re.sub(r"/\*.*?\*/", "", text)
    assert not parsed.tags & {"script", "link", "img", "iframe", "object", "form", "a"}
    assert not [name for name, _ in parsed.attributes if name in {"src", "href"} or name.startswith("on")]
    assert "url(" not in text
    assert "@import" not in text
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in parsed.attributes
    assert str(tmp_path) not in text


@pytest.mark.parametrize("verdict", RUNS)
def test_the_verdict_stands_first_and_in_words(tmp_path: Path, verdict: str) -> None:
    parsed, _ = page(tmp_path, **RUNS[verdict])
    body = parsed.words[parsed.words.index(f"S-01 primary shard failure, server killed: {verdict}") + 1 :]
    assert body[0] == verdict
    assert ("class", f"badge {verdict}") in parsed.attributes
    shapes = {"true": "circle", "false": "rect", "unknown": "circle"}
    assert shapes[verdict] in parsed.tags


def test_a_true_report_follows_the_agreed_order(tmp_path: Path) -> None:
    parsed, _ = page(tmp_path)
    assert [re.sub(r"\d+", "N", heading) for heading in parsed.headings] == [
        "Promises",
        "Operations per second",
        "Latency",
        "Operations that were not good",
        "Where the N ms went",
        "What happened",
        "How it was measured",
    ]
    assert any(words.startswith("breakwater check ") for words in parsed.words)


def test_a_false_report_puts_the_broken_promise_and_its_evidence_first(tmp_path: Path) -> None:
    parsed, _ = page(tmp_path, **RUNS["false"])
    assert parsed.headings[:3] == ["What was broken", "What could not be judged", "Promises"]
    lost = next(entry for entry in judge_synthetic(**RUNS["false"]).judged if entry.promise.id == "lost-writes")
    for row in lost.finding.evidence[0].rows:
        assert str(row[0]) in parsed.words
    assert "not observed" in " ".join(parsed.words)


def test_each_promise_has_its_reason_out_of_the_way(tmp_path: Path) -> None:
    broken, _ = page(tmp_path, **RUNS["false"])
    lost = next(entry.promise for entry in judge_synthetic().judged if entry.promise.id == "lost-writes")
    # where it is broken, and below the table with all the others
    assert broken.words.count(lost.why or "") == 2
    summary_at = broken.words.index("why each is promised")
    for entry in judge_synthetic().judged:
        assert entry.promise.why in broken.words[summary_at:]


def test_a_run_from_before_there_were_reasons_still_gets_a_report(tmp_path: Path) -> None:
    run_dir = Synthetic(**SHORT).write(tmp_path / "run")
    document = json.loads((run_dir / "scenario.json").read_text())
    for promise in document["extensions"][0]["promises"]:
        del promise["why"]
    (run_dir / "scenario.json").write_text(json.dumps(document))
    judgement = judge_run(run_dir)
    assert judgement.verdict is judge_synthetic().verdict
    assert "acknowledged writes lost" in Page(render(run_dir, judgement).read_text()).words


def test_an_unknown_report_names_the_cause_before_what_it_left_open(tmp_path: Path) -> None:
    parsed, _ = page(tmp_path, **RUNS["unknown"])
    assert parsed.headings[0] == "What could not be judged"
    assert parsed.words.index("the fault happened") < parsed.words.index("acknowledged writes lost")


def test_figures_say_in_words_what_they_show(tmp_path: Path) -> None:
    parsed, _ = page(tmp_path)
    labels = [value for name, value in parsed.attributes if name == "aria-label"]
    assert any(label.startswith("latency over the run") and "write p99, shard 1" in label for label in labels)
    assert any(label.startswith("recovery by layer: detect 41 ms, promote 172 ms") for label in labels)


def test_words_from_outside_are_escaped_and_unlisted_event_data_is_left_out(tmp_path: Path) -> None:
    run_dir = Synthetic(**SHORT).write(tmp_path / "run")
    record = json.loads((run_dir / "run.json").read_text())
    record["notes"] = ["<script>alert(1)</script>"]
    record["fault"]["evidence"] = "<b>gone</b>"
    (run_dir / "run.json").write_text(json.dumps(record))
    event = {"t_ns": record["fault"]["t_ns"] + 5, "clock_id": record["clock_id"], "source": "warden", "member": "m"}
    with (run_dir / "events.jsonl").open("a") as events:
        events.write(json.dumps(event | {"kind": "gone", "data": {"password": "hunter2"}}) + "\n")
        events.write(json.dumps(event | {"kind": "odd", "data": {"token": "hunter2"}}) + "\n")

    text = render(run_dir, judge_run(run_dir)).read_text()

    assert "<script>" not in text
    assert "<b>gone" not in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "lost", [["history.arrow"], ["events.jsonl"], ["history.arrow", "events.jsonl", "final.arrow"]]
)
def test_a_run_that_was_cut_off_still_gets_a_report(tmp_path: Path, lost: list[str]) -> None:
    run_dir = Synthetic(**SHORT, journal=False, completed=False).write(tmp_path / "run")
    for name in lost:
        (run_dir / name).unlink()
    parsed = Page(render(run_dir, judge_run(run_dir)).read_text())
    assert "unknown" in parsed.words


def test_a_report_and_a_verdict_say_what_ran(tmp_path: Path) -> None:
    run_dir = Synthetic(**SHORT).write(tmp_path / "run")
    versions = {"Python": "3.11.2", "etcd": "not known: <etcd> did not answer within 5 s"}
    assert "versions" not in Page(page_of(run_dir, judge_run(run_dir))).words
    RunRecord.read(run_dir).model_copy(update={"versions": versions}).write(run_dir)
    judgement = judge_run(run_dir)
    words = Page(page_of(run_dir, judgement)).words
    assert words[words.index("versions") + 1] == "Python 3.11.2, etcd not known: <etcd> did not answer within 5 s"
    assert judgement.to_json()["versions"] == versions


def test_a_run_without_a_fault_still_gets_a_report(tmp_path: Path) -> None:
    parsed, _ = page(tmp_path, fault=False)
    assert any(words.startswith("No fault was done while") for words in parsed.words)


def shown(**defects: Any) -> str:
    console = Console(width=140, color_system=None, force_terminal=False)
    with console.capture() as capture:
        show(console, judge_synthetic(**defects), Path("runs/latest/report.html"))
    return capture.get()


def test_the_terminal_shows_one_line_for_each_promise_without_colour() -> None:
    text = shown()
    lines = text.splitlines()
    assert lines[0] == "S-01  primary shard failure, server killed"
    assert "\x1b" not in text
    assert len(lines) == 2 + len(judge_synthetic().judged)
    assert re.search(r"next acknowledged write, server killed +0\.2\d\d s +< 2 s +1 of 1 +true", text)
    assert lines[-1] == "verdict true   23 promises, 0 false, 0 unknown    report runs/latest/report.html"


@pytest.mark.parametrize("width", [160, 60])
def test_several_runs_end_with_one_line_each_and_the_worst_of_them(width: int) -> None:
    console = Console(width=width, color_system=None, force_terminal=False)
    all_of = len(judge_synthetic().judged)
    with console.capture() as captured:
        summary(console, [(judge_synthetic(), Path("runs/a.html")), (judge_synthetic(lose=2), Path("runs/b.html"))])
    first, second, last = captured.get().splitlines()
    kept = rf"{all_of} of {all_of} promises +\S true"
    assert re.search(rf"^S-01 +primary shard failure +server killed +{kept} +runs/a.html", first)
    assert re.search(rf"\d+ of {all_of} promises +\S false +runs/b.html", second)
    assert last.startswith(f"verdict false   2 scenarios, {2 * all_of} promises, ")


def test_a_promise_that_a_control_names_is_shown_with_what_must_be_said() -> None:
    console = Console(width=140, color_system=None, force_terminal=False)
    judged = {entry.promise.id: entry for entry in judge_synthetic(lose=2).judged}
    with console.capture() as captured:
        expected(console, [(judged["lost-writes"], Verdict.FALSE), (judged["predictions"], Verdict.UNKNOWN)])
    lost, predictions = captured.get().splitlines()
    assert re.search(r"^ +\u25a0 +acknowledged writes lost +2 +0 +is false +must be false$", lost.rstrip())
    assert re.search(r"^ +\u25cf .+ +0 +0 +is true +must be unknown$", predictions.rstrip())


def test_the_terminal_says_why_and_names_the_lost_keys() -> None:
    text = shown(lose=2)
    lost = next(entry for entry in judge_synthetic(lose=2).judged if entry.promise.id == "lost-writes")
    assert all(str(row[0]) in text for row in lost.finding.evidence[0].rows)
    assert last_line(judge_synthetic(lose=2)).plain == "verdict false   23 promises, 1 false, 0 unknown"
