"""`breakwater gate`: collect the facts of an environment, judge the checklist, say what it comes to."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from breakwater.console import out as console

if TYPE_CHECKING:
    from experiments.gate.facts import Facts, PolicyCheck
    from infra.environment import Edge
    from infra.topology import Topology

DIRECTORY = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
EVIDENCE: Final = "gate"
"""Below the directory of runs: one result for each environment, which production's gate reads as evidence."""
STAGING: Final = "staging"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("environment")
@click.option("--runs", default="runs", show_default=True, type=DIRECTORY, help="Where `verify` keeps its runs.")
@click.option(
    "--junit", default="build/junit", show_default=True, type=DIRECTORY, help="Where tests left their results."
)
@click.option(
    "--max-age", default=7.0, show_default=True, type=click.FloatRange(0), help="Days that evidence may be old."
)
@click.option("--edge", default=None, metavar="HOST:PORT", help="The edge, where no local one is meant.")
@click.option("--ca", "ca_file", default=None, type=FILE, help="Its CA's certificate.")
@click.option("--report", default=None, type=FILE, help="Also write a JUnit report of the gate itself.")
@click.option("-q", "--quiet", is_flag=True, help="Only the last line.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def gate(
    environment: str,
    runs: Path,
    junit: Path,
    max_age: float,
    edge: str | None,
    ca_file: Path | None,
    report: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Examine every item of the checklist before a deployment. Exit code 0 true, 1 false, 2 unknown, 3 not begun.

    Kills one H2O node where the environment allows faults on it; production is only looked at.
    """
    from experiments.commit import commit
    from experiments.gate import report as reports
    from experiments.gate.collect import manifests
    from experiments.gate.items import ITEMS
    from experiments.gate.judgement import GateFile, Staging, judge_gate
    from experiments.gate.waivers import WAIVERS_FILE, read_waivers
    from infra.stack import project_directory, topology_of

    project = project_directory()
    topology = topology_of(environment)
    now = datetime.datetime.now(datetime.UTC)
    here = commit()
    waivers = read_waivers(project / WAIVERS_FILE, [item.id for item in ITEMS], now.date())
    named = _edge(edge, ca_file)
    staging = None
    if environment == "production":
        evidence = runs / EVIDENCE / f"{STAGING}.json"
        staging = Staging(evidence, GateFile.read(evidence), manifests.subject(topology_of(STAGING), here))
    facts = _facts(project, topology, here, now, runs=runs, junit=junit, max_age_days=max_age, edge=named)
    judgement = judge_gate(facts, manifests.subject(topology, here), now, waivers=waivers, staging=staging)
    judgement.write(runs / EVIDENCE / f"{environment}.json")
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_bytes(reports.junit_xml(judgement))
    if as_json:
        click.echo(json.dumps(judgement.to_json(), indent=2))
    elif quiet:
        console.print(reports.last_line(judgement), soft_wrap=True)
    else:
        reports.show(console, judgement)
    sys.exit(judgement.exit_code)


def _edge(address: str | None, ca_file: Path | None) -> Edge | None:
    from infra.environment import Edge

    if address is None and ca_file is None:
        return None
    if address is None or ca_file is None:
        raise click.UsageError("--edge and --ca go together")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise click.BadParameter(f"{address!r} is not HOST:PORT", param_hint="--edge")
    return Edge(f"https://{host}:{port}", ca_file)


def _facts(
    project: Path,
    topology: Topology,
    commit: str | None,
    now: datetime.datetime,
    *,
    runs: Path,
    junit: Path,
    max_age_days: float,
    edge: Edge | None,
) -> Facts:
    from breakwater import verification
    from experiments.archive import archive
    from experiments.gate.collect import manifests, results, running, sources, stored
    from experiments.gate.facts import Facts, Missing

    name = topology.environment
    objects = {other.environment: manifests.rendered(other) for other in manifests.deployed(project, topology)}
    checks: tuple[PolicyCheck, ...] = tuple(
        manifests.policy_check(other, objects[other.environment]) for other in manifests.deployed(project, topology)
    )
    planned = [heap for found, each in objects.items() for heap in manifests.rendered_heaps(found, each)]
    kept = archive(runs)
    shown = running.look(topology, edge)
    return Facts(
        commit=commit,
        max_age_days=max_age_days,
        handshakes=shown.handshakes,
        scan=sources.scan(project),
        loops=stored.loop_evidence(kept, name),
        training=shown.training,
        tests=results.results(junit),
        contract=sources.contract_use(project),
        heaps=shown.heaps if isinstance(shown.heaps, Missing) else (*planned, *shown.heaps),
        consensus=shown.consensus,
        runs=stored.last_runs(kept, name, [scenario for _, scenario in verification.all_scenarios()], now)
        if kept.runs
        else Missing(f"{runs} holds no run: run `breakwater verify {name} --scenario all`"),
        policies=checks,
    )
