"""POST /v1/predict: a feature vector, or an entity and time from the feature store, to a probability of being late.

A plain route inside the FastAPI application: the body is validated from its bytes and the answer written as bytes,
which takes half the time of the framework's own way. `OPERATION` says to the documentation what this does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from services.api.admission import Admission
from services.api.auth import BearerAuth
from services.api.bodies import patience_s, validated, whole_body
from services.api.direct import JsonResponse
from services.api.model_watch import ModelWatch
from services.api.observation import stage
from services.api.openapi import Operation
from services.api.problems import ContractBroken, FeaturesNotFound, NoModelLoaded
from services.api.proof import ActiveModel
from services.api.scores import Scores
from services.api.scoring.mojo import Score
from services.api.stored import StoredVector, look_up
from services.contracts.flights import FlightFeatures
from services.featurestore.store import FeatureStore

ANSWER_S = 2.0
"""Patience with cache and model together, which need milliseconds; the edge asks another replica after 0.7 s."""


class ByVector(BaseModel):
    """Predict for this vector."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: FlightFeatures


class ByEntity(StoredVector):
    """Predict for what the feature store holds; from a standby unless `read_your_writes`."""


class ServingModel(BaseModel):
    """Which model answered. `generation` only grows."""

    name: str
    version: str
    generation: int


class Prediction(BaseModel):
    """`late` is the model's own decision; `staleness_s` says how old the stored vector may be, in seconds, if known."""

    probability: float = Field(ge=0, le=1)
    late: bool
    model: ServingModel
    source: Literal["cache", "scored"]
    staleness_s: float | None


def _kind(body: Any) -> str:
    return "vector" if isinstance(body, dict) and "features" in body else "entity"


PredictRequest = Annotated[
    Annotated[ByVector, Tag("vector")] | Annotated[ByEntity, Tag("entity")], Discriminator(_kind)
]
REQUEST: TypeAdapter[ByVector | ByEntity] = TypeAdapter(PredictRequest)


def _wanted(body: bytes) -> ByVector | ByEntity:
    """A vector in good order, which is what comes, is told from its bytes; all else by the union, which must first make
    objects of them to see what it is."""
    try:
        return ByVector.model_validate_json(body, strict=True)
    except ValidationError:
        return validated(REQUEST, body)


@dataclass(frozen=True, slots=True)
class Predictor:
    """The route's endpoint and everything that it needs."""

    auth: BearerAuth
    admission: Admission
    models: ModelWatch
    store: FeatureStore
    scores: Scores

    async def endpoint(self, request: Request) -> Response:
        await self.auth(request)
        body = await whole_body(request)
        patience = patience_s(request, ANSWER_S)
        wanted = _wanted(body)
        with self.admission:
            model = self.models.current
            if model is None:
                raise NoModelLoaded("no model has been published to this replica yet: train one, or try again")
            if isinstance(wanted, ByVector):
                vector, staleness_s = wanted.features, None
            else:
                with stage(request.scope, "read features"):
                    vector, staleness_s, patience = await self._stored(wanted, patience)
            with stage(request.scope, "score"):
                score, source = await self.scores.get(model, model.encoder.row(vector), patience)
        return JsonResponse(_render(model, score, source, staleness_s))

    async def _stored(self, wanted: ByEntity, patience: float) -> tuple[FlightFeatures, float | None, float]:
        """The vector, how stale it may be, and what is left of the caller's patience, all in seconds."""
        began = time.monotonic()
        found = await look_up(self.store, wanted, patience)
        if found.features is None:
            raise FeaturesNotFound(
                f"no features are stored for entity {wanted.entity_id} at {wanted.event_time.isoformat()}: write them "
                "first, and ask with read_your_writes to see them at once"
            )
        try:
            vector = FlightFeatures.model_validate(found.features)
        except ValidationError as error:
            raise ContractBroken(
                f"what is stored for entity {wanted.entity_id} breaks the feature contract: write it again",
                error.errors(include_url=False, include_input=False, include_context=False),
            ) from error
        return vector, found.staleness_s, patience - (time.monotonic() - began)


OPERATION = Operation(
    path="/v1/predict",
    name="predict",
    summary="Predict whether a flight arrives late",
    requests=(ByVector, ByEntity),
    answer=Prediction,
    codes=(
        "invalid_timeout",
        "unauthorized",
        "features_not_found",
        "request_timeout",
        "invalid_request",
        "overloaded",
        "no_model",
        "scoring_failed",
        "scorer_unavailable",
        "shard_unavailable",
        "slot_map_unavailable",
        "schema_skew",
        "deadline_exceeded",
    ),
)


def _render(model: ActiveModel, score: Score, source: str, staleness_s: float | None) -> bytes:
    return orjson.dumps(
        {
            "probability": score.probability,
            "late": score.late,
            "model": {"name": model.card.name, "version": model.card.version, "generation": model.generation},
            "source": source,
            "staleness_s": staleness_s,
        }
    )
