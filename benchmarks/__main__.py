"""`make bench`: the comparison, the stack, or both; prints every promise with what was measured, keeps the rows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks import chart, contest, judged, page, results, rivals, stack
from benchmarks.measured import BenchmarkError
from benchmarks.platform import Platform, running
from experiments.commit import commit

ROOT: Final = Path(__file__).resolve().parents[1]
ENVIRONMENTS: Final = ROOT / ".bench"
"""The peers' environments stay there; the platform below it goes with the run."""
OUT: Final = ROOT / "docs" / "results"
PAGE: Final = "speed.md"
PARTS: Final = {"peers": "comparison", "stack": "stack"}
"""What can be measured alone, and what the page calls it."""
EXIT_USAGE: Final = 3

console = Console()


def main() -> int:
    options = _options()
    parts = [PARTS[part] for part in PARTS if options.part in ("all", part)]
    try:
        page.require(options.out / PAGE, parts)
        rivals.install(ENVIRONMENTS)
        with running(ENVIRONMENTS / "platform", keep=options.keep) as platform:
            where = results.where(commit() or "unknown")
            if options.part != "stack":
                _peers(platform, options, where)
            if options.part != "peers":
                _stack(platform, options, where)
    except BenchmarkError as error:
        console.print(f"[red]■[/] {error}", soft_wrap=True)
        return EXIT_USAGE
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", nargs="?", choices=("all", *PARTS), default="all")
    parser.add_argument("--rounds", type=int, default=3, help="how often the load goes round the servers")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each round and step")
    parser.add_argument("--million", action="store_true", help="also with a million entities")
    parser.add_argument("--keep", action="store_true", help="leave the environment up, for the next run")
    parser.add_argument("--out", type=Path, default=OUT, help="where the rows are added and the page is")
    return parser.parse_args()


def _peers(platform: Platform, options: argparse.Namespace, where: results.Row) -> None:
    found = contest.run(platform, ENVIRONMENTS, rounds=options.rounds, seconds=options.seconds, tell=console.log)
    results.append(options.out / "speed-peers.csv", results.CONTEST, results.contest_rows(found, where))
    (options.out / "speed-peers.svg").write_text(_chart(found))
    _conclude(options, "peers", where, page.of_contest(found), judged.of_contest(found))


def _chart(found: Sequence[contest.Result]) -> str:
    values = [
        chart.Bar(each.rival.name, each.rival.kind, total.rate, f"{total.rate:,.0f}/s, p99 {total.p99_ms:.1f} ms")
        for each in sorted(found, key=lambda each: each.total.rate)
        for total in (each.total,)
    ]
    return chart.bars(f"One worker, {contest.CONNECTIONS} connections: requests a second", values)


def _stack(platform: Platform, options: argparse.Namespace, where: results.Row) -> None:
    found = []
    for step in stack.steps(platform, seconds=options.seconds, million=options.million, tell=console.log):
        found.append(step)
        results.append(options.out / "speed-stack.csv", results.STACK, results.stack_rows([step], where))
    _conclude(options, "stack", where, page.of_stack(found), judged.of_stack(found))


def _conclude(
    options: argparse.Namespace,
    part: str,
    where: results.Row,
    grid: page.Grid,
    promises: Sequence[judged.Promise],
) -> None:
    """Print what was found and let the page say it."""
    measured = Table(*grid.columns[:1], box=None, pad_edge=False, header_style="dim")
    for column in grid.columns[1:]:
        measured.add_column(column, justify="right")
    for row in grid.rows:
        measured.add_row(*row)
    console.print(measured)
    judgement = Table(box=None, pad_edge=False, show_header=False)
    for promise in promises:
        mark = "[green]●[/]" if promise.kept else "[red]■[/]"
        judgement.add_row(mark, promise.text, promise.measured, promise.word)
    console.print(judgement)
    page.fill(options.out / PAGE, PARTS[part], where, grid, promises)


if __name__ == "__main__":
    sys.exit(main())
