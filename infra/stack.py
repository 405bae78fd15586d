"""From an environment's name to its plan: where the project is, what its topology says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from infra.environment import EnvironmentFault
from infra.local.environment import LocalEnvironment
from infra.local.plan import LocalPlan
from infra.topology import Topology, TopologyError, load

PROJECT_VARIABLE: Final = "BREAKWATER_PROJECT"


def project_directory() -> Path:
    """The nearest directory upwards with a Pulumi.yaml; BREAKWATER_PROJECT names another."""
    configured = os.environ.get(PROJECT_VARIABLE)
    if configured:
        return Path(configured)
    here = Path.cwd()
    for candidate in (here, *here.parents):
        if (candidate / "Pulumi.yaml").exists():
            return candidate
    raise TopologyError(
        f"no Pulumi.yaml in {here} or above it; run breakwater inside the project, or set {PROJECT_VARIABLE}"
    )


def topology_of(environment: str) -> Topology:
    return load(project_directory(), environment)


def local_plan(environment: str) -> LocalPlan:
    """The plan of an environment that runs on this machine; EnvironmentFault when it runs elsewhere."""
    topology = topology_of(environment)
    if topology.runtime != "local":
        raise EnvironmentFault(
            f"{environment} runs on {topology.runtime}; this command works on environments with breakwater:runtime "
            "local"
        )
    return LocalPlan(topology)


def open_environment(environment: str) -> LocalEnvironment:
    """The running environment of that name, whatever runs it."""
    return LocalEnvironment(local_plan(environment))
