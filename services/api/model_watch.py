"""Follows what the registry announces: prepares candidates and swaps one reference when the pointer moves.

A model that cannot be proved is refused, with the reason, and the one that serves goes on serving.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from services.api.metrics import Metrics
from services.api.proof import ActiveModel, load
from services.api.scoring.errors import ScoringError
from services.api.worker import Worker
from services.registry import (
    Candidate,
    LiveReplica,
    ModelSource,
    NoModel,
    Pointer,
    PointerUnreachable,
    Refusal,
    RegistryError,
    ReplicaState,
    Verdict,
)

POLL_S = 0.5
"""Reading a model's keys is one question to etcd; a candidate is loaded this much later."""

POLL_PREPARED_S = 0.1
"""With a candidate ready the pointer is about to move: all replicas swap within this of each other."""

RETRY_REFUSED_S = 10.0
"""A refused model is tried again this rarely: its files may be restored, but it is usually simply wrong."""

LOADER_NICENESS = 10
"""A model that is prepared takes the processor from no prediction; on an idle one it costs nothing (nice(1))."""

MAX_REASON = 500
"""Characters of a reason that travel to etcd; the log has all."""

RARELY: Final = (20_000, 20, 50)
"""Objects that may hold others, made since the last collection and still there: about a millisecond to look through.
With the interpreter's own 700 a worker answered 7 % fewer requests/s (five rounds in turn, 4 to 11 %)."""

logger = logging.getLogger(__name__)


class Speaker(Protocol):
    """Who tells the other side (services/registry/presence.py)."""

    def say(self, state: ReplicaState, verdict: Verdict | None) -> None: ...


class ModelWatch:
    """Holds the model that serves in `current` (None before the first) and keeps it what the registry says.

    `candidate` is what may serve next, `preparing` whether its load goes on, `refused` what was refused since the last
    swap, `replicas` who lives, as etcd said last.
    """

    def __init__(
        self,
        replica: str,
        registry: ModelSource,
        presence: Speaker,
        metrics: Metrics,
        *,
        swapped: Callable[[], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`swapped` is called when another model serves."""
        self.current: ActiveModel | None = None
        self.candidate: Candidate | None = None
        self.preparing = False
        self.refused: Refusal | None = None
        self.replicas: tuple[LiveReplica, ...] = ()
        self._replica = replica
        self._registry = registry
        self._presence = presence
        self._metrics = metrics
        self._swapped = swapped
        self._monotonic = monotonic
        self._prepared: ActiveModel | None = None
        self._verdict: Verdict | None = None
        self._refused_pointer: Pointer | None = None
        self._retry_at = 0.0
        self._told: str | None = None
        self._loader = Worker("model-loader", niceness=LOADER_NICENESS)
        metrics.model_generation.set(0)

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(POLL_S if self._prepared is None else POLL_PREPARED_S)

    async def check(self) -> None:
        """Look once. Raises nothing that a bad pointer, candidate or artifact can cause."""
        try:
            seen = await self._loader.run(self._registry.look)
        except PointerUnreachable as error:
            self._tell(str(error))
            return
        except RegistryError as error:
            self._refuse(None, error)
            return
        self.replicas = seen.replicas
        try:
            await self._follow(seen.pointer())
        except NoModel as error:
            self._tell(str(error))
        except RegistryError as error:
            self._refuse(None, error)
        await self._answer(seen.candidate)
        self._presence.say(self.state(), self._verdict)

    def state(self) -> ReplicaState:
        if self.current is None:
            return ReplicaState(replica=self._replica, refused=self.refused)
        return ReplicaState(
            replica=self._replica,
            version=self.current.card.version,
            generation=self.current.generation,
            refused=self.refused,
        )

    def close(self) -> None:
        """End the loading thread; a load that hangs is not waited for."""
        self._loader.close()

    async def _follow(self, pointer: Pointer) -> None:
        if self.current is not None and pointer.generation <= self.current.generation:
            if pointer.generation < self.current.generation:
                self._tell(f"the pointer went back to generation {pointer.generation}: ignored, publish a model again")
            return
        for ready in (self._prepared, self.current):
            if ready is not None and ready.pointer.same_version(pointer):
                self._swap(replace(ready, pointer=pointer))
                return
        if pointer == self._refused_pointer and self._monotonic() < self._retry_at:
            return
        loading = partial(load, self._registry, pointer)
        try:
            if self.current is None:
                await self._loader.run(loading)  # rehearsed: half of what a first reload costs is the JVM's compiling
            model = await self._loader.run(loading)
        except (RegistryError, ScoringError) as error:
            self._refuse(pointer, error)
        else:
            self._swap(model)

    async def _answer(self, candidate: Candidate | None) -> None:
        """Prepare a new candidate and remember the verdict; forget both when the candidate is gone."""
        if candidate is None:
            self.candidate = self._prepared = self._verdict = None
            return
        if self.candidate is not None and self.candidate.attempt == candidate.attempt:
            return
        self.candidate, self.preparing, self._prepared = candidate, True, None
        refused: str | None = None
        try:
            self._prepared = await self._loader.run(partial(load, self._registry, candidate.pointer))
        except (RegistryError, ScoringError) as error:
            refused = str(error)[:MAX_REASON]
            self.refused = Refusal(version=candidate.pointer.version, reason=refused)
            self._tell(f"candidate {candidate.pointer.version} is refused, {self._serving()}: {error}")
        finally:
            self.preparing = False
        self._metrics.candidates.labels("prepared" if refused is None else "refused").inc()
        self._verdict = Verdict(attempt=candidate.attempt, refused=refused)

    def _swap(self, model: ActiveModel) -> None:
        self.current = model
        self._prepared = self._refused_pointer = self._told = self.refused = None
        self._metrics.model_generation.set(model.generation)
        self._metrics.model_rehearsals.set(model.scorer.calls)
        if self._swapped is not None:
            self._swapped()
        freeze_heap()
        logger.info("model %s %s serves, generation %d", model.card.name, model.card.version, model.generation)

    def _refuse(self, pointer: Pointer | None, error: Exception) -> None:
        self._refused_pointer = pointer
        self._retry_at = self._monotonic() + RETRY_REFUSED_S
        if pointer is not None:
            self.refused = Refusal(version=pointer.version, reason=str(error)[:MAX_REASON])
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


def freeze_heap() -> None:
    """Collect once, then leave what is alive out of later collections: p99 fell from 56 to 3 ms with that.

    Those are rare from then on: requests leave hardly a cycle behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*RARELY)
