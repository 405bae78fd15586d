"""From an environment's name to its plan: where the project is, what its topology says."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infra import lock
from infra.environment import Environment, EnvironmentFault
from infra.local import runtime
from infra.local.environment import LocalEnvironment
from infra.local.plan import LocalPlan
from infra.topology import Topology, TopologyError, load

if TYPE_CHECKING:
    from infra.kubernetes.environment import KubernetesEnvironment

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


def open_environment(environment: str) -> Environment:
    """The running environment of that name, whatever runs it."""
    topology = topology_of(environment)
    if topology.runtime == "local":
        return LocalEnvironment(LocalPlan(topology))
    return _on_kubernetes(topology)


def _on_kubernetes(topology: Topology) -> KubernetesEnvironment:
    # both bring a client of a second's import with them, which nobody needs who works on this machine
    from infra.kubernetes.environment import KubernetesEnvironment  # noqa: PLC0415
    from infra.kubernetes.plan import KubernetesPlan  # noqa: PLC0415

    return KubernetesEnvironment(KubernetesPlan(topology))


@contextlib.contextmanager
def locked(environment: str) -> Iterator[Environment]:
    """The environment, for one command at a time on this machine."""
    topology = topology_of(environment)
    if topology.runtime == "local":
        plan = LocalPlan(topology)
        with runtime.locked(plan):
            yield LocalEnvironment(plan)
        return
    found = _on_kubernetes(topology)
    found.files.make()
    with lock.locked(found.files.lock, environment):
        lock.wait_free(found.experiment_lock(), environment)
        yield found


def heal(environment: str) -> Sequence[str]:
    """Undo what experiments left behind; one line for each thing undone."""
    topology = topology_of(environment)
    return runtime.heal(LocalPlan(topology)) if topology.runtime == "local" else _on_kubernetes(topology).heal()
