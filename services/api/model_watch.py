"""Follows the registry's pointer: loads what it names, proves it, warms it and swaps one reference.

A model that cannot be proved is refused and the one that serves goes on serving.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from services.api.metrics import Metrics
from services.api.scoring.errors import ModelRefused, ScoringError
from services.api.scoring.mojo import MojoScorer
from services.api.scoring.vector import Row, VectorEncoder
from services.contracts.flights import CATEGORICAL, FEATURES, TARGET
from services.registry import ModelCard, ModelSource, NoModel, Pointer, PointerUnreachable, RegistryError

POLL_S = 0.5
"""Reading the pointer is one question to etcd; a new model serves this much later plus its load (0.2 s)."""

RETRY_REFUSED_S = 10.0
"""A refused model is tried again this rarely: its files may be restored, but it is usually simply wrong."""

WARM_CALLS = 1000
"""The JVM's compiler has caught up by then: the first calls take up to 5 ms, later ones 5 to 10 us."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """Everything that belongs to one model, so that swapping one reference swaps all of it."""

    card: ModelCard
    generation: int
    scorer: MojoScorer
    encoder: VectorEncoder
    identity: bytes

    def cache_key(self, row: Row) -> bytes:
        """16 bytes that only this artifact with this very row gives."""
        return hashlib.blake2b(self.identity + self.encoder.pack(row), digest_size=16).digest()


class ModelWatch:
    """Holds the model that serves in `current` (None before the first) and keeps it what the registry says."""

    def __init__(
        self,
        registry: ModelSource,
        metrics: Metrics,
        *,
        swapped: Callable[[], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`swapped` is called when another model serves."""
        self.current: ActiveModel | None = None
        self._registry = registry
        self._metrics = metrics
        self._swapped = swapped
        self._monotonic = monotonic
        self._refused: Pointer | None = None
        self._retry_at = 0.0
        self._told: str | None = None
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="model-loader")
        metrics.model_generation.set(0)

    async def run(self) -> None:
        """Follow the pointer until cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(POLL_S)

    async def check(self) -> None:
        """Look once. Raises nothing that a bad pointer, card or artifact can cause."""
        loop = asyncio.get_running_loop()
        try:
            pointer = await loop.run_in_executor(self._loader, self._registry.pointer)
            if not self._wanted(pointer):
                return
            candidate = await loop.run_in_executor(self._loader, load, self._registry, pointer)
        except (NoModel, PointerUnreachable) as error:
            self._tell(str(error))
        except RegistryError as error:
            self._refuse(None, error)
        except _Refusal as error:
            self._refuse(error.pointer, error)
        else:
            self._swap(candidate)

    def close(self) -> None:
        """End the loading thread."""
        self._loader.shutdown()

    def _wanted(self, pointer: Pointer) -> bool:
        if self.current is not None and pointer.generation <= self.current.generation:
            if pointer.generation < self.current.generation:
                self._tell(f"the pointer went back to generation {pointer.generation}: ignored, publish a model again")
            return False
        return pointer != self._refused or self._monotonic() >= self._retry_at

    def _swap(self, candidate: ActiveModel) -> None:
        self.current = candidate
        self._refused = self._told = None
        self._metrics.model_generation.set(candidate.generation)
        if self._swapped is not None:
            self._swapped()
        freeze_heap()
        logger.info(
            "model %s %s serves, generation %d", candidate.card.name, candidate.card.version, candidate.generation
        )

    def _refuse(self, pointer: Pointer | None, error: Exception) -> None:
        self._refused = pointer
        self._retry_at = self._monotonic() + RETRY_REFUSED_S
        if self._tell(f"a model is refused, {self._serving()}: {error}"):
            self._metrics.models_refused.inc()

    def _serving(self) -> str:
        return f"{self.current.card.version} goes on serving" if self.current else "none serves yet"

    def _tell(self, message: str) -> bool:
        """Log a message once, not at every poll; True when it was new."""
        if message == self._told:
            return False
        self._told = message
        logger.warning("%s", message)
        return True


class _Refusal(Exception):
    def __init__(self, pointer: Pointer, cause: Exception) -> None:
        super().__init__(str(cause))
        self.pointer = pointer


def load(registry: ModelSource, pointer: Pointer) -> ActiveModel:
    """The pointer's model, verified and warm. Blocks for 0.1 to 0.3 s; scores are never computed on this thread."""
    try:
        files = registry.open(pointer)
        check_contract(files.card)
        model = ActiveModel(
            card=files.card,
            generation=pointer.generation,
            scorer=MojoScorer(files.artifact, files.card),
            encoder=VectorEncoder(files.card.features),
            identity=f"{files.card.name}/{files.card.version}/{files.card.sha256}/".encode(),
        )
        warm(model)
    except (RegistryError, ScoringError) as error:
        raise _Refusal(pointer, error) from error
    return model


def check_contract(card: ModelCard) -> None:
    """ModelRefused unless the model takes exactly the contract's features, categoricals as such, and its target."""
    names = {feature.name for feature in card.features}
    categorical = {feature.name for feature in card.features if feature.domain is not None}
    if names != set(FEATURES) or categorical != CATEGORICAL or card.target != TARGET:
        differing = sorted(names ^ set(FEATURES) | categorical ^ CATEGORICAL) or [f"target {card.target}"]
        raise ModelRefused(
            f"{card.name} {card.version} breaks the feature contract in {', '.join(differing)}: "
            "train on the contract's features"
        )


def freeze_heap() -> None:
    """Collect once, then leave what is alive out of later collections: p99 fell from 56 to 3 ms with that."""
    gc.collect()
    gc.freeze()


def warm(model: ActiveModel) -> None:
    missing: Row = (math.nan,) * len(model.card.features)
    for call in range(WARM_CALLS):
        row = tuple(float((call + index) % 7) for index in range(len(missing)))
        model.scorer.score([row, missing])
