"""From what Pulumi shows a policy pack to what the rules judge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from infra.kubernetes.wire import plain
from infra.policy.model import Environment, Resource, at, of_kind

KUBERNETES: Final = "kubernetes:"


class Shown(Protocol):
    """pulumi_policy.PolicyResource, as far as it concerns us; `props` is camelCase."""

    @property
    def resource_type(self) -> str: ...

    @property
    def props(self) -> Mapping[str, Any]: ...


def resources_of(shown: Iterable[Shown]) -> list[Resource]:
    """The objects among a stack's resources. A preview knows all of them."""
    objects = (found.props for found in shown if found.resource_type.startswith(KUBERNETES))
    return [plain(props) for props in objects if props.get("kind")]


def environment_of(resources: list[Resource]) -> Environment:
    """Named by the namespace's label; a stack without one is judged as production."""
    names = [at(space, "metadata", "labels", "app.kubernetes.io/instance") for space in of_kind(resources, "Namespace")]
    return Environment(str(names[0]) if len(names) == 1 and names[0] else "production")
