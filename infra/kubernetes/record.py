"""Runs the program under the SDK's mock monitor and returns what it would create: no engine, no cluster, no secret."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pulumi
from pulumi.runtime import mocks
from pulumi.runtime.config import set_all_config

from infra.kubernetes.names import NAMESPACE, STACK_SECRETS
from infra.kubernetes.plan import KubernetesPlan
from infra.kubernetes.program import deploy, export
from infra.topology import PROJECT

KUBERNETES: Final = "kubernetes:"


@dataclass(frozen=True, slots=True)
class Registered:
    """One resource as the program registered it. `inputs` as Pulumi sends them: camelCase, plain types."""

    type: str
    name: str
    inputs: dict[str, Any]

    @property
    def is_object(self) -> bool:
        """An object in the cluster, not a component or a provider."""
        return self.type.startswith(KUBERNETES)


class Recorder(mocks.Mocks):
    """Remembers every registration, and what the program only looks for, by type and name, as it must exist already.

    `unknown`: nothing is known of what registrations become, as when all of it is new.
    """

    def __init__(self, *, unknown: bool = False) -> None:
        self.registered: list[Registered] = []
        self.read: list[tuple[str, str]] = []
        self._unknown = unknown

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        if args.resource_id:
            self.read.append((args.typ, args.resource_id))
            return args.resource_id, args.inputs
        self.registered.append(Registered(args.typ, args.name, args.inputs))
        return (None, {}) if self._unknown else (f"{args.name}-id", args.inputs)

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"the program asks the cluster ({args.token}): then it cannot be rendered without one")


def reference(secret: str) -> str:
    """What stands in a rendered manifest where the stack's secret goes."""
    return "${" + f"{NAMESPACE}:{secret}" + "}"


def record(plan: KubernetesPlan, *, preview: bool = False) -> list[Registered]:
    """Everything that the program registers for this plan, secrets as references."""
    recorder = Recorder(unknown=preview)

    @pulumi.runtime.test  # type: ignore[untyped-decorator]
    def program() -> None:
        export(plan, deploy(plan))

    with event_loop():
        pulumi.runtime.set_mocks(recorder, project=PROJECT, stack=plan.environment, preview=preview)
        keys = {f"{NAMESPACE}:{name}": reference(name) for name in STACK_SECRETS}
        set_all_config(keys, secret_keys=list(keys))
        program()
    return recorder.registered


@contextlib.contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A current event loop, which the SDK expects and a process that ran another one to its end has no longer."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        yield loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()
