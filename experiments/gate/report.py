"""The gate's table for people and its JUnit report for CI."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.checkers.finding import Verdict, count
from experiments.gate.judgement import GateJudgement, Line
from experiments.junit import xml_text
from experiments.report.terminal import SIGNS, STYLES

WAIVED: Final = "waived"


def show(console: Console, judgement: GateJudgement) -> None:
    """One row for each item, why it is what it is below, waivers and the last line."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for no_wrap in (True, True, False):
        table.add_column(no_wrap=no_wrap, overflow="fold")
    for line in judgement.lines:
        verdict = line.outcome.verdict
        said = Text(line.item.demand)
        said.append(f"\n{line.outcome.seen}", style="dim")
        if line.waiver is not None:
            said.append(f"\nwaived until {line.waiver.expires}: {line.waiver.reason}", style="yellow")
        word = f"{verdict.value}, {WAIVED}" if line.waiver is not None else verdict.value
        table.add_row(
            Text(f"{SIGNS[verdict]} {line.item.id}", style=STYLES[verdict]), Text(word, style=STYLES[verdict]), said
        )
    console.print(table)
    for words in judgement.ignored:
        console.print(Text(f"! {words}", style="yellow"), soft_wrap=True)
    console.print(last_line(judgement), soft_wrap=True)


def last_line(judgement: GateJudgement) -> Text:
    """`gate local true   10 items, 0 false, 0 unknown, 0 waived   commit 3f9c2ab`."""
    lines = judgement.lines
    counted = {verdict: sum(_open(line, verdict) for line in lines) for verdict in Verdict}
    waived = sum(line.waiver is not None for line in lines)
    text = Text(f"gate {judgement.subject.environment} ")
    text.append(judgement.verdict.value, style=STYLES[judgement.verdict])
    text.append(
        f"   {count(len(lines), 'item')}, {counted[Verdict.FALSE]} false, {counted[Verdict.UNKNOWN]} unknown, "
        f"{waived} waived    commit {judgement.subject.commit or 'unknown'}"
    )
    return text


def _open(line: Line, verdict: Verdict) -> bool:
    return line.waiver is None and line.outcome.verdict is verdict


def junit_xml(judgement: GateJudgement) -> bytes:
    """One case for each item: `false` a failure, `unknown` an error, waived a skip with its reason."""
    lines = judgement.lines
    counts = {
        "tests": str(len(lines)),
        "failures": str(sum(_open(line, Verdict.FALSE) for line in lines)),
        "errors": str(sum(_open(line, Verdict.UNKNOWN) for line in lines)),
        "skipped": str(sum(line.waiver is not None for line in lines)),
    }
    name = f"gate {judgement.subject.environment}"
    suites = ElementTree.Element("testsuites", {"name": "breakwater", **counts})
    suite = ElementTree.SubElement(suites, "testsuite", {"name": name, **counts})
    for line in lines:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": name, "name": f"{line.item.id}: {line.item.demand}"}
        )
        seen = xml_text(line.outcome.seen)
        if line.waiver is not None:
            why = f"{line.outcome.verdict.value}, waived until {line.waiver.expires}: {line.waiver.reason}"
            ElementTree.SubElement(case, "skipped", {"message": xml_text(why)})
        elif line.outcome.verdict is not Verdict.TRUE:
            tag = "failure" if line.outcome.verdict is Verdict.FALSE else "error"
            ElementTree.SubElement(case, tag, {"message": seen, "type": line.outcome.verdict.value})
        ElementTree.SubElement(case, "system-out").text = f"examined in {line.evidence}: {seen}"
    ElementTree.indent(suites)
    document: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document + b"\n"
