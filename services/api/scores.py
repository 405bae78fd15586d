"""A row's score from wherever it is had first: the cache, a computation that is under way, or the model.

One flight per key and replica: whoever asks for what is being looked up or computed joins, and each waits on a future
of its own, so that one who leaves ends nobody's work. Across replicas the cache's lock does the same. Failures reach
those who wait and are stored nowhere.
"""

from __future__ import annotations

import asyncio
import struct
from functools import partial
from typing import Final, Literal, Protocol

from services.api.cache import Answer, ScoreCache, Turn
from services.api.metrics import Metrics
from services.api.problems import DeadlineExceeded, Problem, ScoringFailed
from services.api.proof import ActiveModel
from services.api.scoring.batcher import MicroBatcher
from services.api.scoring.mojo import Score
from services.api.scoring.vector import Row

CACHED = struct.Struct("<d?")
"""A score in the cache: the probability to its last bit, and the decision."""

LOCK_POLL_S = 0.005
"""How often a key that another replica computes is looked up again: about the time of a computation."""

LOCK_WAIT_S = 0.1
"""Patience with the replica that holds the lock, twenty times what it needs; then this one computes for itself."""

Source = Literal["cache", "scored"]
Reason = Literal["miss", "refresh", "lock_timeout", "no_cache"]
REASONS: Final[tuple[Reason, ...]] = ("miss", "refresh", "lock_timeout", "no_cache")

Waiter = asyncio.Future[tuple[Score, Source]]


class Cache(Protocol):
    """What is asked of ScoreCache."""

    def look_up(self, key: bytes, answer: Answer) -> None: ...

    def store(self, key: bytes, value: bytes) -> None: ...


class Flight:
    """One key's way to its score, and who waits for it."""

    __slots__ = ("give_up_at", "key", "model", "row", "waiters")

    def __init__(self, key: bytes, model: ActiveModel, row: Row, waiters: list[Waiter]) -> None:
        self.key = key
        self.model = model
        self.row = row
        self.waiters = waiters
        self.give_up_at: float | None = None


class Scores:
    """Belongs to one event loop. Holds at most a flight for each request in progress and each row in the batcher."""

    def __init__(self, cache: ScoreCache | Cache, batcher: MicroBatcher, metrics: Metrics) -> None:
        self._cache = cache
        self._batcher = batcher
        self._flights: dict[bytes, Flight] = {}
        self._joined = metrics.joined
        self._computations = {reason: metrics.computations.labels(reason) for reason in REASONS}

    async def get(self, model: ActiveModel, row: Row, timeout_s: float) -> tuple[Score, Source]:
        """DeadlineExceeded when there is none in time; ScoringFailed or Overloaded when there will be none."""
        loop = asyncio.get_running_loop()
        waiter: Waiter = loop.create_future()
        key = model.cache_key(row)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = Flight(key, model, row, [waiter])
            self._cache.look_up(key, partial(self._found, flight))
        else:
            flight.waiters.append(waiter)
            self._joined.inc()
        timer = loop.call_later(timeout_s, _expire, waiter)
        try:
            return await waiter
        finally:
            timer.cancel()

    def _found(self, flight: Flight, value: bytes | None, turn: Turn) -> None:
        if value is not None and len(value) == CACHED.size:
            self._land(flight, (Score(*CACHED.unpack(value)), "cache"))
            if turn == Turn.YOURS:  # everybody has the old value; this computation is for those who come later
                self._compute(Flight(flight.key, flight.model, flight.row, []), "refresh")
        elif turn == Turn.ANOTHERS:
            self._wait_for_another(flight)
        else:
            self._compute(flight, "no_cache" if turn == Turn.UNKNOWN else "miss")

    def _wait_for_another(self, flight: Flight) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if flight.give_up_at is None:
            flight.give_up_at = now + LOCK_WAIT_S
        if now >= flight.give_up_at:
            self._compute(flight, "lock_timeout")
        else:
            loop.call_later(LOCK_POLL_S, self._cache.look_up, flight.key, partial(self._found, flight))

    def _compute(self, flight: Flight, reason: Reason) -> None:
        try:
            computing = self._batcher.score(flight.model.scorer, flight.row)
        except Problem as refusal:
            self._crash(flight, refusal)
            return
        self._computations[reason].inc()
        computing.add_done_callback(partial(self._computed, flight))

    def _computed(self, flight: Flight, computing: asyncio.Future[Score]) -> None:
        failure = computing.exception()
        if failure is not None:
            self._crash(flight, failure if isinstance(failure, Problem) else ScoringFailed(str(failure)))
            return
        score = computing.result()
        self._land(flight, (score, "scored"))
        self._cache.store(flight.key, CACHED.pack(score.probability, score.late))

    def _land(self, flight: Flight, result: tuple[Score, Source]) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        for waiter in flight.waiters:
            if not waiter.done():  # its request may have gone
                waiter.set_result(result)

    def _crash(self, flight: Flight, refusal: Problem) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        for waiter in flight.waiters:
            if not waiter.done():
                waiter.set_exception(type(refusal)(str(refusal)))  # each its own: a raised exception gathers frames


def _expire(waiter: Waiter) -> None:
    if not waiter.done():
        waiter.set_exception(DeadlineExceeded("there was no score in time: try again, or allow more time"))
