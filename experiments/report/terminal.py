"""The promises table for the terminal: each verdict has a sign and a word, so that it reads without colour, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.checkers.finding import Exhibit, Verdict, count, merge
from experiments.report import words
from experiments.verdict import Judged, Judgement

SIGNS: Final = {
    Verdict.TRUE: "\N{BLACK CIRCLE}",
    Verdict.FALSE: "\N{BLACK SQUARE}",
    Verdict.UNKNOWN: "\N{WHITE CIRCLE}",
}
STYLES: Final = {Verdict.TRUE: "green", Verdict.FALSE: "bold red", Verdict.UNKNOWN: "yellow"}

INDENT: Final = 6
"""Width of the scenario's id, under which its promises stand."""

EXHIBIT_LINES: Final = 5
"""Rows of each exhibit: enough to see what kind of failure it was, the report has more."""


def show(console: Console, judgement: Judgement, report: Path | None = None) -> None:
    """Print the table of promises, why the worst of them failed, and the last line.

    Colour is the console's matter: without it (NO_COLOR, a pipe) sign and word still say everything.
    """
    run = judgement.run
    head = Text(f"{run.scenario:<{INDENT}}")
    head.append(judgement.title.lower(), style="bold")
    head.append(f", {run.variant.replace('-', ' ')}", style="dim")
    console.print(head)
    console.print(_table(judgement))
    for entry in judgement.worst_first():
        if entry.finding.verdict is not Verdict.TRUE:
            console.print(_why(entry), soft_wrap=True)
    console.print(last_line(judgement, report), soft_wrap=True)


def exhibit(console: Console, shown: Exhibit) -> None:
    """All rows of an exhibit as a table."""
    table = Table(title=shown.title, title_justify="left", title_style="dim", box=None, header_style="dim")
    for name in shown.columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in shown.rows:
        table.add_row(*("-" if cell is None else str(cell) for cell in row))
    console.print(table)


def last_line(judgement: Judgement, report: Path | None = None) -> Text:
    """What `-q` prints: `verdict true   16 promises, 0 false, 0 unknown    report ...`."""
    line = Text("verdict ")
    line.append(judgement.verdict.value, style=STYLES[judgement.verdict])
    promises = count(len(judgement.judged), "promise")
    line.append(f"   {promises}, {judgement.tally(Verdict.FALSE)} false, {judgement.tally(Verdict.UNKNOWN)} unknown")
    if report is not None:
        line.append(f"    report {report}")
    return line


def summary(console: Console, runs: Sequence[tuple[Judgement, Path]]) -> None:
    """One line for each run, then what all of them come to. Whole on a narrow terminal, too, which folds the lines: a
    table would leave out the scenarios' names there."""
    lines: list[tuple[str, ...]] = []
    for judgement, report in runs:
        kept = f"{judgement.tally(Verdict.TRUE)} of {count(len(judgement.judged), 'promise')}"
        verdict, variant = judgement.verdict, judgement.run.variant.replace("-", " ")
        sign = f"{SIGNS[verdict]} {verdict.value}"
        lines.append((judgement.run.scenario, judgement.title.lower(), variant, kept, sign, str(report)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for cells, (judgement, _) in zip(lines, runs, strict=True):
        line = Text()
        styles = ("bold", "", "dim", "dim", STYLES[judgement.verdict], "dim")
        for cell, width, style in zip(cells, widths, styles, strict=True):
            line.append(cell.ljust(width), style=style).append("  ")
        line.rstrip()
        console.print(line, soft_wrap=True)
    worst = merge(judgement.verdict for judgement, _ in runs)
    false, unknown = (sum(j.tally(verdict) for j, _ in runs) for verdict in (Verdict.FALSE, Verdict.UNKNOWN))
    promises = count(sum(len(judgement.judged) for judgement, _ in runs), "promise")
    line = Text("verdict ")
    line.append(worst.value, style=STYLES[worst])
    line.append(f"   {count(len(runs), 'scenario')}, {promises}, {false} false, {unknown} unknown")
    console.print(line, soft_wrap=True)


def expected(console: Console, entries: Sequence[tuple[Judged, Verdict]]) -> None:
    """A line for each promise of a control: what was measured, what is said and what must be said of it.

    The sign is the verdict's own, as everywhere; the colour says whether it is the one that it must be.
    """
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(width=INDENT - 2, justify="right")
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True, style="bold")
    table.add_column(no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="dim")
    for entry, must_be in entries:
        promise, verdict = entry.promise, entry.finding.verdict
        style = STYLES[Verdict.TRUE if verdict is must_be else Verdict.FALSE]
        table.add_row(
            Text(SIGNS[verdict], style=style),
            Text(promise.title),
            words.measured(promise, entry.finding),
            words.target(promise),
            Text(f"is {verdict.value}", style=style),
            f"must be {must_be.value}",
        )
    console.print(table)


def _table(judgement: Judgement) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(width=INDENT - 2, justify="right")
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True, style="bold")
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold", style="dim")
    table.add_column(no_wrap=True)
    for entry in judgement.judged:
        promise, finding = entry.promise, entry.finding
        table.add_row(
            Text(SIGNS[finding.verdict], style=STYLES[finding.verdict]),
            Text(promise.title),
            words.measured(promise, finding),
            words.target(promise),
            finding.out_of,
            Text(finding.verdict.value, style=STYLES[finding.verdict]),
        )
    return table


def _why(entry: Judged) -> Text:
    finding = entry.finding
    text = Text(" " * INDENT)
    text.append(f"{SIGNS[finding.verdict]} {entry.promise.title}: ", style=STYLES[finding.verdict])
    text.append(finding.reason)
    for exhibit in finding.evidence:
        indent = f"\n{' ' * INDENT}  "
        shown = exhibit.rows[:EXHIBIT_LINES]
        text.append(f"{indent}{exhibit.title} ({len(shown)} of {exhibit.total:,}): ", style="dim")
        text.append(", ".join(exhibit.columns), style="dim")
        for row in shown:
            text.append(f"{indent}  {', '.join('-' if cell is None else str(cell) for cell in row)}", style="dim")
    return text
