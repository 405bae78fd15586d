"""`make bench`: the comparison, the stack, or both; prints every promise with what was measured and keeps the rows."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks import chart, contest, judged, results, rivals, stack
from benchmarks.measured import BenchmarkError, Measured
from benchmarks.platform import Platform, running

ROOT: Final = Path(__file__).resolve().parents[1]
ENVIRONMENTS: Final = ROOT / ".bench"
"""The peers' environments stay there; the platform below it goes with the run."""
OUT: Final = ROOT / "docs" / "results"
EXIT_USAGE: Final = 3

console = Console()


def main() -> int:
    options = _options()
    try:
        rivals.install(ENVIRONMENTS)
        with running(ENVIRONMENTS / "platform", keep=options.keep) as platform:
            where = results.where(_commit())
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
    parser.add_argument("part", nargs="?", choices=("all", "peers", "stack"), default="all")
    parser.add_argument("--rounds", type=int, default=3, help="how often the load goes round the servers")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each round and step")
    parser.add_argument("--million", action="store_true", help="also with a million entities")
    parser.add_argument("--keep", action="store_true", help="leave the environment up, for the next run")
    parser.add_argument("--out", type=Path, default=OUT, help="where the rows are added")
    return parser.parse_args()


def _peers(platform: Platform, options: argparse.Namespace, where: results.Row) -> None:
    found = contest.run(platform, ENVIRONMENTS, rounds=options.rounds, seconds=options.seconds, tell=console.log)
    results.append(options.out / "speed-peers.csv", results.CONTEST, results.contest_rows(found, where))
    (options.out / "speed-peers.svg").write_text(_chart(found))
    times = contest.ratios(found)
    table = _table("server", "requests/s", "p50 ms", "p95 ms", "p99 ms", "times best peer", "lowest to highest")
    for each in sorted(found, key=lambda each: each.total.rate):
        ratio = times[each.rival.name]
        span = f"{ratio.lowest:.2f} to {ratio.highest:.2f}"
        table.add_row(each.rival.name, *_cells(each.total), f"{ratio.median:.2f}", span)
    console.print(table)
    _print(judged.of_contest(found))


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
    costs = [f"{who} us" for who in results.COSTS]
    table = _table("step", "asked/s", "entities", "requests/s", "p50 ms", "p95 ms", "p99 ms", *costs, "replica MB")
    for step in found:
        spent = [f"{step.cost[who]:.0f}" for who in results.COSTS]
        entities = f"{step.entities:,}" if step.entities else ""
        asked = f"{step.rate:,}" if step.rate else "most"
        table.add_row(step.name, asked, entities, *_cells(step.measured), *spent, f"{step.replica_rss_mb:.0f}")
    console.print(table)
    _print(judged.of_stack(found))


def _cells(measured: Measured) -> tuple[str, ...]:
    return f"{measured.rate:,.0f}", *(f"{value:.1f}" for value in (measured.p50_ms, measured.p95_ms, measured.p99_ms))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _print(promises: Sequence[judged.Promise]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for promise in promises:
        mark, word = ("[green]●[/]", "kept") if promise.kept else ("[red]■[/]", "missed")
        table.add_row(mark, promise.text, promise.measured, word)
    console.print(table)


def _commit() -> str:
    """Of this checkout; `+` when it holds what no commit does."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"],  # noqa: S607 - git of the PATH
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
