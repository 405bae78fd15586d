"""Look-aside cache of scores in Redis that can only help: when Redis is slow, frozen or gone, predictions go on.

One connection, one round trip at a time: every lookup and store that came in during the last round trip, or in the
same turn of the loop, goes in the next one (a trip each would cost more than the rest of a prediction). A failed or
slow round trip is everybody's failure and opens the breaker at once; it closes when a probe in the background succeeds.

A lookup that finds nothing, or a value past its soft expiry, takes the key's lock in the same step, so that of all
replicas one computes and the others are told to wait, or are given the old value. Both steps are scripts in Redis: the
lock costs no round trip of its own, and expiry is judged by Redis' clock alone.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import Counter

from services.api.metrics import Metrics
from services.api.redis_wire import Command, RedisRefused, RedisWire
from services.breaker import PROBE_EVERY_S, Breaker, State

ROUND_TRIP_S = 0.05
"""A hundred times what a local round trip takes; a prediction that meets a frozen Redis loses this much, once."""

CONNECT_S = 0.1

HARD_EXPIRY_MS = 300_000
"""A score never goes stale (its key names the model and the whole vector): this only bounds Redis's memory."""

SOFT_EXPIRY_MS = 240_000
"""From then on one caller computes again and all get the old value: a hot key never reaches its hard expiry."""

REFRESH_BELOW_MS = HARD_EXPIRY_MS - SOFT_EXPIRY_MS
"""A key with less than this left to live is past its soft expiry."""

LOCK_MS = 1_000
"""Far above the time of a computation (milliseconds); a holder that died keeps others from computing this long, and
waiting for it is bounded by the waiter's own patience."""

MAX_WAITING_STORES = 1024
"""Scores waiting to be stored; more are dropped, which costs a later computation and nothing else."""

PREFIX = b"bw:score:2:"
"""The number is the format's version: it changes with the meaning of keys or values."""

LOCK_SUFFIX = b":lock"

LOOK_UP = f"""
local found = {{}}
for i, key in ipairs(KEYS) do
    local value, turn = redis.call('GET', key), 0
    if not value or redis.call('PTTL', key) < {REFRESH_BELOW_MS} then
        local locked = redis.pcall('SET', key .. '{LOCK_SUFFIX.decode()}', ARGV[1], 'NX', 'PX', {LOCK_MS})
        turn = locked and 1 or 2
    end
    found[2 * i - 1], found[2 * i] = value, turn
end
return found
"""
"""KEYS, token -> value (or nil) and turn of each key. A full Redis refuses the lock: then everybody computes."""

STORE = f"""
local refused = 0
for i, key in ipairs(KEYS) do
    if redis.pcall('SET', key, ARGV[i + 1], 'PX', {HARD_EXPIRY_MS}).err then refused = refused + 1 end
    local lock = key .. '{LOCK_SUFFIX.decode()}'
    if redis.call('GET', lock) == ARGV[1] then redis.call('DEL', lock) end
end
return refused
"""
"""KEYS, token, values -> how many were refused. The lock is given back only by whom it belongs to."""

logger = logging.getLogger(__name__)


class Turn(IntEnum):
    """Whose turn it is to compute what was looked up."""

    NOBODYS = 0
    """The value is fresh."""
    YOURS = 1
    """Nobody else computes it: you hold the lock until you store."""
    ANOTHERS = 2
    """It is being computed."""
    UNKNOWN = 3
    """There is no cache at present."""


Answer = Callable[[bytes | None, Turn], None]
"""Called once with the value, if there is one, and whose turn it is. Must not raise."""


class ScoreCache:
    """Belongs to one event loop. No method raises because of Redis."""

    def __init__(
        self, host: str, port: int, password: str, metrics: Metrics, *, root_certificate: Path | None = None
    ) -> None:
        self._address = (host, port)
        self._password = password
        self._root_certificate = root_certificate
        self._wire: RedisWire | None = None
        self._token = secrets.token_bytes(8)
        self._look_up_sha = self._store_sha = b""
        self.breaker = Breaker("redis")
        self.breaker.trip()  # until it is connected
        metrics.follow(self.breaker)
        self._lookups: list[tuple[bytes, Answer]] = []
        self._stores: dict[bytes, bytes] = {}
        self._next: asyncio.Handle | None = None
        self._under_way: list[tuple[bytes, Answer]] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._hits: Counter = metrics.cache_lookups.labels("hit")
        self._stale: Counter = metrics.cache_lookups.labels("stale")
        self._misses: Counter = metrics.cache_lookups.labels("miss")
        self._skipped: Counter = metrics.cache_lookups.labels("skipped")
        self._soft_expiries: Counter = metrics.cache_expiries.labels("soft")
        self._hard_expiries: Counter = metrics.cache_expiries.labels("hard")
        self._dropped: Counter = metrics.cache_stores_dropped

    def start(self) -> None:
        """Begin to connect; does not wait for Redis."""
        self._keeping = asyncio.get_running_loop().create_task(self._keep_open(), name="cache")

    async def close(self) -> None:
        """Drop what is waiting and the connection."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        self._shut()

    def look_up(self, key: bytes, answer: Answer) -> None:
        """Look up with the next round trip; at once when there is no cache."""
        if self.breaker.state is not State.CLOSED:
            self._skipped.inc()
            answer(None, Turn.UNKNOWN)
            return
        self._lookups.append((PREFIX + key, answer))
        self._send_soon()

    def store(self, key: bytes, value: bytes) -> None:
        """Store soon, if there is a cache, and give up the key's lock; the caller does not wait."""
        if self.breaker.state is not State.CLOSED or len(self._stores) >= MAX_WAITING_STORES:
            self._dropped.inc()
            return
        self._stores[PREFIX + key] = value
        self._send_soon()

    async def _keep_open(self) -> None:
        """Connect, and again whenever the connection is lost."""
        while True:
            pause_s = 0.0
            try:
                wire = await self._until_reachable()
                await wire.lost
            except (RedisRefused, OSError, TimeoutError) as error:
                logger.warning("the cache is closed, predictions go on without it: %s", _told(error))
            except Exception:
                logger.exception("a fault of ours closed the cache, predictions go on without it")
                pause_s = PROBE_EVERY_S
            finally:
                self._shut()
            await asyncio.sleep(pause_s)

    def _send_soon(self) -> None:
        if self._next is None and self._under_way is None:
            self._next = asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._next = None
        if self._wire is None or self._wire.lost.done() or not (self._lookups or self._stores):
            return  # those who wait have been told, or are about to be
        lookups, self._lookups = self._lookups, []
        stores, self._stores = self._stores, {}
        commands: list[Command] = []
        if stores:
            commands.append(("EVALSHA", self._store_sha, len(stores), *stores, self._token, *stores.values()))
        if lookups:
            commands.append(("EVALSHA", self._look_up_sha, len(lookups), *(key for key, _ in lookups), self._token))
        self._under_way = lookups
        self._wire.send(commands, partial(self._came, lookups, bool(stores)), ROUND_TRIP_S)

    def _came(self, lookups: list[tuple[bytes, Answer]], stored: bool, answers: list[Any]) -> None:
        self._under_way = None
        try:
            if lookups:
                self._deliver(lookups, answers.pop())
            if stored:
                self._dropped.inc(answers.pop())
        except Exception as error:
            if self._wire is not None:
                self._wire.fail(error)
            return
        if self._lookups or self._stores:
            self._send_soon()

    def _deliver(self, lookups: list[tuple[bytes, Answer]], found: list[Any]) -> None:
        hits = 0
        for index, (_, answer) in enumerate(lookups):
            value, turn = found[2 * index], found[2 * index + 1]
            if turn == Turn.NOBODYS:
                hits += 1
            else:
                (self._misses if value is None else self._stale).inc()
                if turn == Turn.YOURS:
                    (self._hard_expiries if value is None else self._soft_expiries).inc()
            try:
                answer(value, turn)
            except BaseException:
                self._give_up(lookups[index + 1 :])  # others wait for theirs
                raise
        self._hits.inc(hits)

    def _give_up(self, lookups: list[tuple[bytes, Answer]]) -> None:
        self._skipped.inc(len(lookups))
        for _, answer in lookups:
            answer(None, Turn.UNKNOWN)

    async def _until_reachable(self) -> RedisWire:
        told = None
        while True:
            self.breaker.announce()
            probe = self.breaker.admit()
            try:
                self._wire = await self._connected()
            except (RedisRefused, OSError, TimeoutError) as error:
                if told != (told := type(error)):
                    logger.warning("Redis cannot be reached, trying on: %s", _told(error))
                if probe is not None:
                    self.breaker.failed(probe)
                await asyncio.sleep(PROBE_EVERY_S)
            else:
                logger.info("the cache is open")
                if probe is not None:
                    self.breaker.succeeded(probe)
                return self._wire

    async def _connected(self) -> RedisWire:
        wire = await RedisWire.connect(
            *self._address, self._password, root_certificate=self._root_certificate, timeout_s=CONNECT_S
        )
        try:
            self._look_up_sha = await wire.ask(("SCRIPT", "LOAD", LOOK_UP), CONNECT_S)
            self._store_sha = await wire.ask(("SCRIPT", "LOAD", STORE), CONNECT_S)
        except BaseException:
            wire.close()
            raise
        return wire

    def _shut(self) -> None:
        """Nobody waits any longer, and nobody begins to."""
        self.breaker.trip()
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        self._stores.clear()
        lookups = [*(self._under_way or ()), *self._lookups]
        self._under_way, self._lookups = None, []
        self._give_up(lookups)


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__
