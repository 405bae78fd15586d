"""From a registered version to a model that may serve: verified, of this contract, right on its golden rows, warm."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from services.api.scoring.errors import ModelRefused, ScoringError
from services.api.scoring.mojo import MojoScorer
from services.api.scoring.vector import Row, VectorEncoder
from services.contracts.flights import CATEGORICAL, FEATURES, TARGET, FlightFeatures, contract_schema
from services.registry import Golden, ModelCard, ModelFiles, ModelSource, Pointer, RegistryError

GOLDEN_TOLERANCE: Final = 1e-9
"""genmodel computes what H2O computed, in the same order; its answers travel as decimal text."""

WARM_CALLS: Final = 1000
"""The JVM's compiler has caught up by then: the first calls take up to 5 ms, later ones 5 to 10 us."""

SLICE_CALLS: Final = 20
SLICE_PAUSE_S: Final = 0.002
"""Twenty calls take well under a millisecond; then the event loop and the scorer have their turn."""

ANNOTATIONS: Final = frozenset({"title", "description"})


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """Everything that belongs to one model, so that swapping one reference swaps all of it."""

    card: ModelCard
    pointer: Pointer
    scorer: MojoScorer
    encoder: VectorEncoder
    identity: bytes

    @property
    def generation(self) -> int:
        return self.pointer.generation

    def cache_key(self, row: Row) -> bytes:
        """16 bytes that only this artifact with this very row gives."""
        return hashlib.blake2b(self.identity + self.encoder.pack(row), digest_size=16).digest()


def load(source: ModelSource, pointer: Pointer, pause: Callable[[float], None] = time.sleep) -> ActiveModel:
    """The pointer's model, proved and warm. Takes about a second, most of it in pauses; never call it on the loop.

    Raises RegistryError or ScoringError; whatever else a bad artifact or a failing store can cause becomes one of them.
    """
    try:
        files = source.open(pointer)
        check_contract(files)
        model = ActiveModel(
            card=files.card,
            pointer=pointer,
            scorer=MojoScorer(files.artifact, files.card),
            encoder=VectorEncoder(files.card.features),
            identity=f"{files.card.name}/{files.card.version}/{files.card.sha256}/".encode(),
        )
        check_golden(model, files.golden)
        warm(model, pause)
    except (RegistryError, ScoringError):
        raise
    except Exception as error:
        raise ModelRefused(f"{pointer.name} {pointer.version}: {type(error).__name__}: {error}") from error
    return model


def check_contract(files: ModelFiles) -> None:
    """ModelRefused unless model and contract of its training take exactly what this replica's contract says."""
    card = files.card
    names = {feature.name for feature in card.features}
    categorical = {feature.name for feature in card.features if feature.domain is not None}
    differing = sorted(names ^ set(FEATURES) | categorical ^ CATEGORICAL)
    if card.target != TARGET:
        differing.append(f"target {card.target}")
    differing = differing or _differing(files.contract)
    if differing:
        raise ModelRefused(
            f"{card.name} {card.version} breaks the feature contract in {', '.join(differing)}: "
            "train on the contract's features"
        )


def check_golden(model: ActiveModel, golden: Golden) -> None:
    """ModelRefused unless the model says of every golden row what the trainer itself said of it."""
    card = model.card
    try:
        vectors = [FlightFeatures.model_validate(row.features) for row in golden.rows]
    except ValidationError as error:
        raise ModelRefused(f"{card.name} {card.version}: its golden rows break the contract: {error}") from error
    scores = model.scorer.score([model.encoder.row(vector) for vector in vectors])
    for number, (row, score) in enumerate(zip(golden.rows, scores, strict=True)):
        if not abs(score.probability - row.probability) <= GOLDEN_TOLERANCE:
            raise ModelRefused(
                f"{card.name} {card.version}: golden row {number} scores {score.probability!r}, its trainer said "
                f"{row.probability!r}: artifact and golden rows are of different trainings, register it again"
            )


def warm(model: ActiveModel, pause: Callable[[float], None]) -> None:
    missing: Row = (math.nan,) * len(model.card.features)
    for call in range(WARM_CALLS):
        row = tuple(float((call + index) % 7) for index in range(len(missing)))
        model.scorer.score([row, missing])
        if call % SLICE_CALLS == 0:
            pause(SLICE_PAUSE_S)


def _differing(contract: str) -> list[str]:
    """Features that the schema describes otherwise than ours does; what a schema calls them or tells of them counts
    for nothing."""
    try:
        theirs, ours = _bare(json.loads(contract)), _bare(json.loads(contract_schema()))
    except ValueError:
        return ["its schema, which is no JSON"]
    if theirs == ours:
        return []
    if not isinstance(theirs, dict) or not isinstance(theirs.get("properties"), dict):
        return ["its schema, which describes no features"]

    def said(schema: dict[str, Any], name: str) -> tuple[object, bool]:
        return schema["properties"].get(name), name in schema.get("required", [])

    names = sorted({*theirs["properties"], *ours["properties"]})
    return [name for name in names if said(theirs, name) != said(ours, name)] or ["its schema"]


def _bare(schema: Any) -> Any:
    """Without annotations; a feature may have one of their names."""
    match schema:
        case dict():
            return {
                key: {name: _bare(each) for name, each in value.items()} if key == "properties" else _bare(value)
                for key, value in schema.items()
                if key not in ANNOTATIONS
            }
        case list():
            return [_bare(each) for each in schema]
    return schema
