"""The measured parts of docs/results/speed.md: each run replaces what stands between a part's two marks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import contest, judged, results, stack
from benchmarks.measured import BenchmarkError, Measured

LOAD: Final = ("requests/s", "p50 ms", "p95 ms", "p99 ms")


@dataclass(frozen=True, slots=True)
class Grid:
    """Columns and rows as they are shown on the console and on the page; all but the first are numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def of_contest(found: tuple[contest.Result, ...]) -> Grid:
    times = contest.ratios(found)
    rows = []
    for each in sorted(found, key=lambda each: each.total.rate):
        ratio = times[each.rival.name]
        span = f"{ratio.median:.2f} ({ratio.lowest:.2f} to {ratio.highest:.2f})"
        rows.append((each.rival.name, *_load(each.total), span))
    return Grid(("server", *LOAD, "times the best peer"), tuple(rows))


def of_stack(steps: Sequence[stack.Step]) -> Grid:
    """CPU is in microseconds per answered request."""
    columns = ("step", "asked/s", "entities", *LOAD, "errors", *(f"{who} us" for who in results.COSTS), "replica MB")
    rows = tuple(
        (
            step.name,
            f"{step.rate:,}" if step.rate else "most",
            f"{step.entities:,}" if step.entities else "",
            *_load(step.measured),
            str(step.measured.errors),
            *(f"{step.cost[who]:.0f}" for who in results.COSTS),
            f"{step.replica_rss_mb:.0f}",
        )
        for step in steps
    )
    return Grid(columns, rows)


def require(page: Path, parts: Sequence[str]) -> None:
    """BenchmarkError unless the page has a place for each part: known before anything is measured."""
    text = page.read_text() if page.is_file() else ""
    for part in parts:
        if any(text.count(mark) != 1 for mark in _marks(part)):
            begin, end = _marks(part)
            raise BenchmarkError(f"{page} has no place for the {part}: let it hold a line {begin} and a line {end}")


def fill(page: Path, part: str, where: results.Row, grid: Grid, promises: Sequence[judged.Promise]) -> None:
    """Replace the part's text."""
    require(page, [part])
    measured = "\n".join(
        [
            f"Measured on {where['day']} at {where['commit']}: {where['machine']}.",
            "",
            *_table(grid),
            "",
            *(f"- {promise.text}: **{promise.word}**, {promise.measured}." for promise in promises),
        ]
    )
    begin, end = _marks(part)
    between = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    page.write_text(between.sub(lambda _: f"{begin}\n{measured}\n{end}", page.read_text()))


def _marks(part: str) -> tuple[str, str]:
    return f"<!-- {part} -->", f"<!-- end of {part} -->"


def _table(grid: Grid) -> list[str]:
    rule = ("---", *("---:" for _ in grid.columns[1:]))
    return [f"| {' | '.join(cells)} |" for cells in (grid.columns, rule, *grid.rows)]


def _load(measured: Measured) -> tuple[str, ...]:
    return f"{measured.rate:,.0f}", *(f"{value:.1f}" for value in (measured.p50_ms, measured.p95_ms, measured.p99_ms))
