"""`breakwater runs` and `breakwater compare`: what the directory of runs tells beyond the last one."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.markup import escape
from rich.table import Table

from breakwater.console import err
from breakwater.console import out as console

if TYPE_CHECKING:
    from experiments.archive import StoredRun
    from experiments.comparison import Comparison, Measured

RUN = click.Path(path_type=Path, exists=True, file_okay=False)
RUNS = click.Path(path_type=Path, file_okay=False)
STYLES: Final = {"true": "green", "false": "bold red", "unknown": "yellow"}
SHORT_COMMIT: Final = 7
NOT_TRUE: Final = "not true"
"""The only column that may take several lines."""


@click.command("runs")
@click.option("--out", default="runs", show_default=True, type=RUNS, help="The directory that holds the runs.")
@click.option("--scenario", default=None, help="Only runs of this one.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def runs_command(out: Path, scenario: str | None, as_json: bool) -> None:
    """List the stored runs, newest first, with what each came to."""
    from experiments.archive import archive

    kept = archive(out)
    rows = [_row(run) for run in kept.runs if scenario in (None, run.record.scenario)]
    if as_json:
        click.echo(json.dumps({"runs": rows, "unreadable": kept.unreadable}, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("run", "env", "commit", "verdict", NOT_TRUE):
        table.add_column(column, no_wrap=column != NOT_TRUE, overflow="fold")
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)
    for what in kept.unreadable:
        err.print(f"[yellow]![/] {escape(what)}", soft_wrap=True)


def _row(run: StoredRun) -> dict[str, Any]:
    from experiments.errors import RunFileError

    record = run.record
    try:
        document = run.verdict
    except RunFileError as error:
        err.print(f"[yellow]![/] {escape(str(error))}", soft_wrap=True)
        document = None
    promises = [] if document is None else document["promises"]
    return {
        "run": run.name,
        "began": run.began.isoformat(timespec="seconds"),
        "environment": record.environment,
        "scenario": record.scenario,
        "variant": record.variant,
        "seed": record.seed,
        "commit": record.commit,
        "completed": record.completed,
        "verdict": None if document is None else document["verdict"],
        "promises": len(promises),
        "not_true": [entry["id"] for entry in promises if entry["verdict"] != "true"],
    }


def _cells(row: Mapping[str, Any]) -> list[str]:
    """A run's name says when it began, of what, in which variant and by which seed."""
    verdict, commit = row["verdict"] or ("not judged" if row["completed"] else "cut off"), row["commit"] or ""
    return [
        escape(row["run"]),
        row["environment"],
        commit[:SHORT_COMMIT] + ("+" if commit.endswith("+") else ""),
        f"[{STYLES.get(verdict, 'dim')}]{verdict}[/]",
        ", ".join(row["not_true"]),
    ]


@click.command("compare")
@click.argument("run", type=RUN)
@click.option("--baseline", default=None, type=RUN, help="Otherwise the newest earlier run of the same kind.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def compare_command(run: Path, baseline: Path | None, as_json: bool) -> None:
    """Compare RUN with a baseline, promise by promise, against the noise of repeated runs beside it.

    Exit code 0 no worse, 1 a regression, 2 it cannot be told, 3 not comparable.
    """
    from experiments.archive import archive, stored_run
    from experiments.comparison import compare
    from experiments.errors import RunFileError

    this = stored_run(run)
    kin = list(archive(this.directory.parent).of_kind(this))
    earlier = (other for other in kin if other.began < this.began and other.verdict is not None)
    other = stored_run(baseline) if baseline is not None else next(earlier, None)
    if other is None:
        kind = " ".join(this.kind)
        raise RunFileError(f"{this.directory.parent} holds no earlier judged run of {kind}; name one with --baseline")
    if other.kind != this.kind:
        raise RunFileError(f"{other.name} is of {' '.join(other.kind)}, not of {' '.join(this.kind)}: not comparable")
    repeats = [measured(each) for each in kin if each.directory != other.directory and each.verdict is not None]
    judged = compare(measured(this), measured(other), repeats)
    if as_json:
        click.echo(json.dumps({"run": this.name, "baseline": other.name, **judged.to_json()}, indent=2))
    else:
        _show(judged, this, other)
    sys.exit(judged.exit_code)


def measured(run: StoredRun) -> dict[str, Measured]:
    """A run's promises as they were judged; RunFileError when it was not."""
    from experiments.comparison import Measured
    from experiments.errors import RunFileError

    if run.verdict is None:
        raise RunFileError(f"{run.name} was not judged: run `breakwater check {run.directory}` first")
    try:
        return Measured.all_of(run.verdict)
    except (KeyError, TypeError, ValueError) as error:
        raise RunFileError(
            f"verdict.json of {run.name} lacks {error}: run `breakwater check {run.directory}` first"
        ) from error


def _show(judged: Comparison, this: StoredRun, other: StoredRun) -> None:
    styles = {"regression": "bold red", "cannot tell": "yellow", "improvement": "green", "no change": "dim"}
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("promise", "run", "baseline", "noise", "change", "why"):
        table.add_column(column, justify="right" if column in {"run", "baseline", "noise"} else "left", overflow="fold")
    for entry in judged.promises:
        before = entry.baseline.value if entry.baseline is not None else None
        table.add_row(
            escape(entry.promise.title),
            _figure(entry.promise.value),
            _figure(before),
            _figure(entry.noise),
            f"[{styles[entry.change.value]}]{entry.change.value}[/]",
            escape(entry.reason),
        )
    console.print(f"[dim]run[/]       {escape(this.name)}\n[dim]baseline[/]  {escape(other.name)}", soft_wrap=True)
    console.print(table)
    console.print(f"[{styles[judged.change.value]}]{judged.change.value}[/]")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
