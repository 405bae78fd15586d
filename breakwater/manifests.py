"""`render` and `secrets`: what an environment on Kubernetes is made of, written to a directory."""

from __future__ import annotations

from pathlib import Path

import click

from breakwater.console import out as console

OUT = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("environment")
@click.option("--out", required=True, type=OUT, help="New, empty, or an earlier rendering of this environment.")
def render(environment: str, out: Path) -> None:
    """Write the manifests of an environment on Kubernetes; secrets appear as references, never as values."""
    from infra.kubernetes import render as rendering
    from infra.kubernetes.plan import KubernetesPlan
    from infra.stack import topology_of

    plan = KubernetesPlan(topology_of(environment))
    content = rendering.files(rendering.manifests(plan))
    rendering.write(environment, content, out)
    console.print(f"{len(content)} objects of {environment} in {out}", soft_wrap=True)


@click.command()
@click.argument("environment")
def preflight(environment: str) -> None:
    """See whether the cluster can take an environment on Kubernetes, before anything is made; changes nothing."""
    from infra.kubernetes import preflight as before
    from infra.kubernetes import render as rendering
    from infra.kubernetes.cluster import Cluster
    from infra.kubernetes.plan import KubernetesPlan
    from infra.stack import topology_of

    plan = KubernetesPlan(topology_of(environment))
    cluster = Cluster.of(plan.settings.context, plan.namespace)
    before.demand_room(plan, cluster)
    before.demand_quota(plan, cluster, lambda: before.requests(rendering.manifests(plan)))
    console.print(f"the cluster of context {cluster.context} can take {environment}", soft_wrap=True)


@click.command()
@click.argument("environment")
@click.option("--out", required=True, type=OUT, help="Keep it safe: it gets every secret of the environment.")
def secrets(environment: str, out: Path) -> None:
    """Make the secrets that a Kubernetes stack needs, one file each; what is there stays."""
    from infra.kubernetes import stack_secrets
    from infra.kubernetes.plan import KubernetesPlan
    from infra.stack import topology_of

    made = stack_secrets.ensure(KubernetesPlan(topology_of(environment)), out)
    console.print(f"{len(made)} secrets of {environment} made in {out}", soft_wrap=True)
