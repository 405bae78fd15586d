"""`breakwater models`: what is registered, in which stage, and since when; promote and roll back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.table import Table

from breakwater.console import out as console
from services.contracts.flights import MODEL_NAME

if TYPE_CHECKING:
    from services.registry.reload import Reload

MODEL_OPTION = click.option("--model", default=MODEL_NAME, show_default=True)
REASON_OPTION = click.option("--reason", required=True, help="Kept with the change, for ever.")


@click.group()
def models() -> None:
    """List, show, promote and roll back model versions."""


@models.command("list")
@click.argument("environment")
@MODEL_OPTION
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_versions(environment: str, model: str, as_json: bool) -> None:
    """Every version with its stage, newest first."""
    from breakwater.workloads import open_registry
    from infra.stack import local_plan

    with open_registry(local_plan(environment)) as registry:
        found = registry.versions(model)
    if as_json:
        click.echo(json.dumps([asdict(version) for version in found], default=str, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("version", no_wrap=True)  # what other commands take, so never shortened
    for column in ("stage", "auc", "logloss", "trained to", "rows", "registered"):
        table.add_column(column)
    for version in found:
        table.add_row(
            version.version,
            f"[green]{version.stage}[/]" if version.stage == "production" else version.stage,
            f"{version.metrics.get('auc', float('nan')):.4f}",
            f"{version.metrics.get('logloss', float('nan')):.4f}",
            f"{version.train_end:%Y-%m-%d}",
            f"{version.train_rows:,}",
            f"{version.registered_at:%Y-%m-%d %H:%M}",
        )
    console.print(table if found else f"no version of {model} in {environment}; run `breakwater train {environment}`")


@models.command()
@click.argument("environment")
@click.argument("version")
@MODEL_OPTION
def show(environment: str, version: str, model: str) -> None:
    """One version as JSON: training, metrics, artifacts by digest, and every change of its stage."""
    from breakwater.workloads import open_registry
    from infra.stack import local_plan

    with open_registry(local_plan(environment)) as registry:
        document = {
            **asdict(registry.version(model, version)),
            "artifacts": [asdict(artifact) for artifact in registry.artifacts(model, version)],
            "history": [asdict(transition) for transition in registry.history(model, version)],
        }
    click.echo(json.dumps(document, default=str, indent=2))


@models.command()
@click.argument("environment")
@click.argument("version")
@MODEL_OPTION
@REASON_OPTION
@click.option("--to", "stage", default="production", show_default=True, type=click.Choice(["staging", "production"]))
def promote(environment: str, version: str, model: str, reason: str, stage: str) -> None:
    """Move a version on, through staging; into production only when every live replica has prepared it."""
    from breakwater.workloads import actor, open_registry
    from infra.stack import local_plan
    from services.registry.registry import Why

    why = Why(actor(), reason)
    with open_registry(local_plan(environment)) as registry:
        if stage == "staging":
            registry.stage(model, version, why)
            console.print(f"{model} {version} is in staging")
            return
        _tell(registry.bring_into_production(model, version, why))


@models.command()
@click.argument("environment")
@MODEL_OPTION
@REASON_OPTION
def rollback(environment: str, model: str, reason: str) -> None:
    """Go back to the version that served before the one that serves, in the same way, and archive that."""
    from breakwater.workloads import actor, open_registry
    from infra.stack import local_plan
    from services.registry.registry import Why

    with open_registry(local_plan(environment)) as registry:
        _tell(registry.rollback(model, Why(actor(), reason)))


def _tell(reload: Reload) -> None:
    from breakwater.workloads import spoken

    console.print(f"{reload.pointer.name} {reload.pointer.version} is in production, {spoken(reload)}")
