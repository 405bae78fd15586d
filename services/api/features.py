"""POST /v1/features: write a vector through to its shard; the answer comes when it is durable on a standby too."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID, uuid5

from fastapi import APIRouter, Depends, Header
from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints

from services.api.admission import Admission
from services.api.auth import BearerAuth
from services.contracts.flights import FlightFeatures
from services.featurestore.store import FeatureStore


class FeatureWrite(BaseModel):
    """One vector; an existing one of the same entity and time is replaced."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entity_id: UUID
    event_time: AwareDatetime
    segment: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    features: FlightFeatures


class WriteAcknowledged(BaseModel):
    """The write is durable. `server` is the primary that took it, if known, on that timeline."""

    shard: int
    timeline: int
    server: str | None
    idempotency_key: UUID


def features_router(auth: BearerAuth, admission: Admission, store: FeatureStore) -> APIRouter:
    router = APIRouter(dependencies=[Depends(auth)])

    @router.post("/v1/features", summary="Write a feature vector")
    async def write_features(
        write: FeatureWrite, idempotency_key: Annotated[UUID | None, Header()] = None
    ) -> WriteAcknowledged:
        """503 `commit_unknown`: it may be applied or not, repeat it with the same key. 503 `shard_unavailable`, 409
        `slot_moved`: it is not applied. A caller that goes away cancels nothing: the store ends what it has begun."""
        vector = write.features.model_dump(mode="json")
        with admission.admit():
            acknowledged = await store.write(
                write.entity_id,
                write.event_time,
                write.segment,
                vector,
                idempotency_key=idempotency_key or _derived_key(write),
            )
        return WriteAcknowledged(
            shard=acknowledged.shard,
            timeline=acknowledged.timeline,
            server=acknowledged.server,
            idempotency_key=acknowledged.idempotency_key,
        )

    return router


def _derived_key(write: FeatureWrite) -> UUID:
    """The same for the same content, so that a client that repeats itself without a key is recognised too."""
    return uuid5(write.entity_id, write.model_dump_json())
