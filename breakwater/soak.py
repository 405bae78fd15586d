"""`breakwater soak`: the suite in rounds, each with a new seed and the next variants; every run is kept as a row."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from breakwater.console import Steps
from breakwater.console import out as console

if TYPE_CHECKING:
    from experiments.checkers.finding import Verdict
    from experiments.run import Order
    from experiments.scenario import Scenario
    from infra.environment import Environment


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("environment", default="local")
@click.option(
    "--scenario",
    "names",
    multiple=True,
    default=("all",),
    show_default=True,
    help="Again for each; `all` for every one.",
)
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(1))
@click.option("--first", default=1, show_default=True, type=click.IntRange(1), help="Number of the first round.")
@click.option("--out", default="runs/soak", show_default=True, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--rows",
    default="docs/results",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of soak.csv, and of S-01.csv with the layers of each kill.",
)
def soak(environment: str, names: tuple[str, ...], rounds: int, first: int, out: Path, rows: Path) -> None:
    """Run the scenarios round by round and append each run to ROWS; exit with the worst verdict.

    Round N runs every scenario once, with seed N, in its variant number N (after the last comes the first again). A run
    whose preflight fails is a row as well, `unknown` with the reason. What ENVIRONMENT can never do is refused at once.
    """
    from breakwater import verification
    from experiments.checkers.finding import merge
    from experiments.run import Order
    from experiments.verdict import EXIT_CODES
    from infra.local import runtime
    from infra.stack import local_plan, open_environment

    scenarios = verification.find_scenarios(names)
    orders = {
        number: [Order(environment, *chosen, number, out.resolve()) for chosen in of_round(scenarios, number)]
        for number in range(first, first + rounds)
    }
    verdicts = []
    with runtime.locked(local_plan(environment)):
        demand_faults_of_all(itertools.chain.from_iterable(orders.values()), open_environment(environment))
        for number, of_this in orders.items():
            found = [_run(order, number, rows) for order in of_this]
            console.print(f"round {number}: {merge(found).value}, {len(found)} runs")
            verdicts += found
    sys.exit(EXIT_CODES[merge(verdicts)])


def _run(order: Order, number: int, rows: Path) -> Verdict:
    """One run of round `number`, and its rows."""
    from breakwater import verification
    from breakwater.rows import append_kill, append_not_begun, append_run
    from experiments.checkers.finding import Verdict
    from experiments.planning import PreflightFailed
    from experiments.report import terminal

    scenario = order.scenario.breakwater.id
    try:
        with Steps() as steps:
            done = verification.verify(order, partial(steps.begin, f"round {number}: {scenario} {order.variant}"))
    except PreflightFailed as error:
        append_not_begun(rows / "soak.csv", order, number, str(error))
        console.print(escape(f"{scenario} {order.variant} is unknown: {error}"), soft_wrap=True)
        return Verdict.UNKNOWN
    append_run(rows / "soak.csv", done.judgement, number)
    if scenario == "S-01":
        append_kill(rows / "S-01.csv", done.judgement)
    console.print(terminal.last_line(done.judgement, done.shown_report()), soft_wrap=True)
    return done.judgement.verdict


def of_round(scenarios: Sequence[Scenario], number: int) -> Iterable[tuple[Scenario, str]]:
    """Each scenario with the variant of round `number`, counted from 1."""
    for scenario in scenarios:
        variants = list(scenario.breakwater.variants)
        yield scenario, variants[(number - 1) % len(variants)]


def demand_faults_of_all(orders: Iterable[Order], environment: Environment) -> None:
    """PreflightFailed naming each variant whose faults may not act or cannot be done: not hours later, in its round."""
    from experiments.planning import PreflightFailed
    from experiments.run import demand_faults

    refused: dict[str, str] = {}
    for order in orders:
        try:
            demand_faults(order, environment)
        except PreflightFailed as error:
            refused[f"{order.scenario.breakwater.id} {order.variant}"] = str(error).removesuffix("; nothing was done")
    if refused:
        why = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise PreflightFailed(
            f"{why}; run it as root, if that is what lacks, or choose others with --scenario; nothing was done"
        )
