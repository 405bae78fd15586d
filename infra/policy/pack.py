"""From what Pulumi shows a policy pack to what the rules judge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from infra.kubernetes.wire import plain
from infra.policy.model import Environment, Resource, at, of_kind

KUBERNETES: Final = "kubernetes:"
INPUTS: Final = "__inputs"
"""Under this key the Kubernetes provider keeps what the program asked for (provider/pkg/provider, checkpointObject)."""
LOOKED_FOR: Final = "StorageClass"
"""The program makes none, it only looks whether those that it names are there; Pulumi shows what was read as well."""


class Shown(Protocol):
    """pulumi_policy.PolicyResource, as far as it concerns us.

    `props` are the resource's outputs in camelCase: the object as the cluster has it, with every default filled in,
    quantities in the server's spelling, its status, and the replicas that an autoscaler chose. What the program asked
    for stands among them, under `INPUTS`.
    """

    @property
    def resource_type(self) -> str: ...

    @property
    def props(self) -> Mapping[str, Any]: ...


def resources_of(shown: Iterable[Shown]) -> list[Resource]:
    """The objects among a stack's resources, as the program asks for them. A preview knows all of them."""
    objects = (_asked(found.props) for found in shown if found.resource_type.startswith(KUBERNETES))
    return [plain(asked) for asked in objects if asked.get("kind") and asked["kind"] != LOOKED_FOR]


def _asked(props: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where the provider says nothing of inputs, the object without what the cluster alone writes into it."""
    inputs = props.get(INPUTS)
    if isinstance(inputs, Mapping):
        return inputs
    # not by items: a preview raises where a value that it does not know is looked at, and a status is such a one
    return {key: props[key] for key in props if key != "status" and not key.startswith("__")}


def environment_of(resources: list[Resource]) -> Environment:
    """Named by the namespace's label; a stack without one is judged as production."""
    names = [at(space, "metadata", "labels", "app.kubernetes.io/instance") for space in of_kind(resources, "Namespace")]
    return Environment(str(names[0]) if len(names) == 1 and names[0] else "production")
