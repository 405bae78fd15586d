"""Look-aside cache of scores in Redis that can only help: when Redis is slow, frozen or gone, predictions go on.

One connection, one round trip at a time: every lookup and store that came in during the last round trip goes in the
next one (redis-py's cost for each command is twice that of the rest of a prediction). A failed or slow round trip is
everybody's failure and opens the breaker at once; it closes when a probe in the background succeeds.

A lookup that finds nothing, or a value past its soft expiry, takes the key's lock in the same step, so that of all
replicas one computes and the others are told to wait, or are given the old value. Both steps are scripts in Redis: the
lock costs no round trip of its own, and expiry is judged by Redis' clock alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any

from prometheus_client import Counter
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.api.metrics import Metrics
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
        self._redis = Redis(
            host=host,
            port=port,
            ssl=root_certificate is not None,
            ssl_ca_certs=None if root_certificate is None else str(root_certificate),
            password=password,
            socket_timeout=ROUND_TRIP_S,
            socket_connect_timeout=CONNECT_S,
            retry=Retry(NoBackoff(), 0),
            single_connection_client=True,
        )
        self._token = secrets.token_bytes(8)
        self._look_up_sha = self._store_sha = ""
        self.breaker = Breaker("redis")
        self.breaker.trip()  # until it is connected
        metrics.follow(self.breaker)
        self._closing = False
        self._lookups: list[tuple[bytes, Answer]] = []
        self._stores: dict[bytes, bytes] = {}
        self._work = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._hits: Counter = metrics.cache_lookups.labels("hit")
        self._stale: Counter = metrics.cache_lookups.labels("stale")
        self._misses: Counter = metrics.cache_lookups.labels("miss")
        self._skipped: Counter = metrics.cache_lookups.labels("skipped")
        self._soft_expiries: Counter = metrics.cache_expiries.labels("soft")
        self._hard_expiries: Counter = metrics.cache_expiries.labels("hard")
        self._dropped: Counter = metrics.cache_stores_dropped

    def start(self) -> None:
        """Begin to connect; does not wait for Redis."""
        self._pump = asyncio.get_running_loop().create_task(self._run(), name="cache")

    async def close(self) -> None:
        """Drop what is waiting and the connection."""
        self._closing = True  # redis-py may swallow the cancellation of a round trip
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        self._shut()
        await self._disconnect()

    def look_up(self, key: bytes, answer: Answer) -> None:
        """Look up with the next round trip; at once when there is no cache."""
        if self.breaker.state is not State.CLOSED:
            self._skipped.inc()
            answer(None, Turn.UNKNOWN)
            return
        self._lookups.append((PREFIX + key, answer))
        self._work.set()

    def store(self, key: bytes, value: bytes) -> None:
        """Store soon, if there is a cache, and give up the key's lock; the caller does not wait."""
        if self.breaker.state is not State.CLOSED or len(self._stores) >= MAX_WAITING_STORES:
            self._dropped.inc()
            return
        self._stores[PREFIX + key] = value
        self._work.set()

    async def _run(self) -> None:
        while not self._closing:
            pause_s = 0.0
            try:
                await self._until_reachable()
                while not self._closing:
                    await self._work.wait()
                    self._work.clear()
                    await self._round_trip()
            except (RedisError, OSError, TimeoutError) as error:
                logger.warning("the cache is closed, predictions go on without it: %s", _told(error))
            except Exception:
                logger.exception("a fault of ours closed the cache, predictions go on without it")
                pause_s = PROBE_EVERY_S
            finally:
                self._shut()
            await self._disconnect()
            await asyncio.sleep(pause_s)

    async def _round_trip(self) -> None:
        lookups, self._lookups = self._lookups, []
        stores, self._stores = self._stores, {}
        try:
            async with asyncio.timeout(ROUND_TRIP_S):
                pipeline = self._redis.pipeline(transaction=False)
                if stores:
                    pipeline.evalsha(self._store_sha, len(stores), *stores, self._token, *stores.values())
                if lookups:
                    keys = [key for key, _ in lookups]
                    pipeline.evalsha(self._look_up_sha, len(keys), *keys, self._token)
                answers: list[Any] = await pipeline.execute()
        except BaseException:
            self._give_up(lookups)
            raise
        if lookups:
            self._deliver(lookups, answers.pop())
        if stores:
            self._dropped.inc(answers.pop())

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

    async def _until_reachable(self) -> None:
        told = None
        while not self._closing:
            self.breaker.announce()
            probe = self.breaker.admit()
            try:
                async with asyncio.timeout(CONNECT_S + ROUND_TRIP_S):
                    self._look_up_sha = await self._redis.script_load(LOOK_UP)
                    self._store_sha = await self._redis.script_load(STORE)
            except (RedisError, OSError, TimeoutError) as error:
                if told != (told := type(error)):
                    logger.warning("Redis cannot be reached, trying on: %s", _told(error))
                if probe is not None:
                    self.breaker.failed(probe)
                await self._disconnect()
                await asyncio.sleep(PROBE_EVERY_S)
            else:
                logger.info("the cache is open")
                if probe is not None:
                    self.breaker.succeeded(probe)
                return

    def _shut(self) -> None:
        self.breaker.trip()
        self._stores.clear()
        lookups, self._lookups = self._lookups, []
        self._give_up(lookups)

    async def _disconnect(self) -> None:
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            await self._redis.aclose()


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__
