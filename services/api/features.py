"""POST /v1/features: write a vector through to its shard; the answer comes when it is durable on a standby too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID, uuid5

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from services.api.admission import Admission
from services.api.auth import BearerAuth
from services.api.bodies import OUTERMOST_S, idempotency_key, patience_s, validated, whole_body
from services.api.observation import stage
from services.api.openapi import Operation
from services.contracts.flights import FlightFeatures
from services.featurestore.store import FeatureStore


class FeatureWrite(BaseModel):
    """One vector; an existing one of the same entity and time is replaced."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entity_id: UUID
    event_time: AwareDatetime
    segment: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00]*$")]
    features: FlightFeatures


class WriteAcknowledged(BaseModel):
    """The write is durable. `server` is the primary that took it, if known, on that timeline."""

    shard: int
    timeline: int
    server: str | None
    idempotency_key: UUID


OPERATION = Operation(
    path="/v1/features",
    name="write_features",
    summary="Write a feature vector",
    requests=(FeatureWrite,),
    answer=WriteAcknowledged,
    codes=(
        "invalid_timeout",
        "unauthorized",
        "request_timeout",
        "slot_moved",
        "invalid_request",
        "refused_by_store",
        "overloaded",
        "shard_unavailable",
        "commit_unknown",
        "slot_map_unavailable",
    ),
    idempotent_by_key=True,
)


@dataclass(frozen=True, slots=True)
class FeatureWriter:
    """The route's endpoint and everything that it needs.

    503 `commit_unknown`: it may be applied or not, repeat it with the same key. 503 `shard_unavailable`, 409
    `slot_moved`: it is not applied. A caller that goes away cancels nothing: the store ends what it has begun.
    """

    auth: BearerAuth
    admission: Admission
    store: FeatureStore

    async def endpoint(self, request: Request) -> Response:
        await self.auth(request)  # before anything is read: who may not write learns nothing about bodies
        body = await whole_body(request)
        patience = patience_s(request, OUTERMOST_S)
        key = idempotency_key(request)
        write = validated(FeatureWrite, body)
        with self.admission.admit(), stage(request.scope, "write"):
            done = await self.store.write(
                write.entity_id,
                write.event_time,
                write.segment,
                write.features.model_dump(mode="json"),
                idempotency_key=key or _derived_key(write),
                timeout_s=patience,
            )
        acknowledged = WriteAcknowledged(
            shard=done.shard, timeline=done.timeline, server=done.server, idempotency_key=done.idempotency_key
        )
        return Response(acknowledged.model_dump_json(), media_type="application/json")


def _derived_key(write: FeatureWrite) -> UUID:
    """The same for the same content, so that a client that repeats itself without a key is recognised too."""
    return uuid5(write.entity_id, write.model_dump_json())
