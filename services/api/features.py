"""POST /v1/features writes a vector through to its shard: the answer comes when it is durable on a standby too.

GET /v1/features reads one and says how old it may be, also of a vector that is not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final
from uuid import UUID, uuid5

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.api.admission import Admission
from services.api.auth import BearerAuth
from services.api.bodies import OUTERMOST_S, idempotency_key, patience_s, validated, whole_body
from services.api.observation import stage
from services.api.openapi import Operation
from services.api.problems import FeaturesNotFound
from services.api.stored import StoredVector, look_up
from services.contracts.flights import FlightFeatures
from services.featurestore.store import FeatureStore

READ_S: Final = 2.0
"""As a prediction's patience, of which such a read may be a part; the store tries again for a second."""

FLAGS: Final = {"true": True, "false": False}


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


class StoredFeatures(BaseModel):
    """As it was written. Every write acknowledged `staleness_s` seconds before the request was sent is in it; null:
    the standby that was asked cannot say."""

    entity_id: UUID
    event_time: AwareDatetime
    features: dict[str, Any]
    staleness_s: float | None
    from_standby: bool


READ_OPERATION = Operation(
    path="/v1/features",
    name="read_features",
    summary="Read a feature vector",
    method="get",
    requests=(),
    query=StoredVector,
    answer=StoredFeatures,
    codes=(
        "invalid_timeout",
        "unauthorized",
        "features_not_found",
        "invalid_request",
        "overloaded",
        "shard_unavailable",
        "slot_map_unavailable",
        "schema_skew",
        "deadline_exceeded",
    ),
)


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
        "schema_skew",
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
        with self.admission, stage(request.scope, "write"):
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


@dataclass(frozen=True, slots=True)
class FeatureReader:
    """The endpoint of GET. 404 `features_not_found` says how old that answer may be, as 200 does."""

    auth: BearerAuth
    admission: Admission
    store: FeatureStore

    async def endpoint(self, request: Request) -> Response:
        await self.auth(request)
        patience = patience_s(request, READ_S)
        wanted = validated(StoredVector, _as_body(request))
        with self.admission, stage(request.scope, "read features"):
            found = await look_up(self.store, wanted, patience)
        if found.features is None:
            raise FeaturesNotFound(
                f"no features are stored for entity {wanted.entity_id} at {wanted.event_time.isoformat()}, as of "
                "`staleness_s` ago: ask with read_your_writes to see every acknowledged write",
                staleness_s=found.staleness_s,
            )
        content = {
            "entity_id": str(wanted.entity_id),
            "event_time": wanted.event_time.isoformat(),
            "features": found.features,
            "staleness_s": found.staleness_s,
            "from_standby": found.from_standby,
        }
        return Response(orjson.dumps(content), media_type="application/json")


def route(reader: FeatureReader, writer: FeatureWriter) -> Route:
    """One route for both, so that a refused method is told of both."""

    async def endpoint(request: Request) -> Response:
        return await (writer if request.method == "POST" else reader).endpoint(request)

    return Route(OPERATION.path, endpoint, methods=["GET", "POST"])


def _as_body(request: Request) -> bytes:
    """The query as the JSON that a body would be, to be held to the same contract; a word that is no flag stays one."""
    given: dict[str, Any] = dict(request.query_params)
    flag = given.get("read_your_writes")
    return orjson.dumps(given if flag is None else given | {"read_your_writes": FLAGS.get(flag, flag)})


def _derived_key(write: FeatureWrite) -> UUID:
    """The same for the same content, so that a client that repeats itself without a key is recognised too."""
    return uuid5(write.entity_id, write.model_dump_json())
