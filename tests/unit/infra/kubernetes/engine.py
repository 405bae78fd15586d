"""What the program asks of Pulumi's engine beside the objects: who waits, what is protected, secret, renamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from pulumi.runtime import mocks, rpc

from infra.kubernetes.plan import KubernetesPlan
from infra.kubernetes.record import record
from infra.kubernetes.wire import plain


@dataclass(frozen=True)
class Request:
    """One registration as the engine receives it (pulumi/runtime/proto, RegisterResourceRequest); `inputs` plain."""

    urn: str
    message: Any
    inputs: dict[str, Any]

    @property
    def type(self) -> str:
        return str(self.message.type)

    @property
    def name(self) -> str:
        return str(self.message.name)

    @property
    def kind(self) -> str:
        return str(self.inputs.get("kind", ""))


@dataclass
class Heard:
    """Registrations in their order, and who said what it puts out."""

    requests: list[Request] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)

    def objects(self) -> Iterator[Request]:
        return (request for request in self.requests if request.type.startswith("kubernetes:"))

    def one(self, kind: str, name: str) -> Request:
        (found,) = [request for request in self.objects() if (request.kind, request.name) == (kind, name)]
        return found


@contextmanager
def listening() -> Iterator[Heard]:
    """What any program says to the mock monitor while the block lasts."""
    heard = Heard()
    register, finish = mocks.MockMonitor.RegisterResource, mocks.MockMonitor.RegisterResourceOutputs

    def register_resource(monitor: mocks.MockMonitor, request: Any) -> Any:
        answer = register(monitor, request)  # type: ignore[no-untyped-call]
        if request.type != "pulumi:pulumi:Stack":
            inputs = plain(rpc.deserialize_properties(request.object))
            heard.requests.append(Request(answer.urn, request, inputs))
        return answer

    def register_outputs(monitor: mocks.MockMonitor, request: Any) -> Any:
        heard.finished.append(request.urn)
        return finish(monitor, request)  # type: ignore[no-untyped-call]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mocks.MockMonitor, "RegisterResource", register_resource)
        patch.setattr(mocks.MockMonitor, "RegisterResourceOutputs", register_outputs)
        yield heard


def heard_of(plan: KubernetesPlan) -> Heard:
    """All that the program says of this environment."""
    with listening() as heard:
        record(plan)
    return heard
