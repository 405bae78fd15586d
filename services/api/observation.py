"""What is known of one request while it is answered: the layer around the application begins it, others add to it."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final, Protocol

from starlette.types import Scope

from services.api.correlation import Correlation

SCOPE_KEY: Final = "breakwater.observation"
UNTRACED: Final[AbstractContextManager[None]] = nullcontext()


class RequestTrace(Protocol):
    """A request whose trace is kept (services/api/tracing.py)."""

    def stage(self, name: str) -> AbstractContextManager[None]: ...

    def end(self, route: str, status: int, code: str | None) -> None: ...


@dataclass(slots=True)
class Observation:
    """`began` is monotonic, in seconds. `code` is that of the refusal, if it was one."""

    correlation: Correlation
    began: float = field(default_factory=time.monotonic)
    code: str | None = None
    trace: RequestTrace | None = None

    def fields(self) -> dict[str, object]:
        """What a log line says so that it can be found from a request: its id, and its trace's where that differs."""
        fields: dict[str, object] = {"request_id": self.correlation.request_id}
        parent = self.correlation.parent
        if parent is not None and (trace_id := f"{parent.trace_id:032x}") != self.correlation.request_id:
            fields["trace_id"] = trace_id
        return fields


def observed(scope: Scope) -> Observation | None:
    """None outside of the layer."""
    observation: Observation | None = scope.get(SCOPE_KEY)
    return observation


def request_fields(scope: Scope) -> dict[str, object]:
    """For log lines about a request (logs.py)."""
    observation = observed(scope)
    return {} if observation is None else observation.fields()


def elapsed_s(scope: Scope) -> float:
    """Seconds since the request arrived; 0 outside of the layer."""
    observation = observed(scope)
    return 0.0 if observation is None else time.monotonic() - observation.began


def stage(scope: Scope, name: str) -> AbstractContextManager[None]:
    """Times a part of the request's work as a span of its own, where its trace is kept; else costs nothing."""
    observation = observed(scope)
    return UNTRACED if observation is None or observation.trace is None else observation.trace.stage(name)
