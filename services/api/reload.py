"""POST /v1/admin/reload-model: bring a version into production, or go back, without a request lost (admin token).

The same two phases as `breakwater models promote` and `rollback`, which call the same registry: whoever leads asks
every live replica, this one among them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from services.api.auth import BearerAuth
from services.api.bodies import validated, whole_body
from services.api.openapi import Operation, ReplicaAtReload
from services.api.predict import ServingModel
from services.api.problems import Problem, problem
from services.api.worker import Worker
from services.coordination.etcd import EtcdError
from services.registry import ArtifactCorrupt, RegistryError
from services.registry.card import Name
from services.registry.errors import (
    IllegalTransition,
    PointerPending,
    ReloadInProgress,
    ReloadInterrupted,
    StoreUnavailable,
    UnknownVersion,
)
from services.registry.registry import ModelRegistry, Why
from services.registry.reload import CandidateRefused, Reload

Reason = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]+$")]
"""PostgreSQL keeps any text without a zero character."""


class Promotion(BaseModel):
    """Bring this version into production. The reason is kept with the change, for ever."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Name
    reason: Reason


class Rollback(BaseModel):
    """Go back to the version that served before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rollback: Literal[True]
    reason: Reason


def _kind(body: Any) -> str:
    return "rollback" if isinstance(body, dict) and "rollback" in body else "promotion"


REQUEST: TypeAdapter[Promotion | Rollback] = TypeAdapter(
    Annotated[Annotated[Promotion, Tag("promotion")] | Annotated[Rollback, Tag("rollback")], Discriminator(_kind)]
)


class Reloaded(BaseModel):
    """`model` is in production by registry and pointer; `replicas` are all that live, this one among them."""

    model: ServingModel
    replicas: list[ReplicaAtReload]


REGISTRY_PROBLEMS: Final[Mapping[type[Exception], str]] = {
    UnknownVersion: "unknown_version",
    IllegalTransition: "illegal_transition",
    ReloadInProgress: "reload_in_progress",
    CandidateRefused: "candidate_refused",
    ArtifactCorrupt: "artifact_corrupt",
    StoreUnavailable: "artifact_store_unavailable",
    ReloadInterrupted: "reload_interrupted",
    PointerPending: "pointer_pending",
}
"""All but `pointer_pending` promise that nothing changed."""


class ReloadFailed(Problem):
    """`code` is one of the table's; `replicas` says what each of them made of a candidate."""

    def __init__(self, code: str, message: str, replicas: Sequence[ReplicaAtReload] = ()) -> None:
        super().__init__(message)
        self._code = code
        self._replicas = replicas

    def response(self) -> Response:
        if not self._replicas:
            return problem(self._code, str(self))
        return problem(self._code, str(self), replicas=[each.model_dump() for each in self._replicas])


class Reloader:
    """The route's endpoint. One reload at a time on this replica; across replicas the candidate's key excludes."""

    def __init__(
        self, auth: BearerAuth, model: str, replica: str, registry: Callable[[threading.Event], ModelRegistry]
    ) -> None:
        """`registry` is given the event that ends a reload which has not been decided."""
        self._auth = auth
        self._model = model
        self._replica = replica
        self._stop = threading.Event()
        self._registry = registry(self._stop)
        self._worker = Worker("reload")
        self._busy = False

    async def endpoint(self, request: Request) -> Response:
        await self._auth(request)
        wanted = validated(REQUEST, await whole_body(request))
        reload = await asyncio.shield(self._run(wanted))  # a caller that leaves ends nothing
        pointer = reload.pointer
        answer = Reloaded(
            model=ServingModel(name=pointer.name, version=pointer.version, generation=pointer.generation),
            replicas=_states(reload.replicas),
        )
        return Response(answer.model_dump_json(), media_type="application/json")

    def withdraw(self) -> None:
        """This replica is to end: a reload that it leads and that has not been decided fails, with nothing changed."""
        self._stop.set()

    def close(self) -> None:
        self.withdraw()
        self._worker.close()

    async def _run(self, wanted: Promotion | Rollback) -> Reload:
        if self._busy:
            raise ReloadFailed("reload_in_progress", "this replica leads another reload; it ends by itself, try again")
        self._busy = True
        why = Why(f"admin token, by {self._replica}", wanted.reason)
        try:
            match wanted:
                case Promotion(version=version):
                    work = partial(self._registry.bring_into_production, self._model, version, why)
                case Rollback():
                    work = partial(self._registry.rollback, self._model, why)
            return await self._worker.run(work)
        except EtcdError as error:
            raise ReloadFailed("etcd_unavailable", f"{error}; nothing changed") from error
        except CandidateRefused as error:
            raise ReloadFailed("candidate_refused", str(error), _states(error.replicas)) from error
        except RegistryError as error:
            code = REGISTRY_PROBLEMS.get(type(error))
            if code is None:
                raise
            raise ReloadFailed(code, str(error)) from error
        finally:
            self._busy = False


def _states(replicas: Sequence[Any]) -> list[ReplicaAtReload]:
    return [ReplicaAtReload(**asdict(each)) for each in replicas]


OPERATION = Operation(
    path="/v1/admin/reload-model",
    name="reloadModel",
    summary="Bring a registered version into production, or go back to the one before",
    requests=(Promotion, Rollback),
    answer=Reloaded,
    security="admin",
    codes=(
        "unauthorized",
        "request_timeout",
        "invalid_request",
        *REGISTRY_PROBLEMS.values(),
        "etcd_unavailable",
        "shard_unavailable",
        "commit_unknown",
    ),
)
