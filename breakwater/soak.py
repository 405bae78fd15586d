"""`breakwater soak`: repeat S-01 with a new seed each time and keep every single run as a row."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from breakwater.console import Steps
from breakwater.console import out as console


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("environment", default="local")
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(1), help="Each gives one run per variant.")
@click.option("--first", default=1, show_default=True, type=click.IntRange(0), help="The first seed.")
@click.option("--out", default="runs/soak", show_default=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--rows", default="docs/results/S-01.csv", show_default=True, type=click.Path(path_type=Path))
def soak(environment: str, seeds: int, first: int, out: Path, rows: Path) -> None:
    """Run every variant of S-01 with each seed, append each run to ROWS, exit with the worst verdict."""
    from breakwater import verification
    from breakwater.rows import append
    from experiments import run as runs
    from experiments.report import terminal
    from infra.local import runtime
    from infra.stack import local_plan

    scenario = verification.find_scenario("S-01")
    finished = []
    with runtime.locked(local_plan(environment)):
        for seed in range(first, first + seeds):
            for variant in scenario.breakwater.variants:
                order = runs.Order(environment, scenario, variant, seed, out.resolve())
                with Steps() as steps:
                    done = verification.verify(order, partial(steps.begin, f"{variant} {seed}"))
                append(rows, done.judgement)
                finished.append(done)
                console.print(terminal.last_line(done.judgement, done.shown_report()), soft_wrap=True)
    sys.exit(verification.exit_code(finished))
