"""The Pulumi program: `pulumi up -s staging` gives the platform that Pulumi.staging.yaml describes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import pulumi

PROJECT = Path(__file__).resolve().parent.parent
# Pulumi runs this file with infra/ as the first import path, where infra/kubernetes would hide a package.
sys.path = [str(PROJECT), *(path for path in sys.path if Path(path or ".").resolve() != PROJECT / "infra")]

from infra.environment import EnvironmentFault  # noqa: E402
from infra.kubernetes.cluster import Cluster  # noqa: E402
from infra.kubernetes.needs import needs  # noqa: E402
from infra.kubernetes.plan import KubernetesPlan  # noqa: E402
from infra.kubernetes.preflight import demand_quota, demand_room  # noqa: E402
from infra.kubernetes.program import deploy, export  # noqa: E402
from infra.topology import TopologyError, load  # noqa: E402

PERMIT: Final = "BREAKWATER_PRODUCTION"


def main() -> None:
    stack = pulumi.get_stack()
    if stack == "production" and not pulumi.runtime.is_dry_run() and os.environ.get(PERMIT) != "change":
        raise pulumi.RunError(
            f"production changes only where the environment variable {PERMIT} is `change`: set it for this one command "
            f"(`{PERMIT}=change pulumi up -s production`), or select another stack; a preview needs no permit"
        )
    try:
        plan = KubernetesPlan(load(PROJECT, stack))
        cluster = Cluster.of(plan.settings.context, plan.namespace)
        demand_room(plan, cluster)
        demand_quota(plan, cluster, lambda: needs(PROJECT, stack))
    except (TopologyError, EnvironmentFault) as error:
        raise pulumi.RunError(str(error)) from error
    export(plan, deploy(plan))


if __name__ == "__main__":
    main()
