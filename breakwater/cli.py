"""The command line: each command reads its environment, calls what does the work, and maps the outcome to a code.

A command imports what does its work when it runs: all of that together takes two seconds, too long for `--help`.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from rich.markup import escape
from rich.table import Table

from breakwater.console import Steps, err
from breakwater.console import out as console
from breakwater.gate import gate
from breakwater.history import compare_command, runs_command
from breakwater.loading import load_plan, load_test
from breakwater.manifests import preflight, render, secrets
from breakwater.models import models
from breakwater.soak import soak

if TYPE_CHECKING:
    from breakwater.verification import ControlResult

EXIT_USAGE: Final = 3
"""Preflight or usage (docs: 0 valid, 1 a promise was broken, 2 unknown, 3 preflight or usage)."""
EXIT_INTERRUPTED: Final = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="breakwater")
def cli() -> None:
    """An online-prediction platform, and the proof that it survives failure."""


@cli.command()
@click.argument("environment")
def up(environment: str) -> None:
    """Bring the environment up and wait until every member is healthy."""
    from infra.local import runtime
    from infra.stack import local_plan

    plan = local_plan(environment)
    with runtime.locked(plan), Steps() as steps:
        runtime.up(plan, steps)
    console.print(f"{environment} is up: {plan.edge_url}  (CA {plan.ca_file}, token {plan.token_file})", soft_wrap=True)


@cli.command()
@click.argument("environment")
@click.option("--purge", is_flag=True, help="Also delete all of its data, secrets and models.")
def down(environment: str, purge: bool) -> None:
    """Stop the environment; its data stays unless --purge says otherwise."""
    from infra.local import runtime
    from infra.stack import local_plan

    plan = local_plan(environment)
    with runtime.locked(plan):
        with Steps() as steps:
            was_up = runtime.down(plan, steps)
        if purge:
            runtime.purge(plan)
    console.print(f"{environment} {'is down' if was_up else 'was not up'}{', its state is deleted' if purge else ''}")


@cli.command()
@click.argument("environment")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(environment: str, as_json: bool) -> None:
    """Show every member: role, timeline, lag, state. Exit code 0 when all are healthy, 1 otherwise."""
    from infra.stack import open_environment

    health = open_environment(environment).health()
    if as_json:
        console.print_json(data=[{**_fields(line)} for line in health])
    else:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("member", "component", "role", "timeline", "lag", "state"):
            table.add_column(column, justify="right" if column in {"timeline", "lag"} else "left")
        for line in health:
            table.add_row(
                line.member,
                line.component,
                line.role,
                "" if line.timeline is None else str(line.timeline),
                "" if line.lag_bytes is None else f"{line.lag_bytes} B",
                f"[green]●[/] {line.state}" if line.healthy else f"[red]■[/] {line.state}",
            )
        console.print(table)
    if not all(line.healthy for line in health):
        sys.exit(1)


def _fields(line: Any) -> dict[str, Any]:
    return {name: getattr(line, name) for name in line.__slots__}


@cli.command()
@click.argument("environment")
@click.option("--json", "as_json", is_flag=True, help="For anybody's own tools.")
def endpoints(environment: str, as_json: bool) -> None:
    """Where everything answers."""
    from infra.stack import open_environment

    found = open_environment(environment).endpoints()
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("member", "component", "address", "pid"):
        table.add_column(column)
    for member in found.members:
        address = member.url or f"{member.host}:{member.port}"
        table.add_row(member.name, member.component, address, "" if member.pid is None else str(member.pid))
    console.print(table)


@cli.command()
@click.argument("environment")
@click.argument("member")
@click.option("-n", "--lines", default=40, show_default=True, type=click.IntRange(1), help="Last lines of each log.")
def logs(environment: str, member: str, lines: int) -> None:
    """Show the end of a member's logs."""
    from infra.environment import EnvironmentFault
    from infra.stack import open_environment

    found = open_environment(environment).logs(member)
    if not found:
        raise EnvironmentFault(f"{member} of {environment} has no logs yet; see `breakwater status {environment}`")
    for path in found:
        console.print(f"[dim]== {escape(str(path))}[/]", soft_wrap=True)
        with path.open(errors="replace") as content:
            for line in content.readlines()[-lines:]:
                click.echo(line.rstrip("\n"))


@cli.command()
@click.argument("environment")
def heal(environment: str) -> None:
    """Undo every fault that an experiment left behind."""
    from infra import stack

    with stack.locked(environment):
        done = stack.heal(environment)
    for line in done:
        console.print(f"[green]●[/] {line}")
    console.print(f"undone: {len(done)}" if done else f"nothing to heal in {environment}")


@cli.command()
@click.argument("environment")
@click.option("--months", default="1-12", show_default=True, help="Months of 2013, as FIRST-LAST.")
def load(environment: str, months: str) -> None:
    """Load the flights of 2013 into the feature store; running it again changes nothing."""
    from breakwater import workloads
    from infra.local import runtime
    from infra.stack import local_plan

    plan = local_plan(environment)
    chosen = _months(months)
    with runtime.locked(plan), Steps() as steps:
        runtime.demand_up(plan)
        workloads.load(plan, steps, months=chosen)


def _months(text: str) -> range:
    first, _, last = text.partition("-")
    try:
        months = range(int(first), int(last or first) + 1)
    except ValueError:
        months = range(0)
    if not months or months[0] < 1 or months[-1] > 12:  # noqa: PLR2004 - months of a year
        raise click.BadParameter(f"{text!r} is not a range of months like 1-12", param_hint="--months")
    return months


@cli.command()
@click.argument("environment")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0))
def train(environment: str, seed: int) -> None:
    """Order a walk-forward training from Mage and follow it, until its ensemble is promoted or the reason against it.

    The run goes on when this command is interrupted; the API's replicas pick up by themselves what it promotes.
    """
    from breakwater import workloads
    from infra.local import runtime
    from infra.stack import local_plan

    plan = local_plan(environment)
    with runtime.locked(plan), Steps() as steps:
        runtime.demand_up(plan)
        if workloads.train_model(plan, steps, seed=seed).promoted:
            workloads.wait_serving(plan, steps)


@cli.command()
@click.argument("environment")
@click.option(
    "--scenario",
    "names",
    multiple=True,
    default=("S-01",),
    show_default=True,
    help="Again for each; `all` for every one.",
)
@click.option("--variant", default=None, help="Only this one of a single scenario; otherwise all that it has.")
@click.option("--seed", default=None, type=click.IntRange(0), help="Keys, arrivals and the victim follow from it.")
@click.option("--rate", default=None, type=click.FloatRange(1, 5000), help="Predictions a second; the rest in scale.")
@click.option("--out", default="runs", show_default=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("-q", "--quiet", is_flag=True, help="Only the last line.")
@click.option("--json", "as_json", is_flag=True, help="The verdicts, for programs.")
def verify(
    environment: str,
    names: tuple[str, ...],
    variant: str | None,
    seed: int | None,
    rate: float | None,
    out: Path,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run scenarios under load and judge every promise. Exit code 0 true, 1 false, 2 unknown, 3 not begun."""
    from breakwater import verification
    from experiments import run as runs
    from experiments.report import terminal
    from infra.stack import locked

    scenarios = verification.find_scenarios(names)
    if variant and len(scenarios) > 1:
        raise click.BadParameter("only one scenario can be run in one variant", param_hint="--variant")
    wanted = [(s, chosen) for s in scenarios for chosen in ([variant] if variant else s.breakwater.variants)]
    for scenario, chosen in wanted:
        scenario.promises_of(chosen)
    finished = []
    with locked(environment):
        for scenario, chosen in wanted:
            order = runs.Order(
                environment, scenario, chosen, verification.new_seed() if seed is None else seed, out.resolve(), rate
            )
            with Steps() as steps:
                passed = (lambda _: None) if quiet or as_json else partial(steps.done, scenario.breakwater.id)
                done = verification.verify(order, partial(steps.begin, chosen), passed)
            finished.append(done)
            if not (quiet or as_json):
                terminal.show(console, done.judgement, done.shown_report())
    if as_json:
        click.echo(json.dumps([done.judgement.to_json() for done in finished], indent=2))
    elif quiet:
        for done in finished:
            console.print(terminal.last_line(done.judgement, done.shown_report()), soft_wrap=True)
    sys.exit(verification.exit_code(finished))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def scenarios(as_json: bool) -> None:
    """List the scenarios, read strictly: exit code 3 when one of them could not be run as it is written."""
    from breakwater import verification

    found = [(path, scenario.breakwater) for path, scenario in verification.all_scenarios()]
    if as_json:
        listed = [
            {
                "id": own.id,
                "title": own.title,
                "variants": list(own.variants),
                "file": path.name,
                "promises": len(own.promises),
            }
            for path, own in found
        ]
        click.echo(json.dumps(listed, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("id", "scenario", "variants", "promises", "file"):
        table.add_column(column, justify="right" if column == "promises" else "left")
    for path, own in found:
        table.add_row(own.id, own.title, ", ".join(own.variants), str(len(own.promises)), path.name)
    console.print(table)


@cli.command()
@click.argument("run_dir", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("-q", "--quiet", is_flag=True, help="Only the last line.")
@click.option("--json", "as_json", is_flag=True, help="The verdict, for programs.")
def check(run_dir: Path, quiet: bool, as_json: bool) -> None:
    """Judge a stored run again, offline, from its files alone."""
    from breakwater import verification
    from experiments.report import terminal

    done = verification.finish(run_dir.resolve())
    if as_json:
        click.echo(json.dumps(done.judgement.to_json(), indent=2))
    elif quiet:
        console.print(terminal.last_line(done.judgement, done.shown_report()), soft_wrap=True)
    else:
        terminal.show(console, done.judgement, done.shown_report())
    sys.exit(done.judgement.exit_code)


@cli.command()
@click.argument("environment")
@click.argument("names", nargs=-1)
@click.option("--seed", default=None, type=click.IntRange(0))
@click.option("--out", default="runs/controls", show_default=True, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--rows",
    default="docs/results",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of controls.csv: a row for each promise that a control names.",
)
def controls(environment: str, names: tuple[str, ...], seed: int | None, out: Path, rows: Path) -> None:
    """Put known defects in and see that the suite detects each. Exit code 0 when it does."""
    from breakwater import verification
    from breakwater.rows import append_control
    from experiments.controls.catalogue import beside, expectations
    from experiments.report import terminal
    from infra.local import runtime
    from infra.stack import local_plan

    plan = local_plan(environment)

    def done(result: ControlResult) -> None:
        judgement = result.finished.judgement
        sign = "[red]■[/]" if result.disagreements else "[green]●[/]"
        said = f"verdict {judgement.verdict.value}, exit {judgement.exit_code}"
        steps.note_line(f"{sign} {result.control.name:<16} {result.control.title}  [dim]{said}[/]")
        terminal.expected(console, expectations(result.control, judgement))
        for line in result.disagreements:
            steps.note_line(f"    {escape(line)}")
        for entry in beside(result.control, judgement):
            said = f"{entry.promise.id} is false beside it, by the defect or the machine: {entry.finding.reason}"
            steps.note_line(f"    [dim]{escape(said)}[/]")
        append_control(rows / "controls.csv", result)

    with runtime.locked(plan), Steps() as steps:
        results = verification.controls(
            environment,
            names,
            seed=verification.new_seed() if seed is None else seed,
            out=out.resolve(),
            begin=lambda control: steps.begin(control.name, control.title),
            done=done,
        )
    wrong = sum(bool(result.disagreements) for result in results)
    console.print(f"{len(results) - wrong} of {len(results)} defects detected as they must be; runs in {out}")
    sys.exit(1 if wrong else 0)


cli.add_command(gate)
cli.add_command(runs_command)
cli.add_command(compare_command)
cli.add_command(soak)
cli.add_command(load_test)
cli.add_command(load_plan)
cli.add_command(render)
cli.add_command(preflight)
cli.add_command(secrets)
cli.add_command(models)


@cli.command()
@click.option("--seed", default=None, type=click.IntRange(0))
@click.option("--out", default="runs", show_default=True, type=click.Path(path_type=Path, file_okay=False))
def demo(seed: int | None, out: Path) -> None:
    """Everything once on this machine: up, load, train, every scenario, the numbers. Exits with the worst verdict."""
    from breakwater import verification, workloads
    from experiments import run as runs
    from experiments.report import terminal
    from infra.local import runtime
    from infra.stack import local_plan

    environment = "local"
    plan = local_plan(environment)
    began = time.monotonic()
    with runtime.locked(plan), Steps() as steps:
        runtime.up(plan, steps)
        workloads.load(plan, steps)
        if not workloads.has_model(plan):
            workloads.train_model(plan, steps, seed=1)
        workloads.wait_serving(plan, steps)
    finished = []
    with runtime.locked(plan):
        for scenario in verification.find_scenarios(["all"]):
            for variant in scenario.breakwater.demo:
                chosen = verification.new_seed() if seed is None else seed
                order = runs.Order(environment, scenario, variant, chosen, out.resolve())
                with Steps() as steps:
                    done = verification.verify(order, partial(steps.begin, scenario.breakwater.id))
                finished.append(done)
                terminal.show(console, done.judgement, done.shown_report())
    terminal.summary(console, [(done.judgement, done.shown_report()) for done in finished])
    console.print(
        f"demo took {time.monotonic() - began:.0f} s; {environment} stays up: `breakwater status {environment}`, "
        f"`breakwater down {environment}`",
        soft_wrap=True,
    )
    sys.exit(verification.exit_code(finished))


def _interrupt(number: int, frame: FrameType | None) -> None:
    """As Ctrl-C: load ends, faults are undone, locks are given back."""
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: every failure a user can meet is one line, everything else is a defect and shows its trace."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` means what it says
            signal.signal(number, _interrupt)
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except (KeyboardInterrupt, click.Abort) as error:
        err.print("interrupted; `breakwater status` shows what runs, `breakwater heal` undoes faults", soft_wrap=True)
        # click raises its own Abort from a KeyboardInterrupt
        for note in getattr(error.__cause__ or error, "__notes__", []):
            err.print(escape(note), soft_wrap=True)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        from breakwater.failures import explain

        said = explain(error)
        if said is None:
            raise
        _fail(said)


def _fail(what: str) -> NoReturn:
    err.print(f"[red]■[/] {escape(' '.join(what.split()))}", soft_wrap=True)
    sys.exit(EXIT_USAGE)
