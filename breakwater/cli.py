"""The command line: each command reads its environment, calls what does the work, and maps the outcome to a code."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import click
from rich.table import Table

from breakwater.console import Steps, err, out
from infra.environment import EnvironmentFault
from infra.local import runtime
from infra.local.environment import LocalEnvironment
from infra.stack import local_plan
from infra.topology import TopologyError

EXIT_USAGE: Final = 3
"""Preflight or usage (docs: 0 valid, 1 a promise was broken, 2 unknown, 3 preflight or usage)."""
EXIT_INTERRUPTED: Final = 130

KNOWN_FAILURES: Final[tuple[type[Exception], ...]] = (EnvironmentFault, TopologyError)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="breakwater")
def cli() -> None:
    """An online-prediction platform, and the proof that it survives failure."""


@cli.command()
@click.argument("environment")
def up(environment: str) -> None:
    """Bring the environment up and wait until every member is healthy."""
    plan = local_plan(environment)
    with runtime.locked(plan), Steps() as steps:
        runtime.up(plan, steps)
    out.print(f"{environment} is up: {plan.edge_url}  (CA {plan.ca_file}, token {plan.token_file})", soft_wrap=True)


@cli.command()
@click.argument("environment")
@click.option("--purge", is_flag=True, help="Also delete all of its data, secrets and models.")
def down(environment: str, purge: bool) -> None:
    """Stop the environment; its data stays unless --purge says otherwise."""
    plan = local_plan(environment)
    with runtime.locked(plan):
        with Steps() as steps:
            was_up = runtime.down(plan, steps)
        if purge:
            runtime.purge(plan)
    out.print(f"{environment} {'is down' if was_up else 'was not up'}{', its state is deleted' if purge else ''}")


@cli.command()
@click.argument("environment")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(environment: str, as_json: bool) -> None:
    """Show every member: role, timeline, lag, state. Exit code 0 when all are healthy, 1 otherwise."""
    plan = local_plan(environment)
    health = runtime.healthy(plan)
    if as_json:
        out.print_json(data=[{**_fields(line)} for line in health])
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
        out.print(table)
    if not all(line.healthy for line in health):
        sys.exit(1)


def _fields(line: Any) -> dict[str, Any]:
    return {name: getattr(line, name) for name in line.__slots__}


@cli.command()
@click.argument("environment")
@click.option("--json", "as_json", is_flag=True, help="For anybody's own tools.")
def endpoints(environment: str, as_json: bool) -> None:
    """Where everything answers."""
    found = LocalEnvironment(local_plan(environment)).endpoints()
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("member", "component", "address", "pid"):
        table.add_column(column)
    for member in found.members:
        address = member.url or f"{member.host}:{member.port}"
        table.add_row(member.name, member.component, address, "" if member.pid is None else str(member.pid))
    out.print(table)


@cli.command()
@click.argument("environment")
@click.argument("member")
@click.option("-n", "--lines", default=40, show_default=True, type=click.IntRange(1), help="Last lines of each log.")
def logs(environment: str, member: str, lines: int) -> None:
    """Show the end of a member's logs."""
    for path in LocalEnvironment(local_plan(environment)).logs(member):
        out.print(f"[dim]== {path}[/]", soft_wrap=True)
        with path.open(errors="replace") as content:
            for line in content.readlines()[-lines:]:
                click.echo(line.rstrip("\n"))


@cli.command()
@click.argument("environment")
def heal(environment: str) -> None:
    """Undo every fault that an experiment left behind."""
    plan = local_plan(environment)
    with runtime.locked(plan):
        done = LocalEnvironment(plan).heal()
    for line in done:
        out.print(f"[green]●[/] {line}")
    out.print(f"{len(done)} faults undone" if done else f"nothing to heal in {environment}")


def main() -> None:
    """Entry point: every failure a user can meet is one line, everything else is a defect and shows its trace."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except (KeyboardInterrupt, click.Abort):
        err.print("interrupted; `breakwater status` shows what runs, `breakwater heal` undoes faults")
        sys.exit(EXIT_INTERRUPTED)
    except KNOWN_FAILURES as error:
        err.print(f"[red]■[/] {error}", soft_wrap=True, markup=True)
        sys.exit(EXIT_USAGE)
