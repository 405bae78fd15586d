"""`load-test` and `load-plan`: load that nothing disturbs, judged as a run, or planned for Locust alone."""

from __future__ import annotations

import json
import secrets
import sys
from functools import partial
from pathlib import Path
from typing import cast

import click

from breakwater.console import Steps
from breakwater.console import out as console
from loadtests.profiles import LONGEST_S, PROFILES, ProfileName


@click.command("load-test", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("environment")
@click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    default="normal",
    show_default=True,
    help=f"How the rates change over time: {'; '.join(f'{name}, {each.title}' for name, each in PROFILES.items())}.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(5, LONGEST_S),
    default=None,
    help="How long; without it as long as the profile lasts by itself: a minute, the soak an hour.",
)
@click.option("--rate", default=None, type=click.FloatRange(1, 5000), help="Predictions a second; the rest in scale.")
@click.option("--seed", default=None, type=click.IntRange(0), help="Keys, arrivals and what is asked follow from it.")
@click.option("--out", default="runs", show_default=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("-q", "--quiet", is_flag=True, help="Only the last line.")
@click.option("--json", "as_json", is_flag=True, help="The verdict, for programs.")
def load_test(
    environment: str,
    profile: str,
    seconds: float | None,
    rate: float | None,
    seed: int | None,
    out: Path,
    quiet: bool,
    as_json: bool,
) -> None:
    """Load the environment without damaging it and judge what came back. Exit code 0 true, 1 false, 2 unknown."""
    from breakwater import verification
    from experiments import run as runs
    from experiments.report import terminal
    from infra.stack import locked

    name = cast(ProfileName, profile)
    scenario = verification.load_test(name, seconds)
    chosen = verification.new_seed() if seed is None else seed
    order = runs.Order(environment, scenario, name, chosen, out.resolve(), rate)
    with locked(environment), Steps() as steps:
        passed = (lambda _: None) if quiet or as_json else partial(steps.done, scenario.breakwater.id)
        done = verification.verify(order, partial(steps.begin, name), passed)
    if as_json:
        click.echo(json.dumps(done.judgement.to_json(), indent=2))
    elif quiet:
        console.print(terminal.last_line(done.judgement, done.shown_report()), soft_wrap=True)
    else:
        answered = done.judgement.of("answered_in_time")
        for shown in answered.evidence if answered is not None else ():
            terminal.exhibit(console, shown)
        terminal.show(console, done.judgement, done.shown_report())
    sys.exit(done.judgement.exit_code)


@click.command("load-plan", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("environment")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Gets plan and flights.")
def load_plan(environment: str, out: Path) -> None:
    """Write a load plan of an environment that is up: where it answers, what to ask it for. Sends nothing.

    Locust asks for it when it is started without a plan; rates and times in it are only examples.
    """
    from breakwater import verification
    from experiments import planning
    from infra.stack import open_environment, topology_of
    from loadtests.plan import Rates

    found = open_environment(environment)
    planning.demand_leave(topology_of(environment), environment)
    found.health()  # says that it is not up, if that is so
    planning.demand_model(found, environment)
    load = verification.load_test("normal", None).breakwater.load
    out.mkdir(parents=True, exist_ok=True)
    path = planning.write_plan(
        found,
        planning.slot_map_of(found, environment),
        out.resolve(),
        name=environment,
        run_tag=secrets.randbits(64),
        seed=1,
        rates=Rates(**load.rates.model_dump()),
        lasts_s=load.baseline_s,
        flights_per_shard=load.flights_per_shard,
    )
    click.echo(path)
