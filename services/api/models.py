"""GET /v1/models/current: what this replica serves, what may serve next, what was refused and why, who else lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from services.api.auth import BearerAuth
from services.api.model_watch import ModelWatch
from services.api.openapi import Operation
from services.api.predict import ServingModel


class CandidateModel(BaseModel):
    """What may serve next; `prepared` here does not mean that others are."""

    version: str
    state: Literal["preparing", "prepared", "refused"]


class RefusedModel(BaseModel):
    version: str
    reason: str


class ReplicaModel(BaseModel):
    """A live replica as etcd said last, up to half a second ago. Generation 0: it serves none."""

    replica: str
    version: str | None
    generation: int
    refused: RefusedModel | None


class CurrentModel(BaseModel):
    """`refused` is the last refusal since `model` came to serve. `replicas` is empty while etcd is away."""

    replica: str
    model: ServingModel | None
    candidate: CandidateModel | None
    refused: RefusedModel | None
    replicas: list[ReplicaModel]


@dataclass(frozen=True, slots=True)
class CurrentModels:
    """The route's endpoint and everything that it needs."""

    auth: BearerAuth
    models: ModelWatch
    replica: str

    async def endpoint(self, request: Request) -> Response:
        await self.auth(request)
        return Response(self.now().model_dump_json(), media_type="application/json")

    def now(self) -> CurrentModel:
        models, own = self.models, self.models.state()
        serving = models.current
        return CurrentModel(
            replica=self.replica,
            model=None
            if serving is None
            else ServingModel(name=serving.card.name, version=serving.card.version, generation=serving.generation),
            candidate=self._candidate(),
            refused=None if own.refused is None else RefusedModel(**own.refused.model_dump(exclude={"schema_"})),
            replicas=[
                ReplicaModel.model_validate(replica.state.model_dump(exclude={"schema_": True, "refused": {"schema_"}}))
                for replica in models.replicas
            ],
        )

    def _candidate(self) -> CandidateModel | None:
        candidate, refused = self.models.candidate, self.models.refused
        if candidate is None:
            return None
        state: Literal["preparing", "prepared", "refused"] = "preparing" if self.models.preparing else "prepared"
        if not self.models.preparing and refused is not None and refused.version == candidate.pointer.version:
            state = "refused"
        return CandidateModel(version=candidate.pointer.version, state=state)


OPERATION = Operation(
    path="/v1/models/current",
    name="currentModel",
    summary="Which model serves, and what was refused",
    method="get",
    requests=(),
    answer=CurrentModel,
    codes=("unauthorized",),
)
