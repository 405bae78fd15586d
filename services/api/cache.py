"""Look-aside cache of scores in Redis that can only help: when Redis is slow, frozen or gone, predictions go on.

One connection, one round trip at a time: every lookup and store that came in during the last round trip goes in the
next one (redis-py's cost for each command is twice that of the rest of a prediction). A failed or slow round trip
closes the cache for everybody at once; it opens when a probe in the background succeeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from prometheus_client import Counter, Gauge
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.api.metrics import Metrics

ROUND_TRIP_S = 0.05
"""A hundred times what a local round trip takes; a prediction that meets a frozen Redis loses this much, once."""

CONNECT_S = 0.1
PROBE_EVERY_S = 0.25
"""Pause between probes while closed: the cache is back this soon after Redis is."""

TTL_S = 300
"""A score never goes stale (its key names the model and the whole vector): this only bounds Redis's memory."""

MAX_WAITING_STORES = 1024
"""Scores waiting to be stored; more are dropped, which costs a later computation and nothing else."""

PREFIX = b"bw:score:1:"
"""The number is the format's version: it changes with the meaning of keys or values."""

logger = logging.getLogger(__name__)


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
        self._open = False
        self._lookups: list[tuple[bytes, asyncio.Future[bytes | None]]] = []
        self._stores: dict[bytes, bytes] = {}
        self._work = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._hits: Counter = metrics.cache_lookups.labels("hit")
        self._misses: Counter = metrics.cache_lookups.labels("miss")
        self._skipped: Counter = metrics.cache_lookups.labels("skipped")
        self._dropped: Counter = metrics.cache_stores_dropped
        self._gauge: Gauge = metrics.cache_open

    def start(self) -> None:
        """Begin to connect; does not wait for Redis."""
        self._pump = asyncio.get_running_loop().create_task(self._run(), name="cache")

    async def close(self) -> None:
        """Drop what is waiting and the connection."""
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        self._shut()
        await self._disconnect()

    async def get(self, key: bytes) -> bytes | None:
        """The stored value, or None when there is none or the cache is closed."""
        if not self._open:
            self._skipped.inc()
            return None
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._lookups.append((PREFIX + key, answer))
        self._work.set()
        value = await answer
        (self._misses if value is None else self._hits).inc()
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Store soon, if the cache is open; the caller does not wait."""
        if not self._open or len(self._stores) >= MAX_WAITING_STORES:
            self._dropped.inc()
            return
        self._stores[PREFIX + key] = value
        self._work.set()

    async def _run(self) -> None:
        while True:
            await self._until_reachable()
            logger.info("the cache is open")
            self._open = True
            self._gauge.set(1)
            try:
                while True:
                    await self._work.wait()
                    self._work.clear()
                    await self._round_trip()
            except (RedisError, OSError, TimeoutError) as error:
                logger.warning("the cache is closed, predictions go on without it: %s", _told(error))
            finally:
                self._shut()
            await self._disconnect()

    async def _round_trip(self) -> None:
        lookups, self._lookups = self._lookups, []
        stores, self._stores = self._stores, {}
        found: list[bytes | None] = [None] * len(lookups)
        try:
            async with asyncio.timeout(ROUND_TRIP_S):
                pipeline = self._redis.pipeline(transaction=False)
                for key, value in stores.items():
                    pipeline.set(key, value, ex=TTL_S)
                if lookups:
                    pipeline.mget([key for key, _ in lookups])
                stored = await pipeline.execute(raise_on_error=False)
            if lookups:
                found = _or_raise(stored.pop())
        finally:
            _resolve(lookups, found)
        # A full Redis refuses to store and still answers lookups.
        self._dropped.inc(sum(isinstance(answer, Exception) for answer in stored))

    async def _until_reachable(self) -> None:
        told = None
        while True:
            try:
                async with asyncio.timeout(CONNECT_S + ROUND_TRIP_S):
                    await self._redis.ping()
            except (RedisError, OSError, TimeoutError) as error:
                if told != (told := type(error)):
                    logger.warning("Redis cannot be reached, trying on: %s", _told(error))
                await self._disconnect()
                await asyncio.sleep(PROBE_EVERY_S)
            else:
                return

    def _shut(self) -> None:
        self._open = False
        self._gauge.set(0)
        self._stores.clear()
        _resolve(self._lookups, [None] * len(self._lookups))
        self._lookups = []

    async def _disconnect(self) -> None:
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            await self._redis.aclose()


def _resolve(lookups: list[tuple[bytes, asyncio.Future[bytes | None]]], values: list[bytes | None]) -> None:
    for (_, answer), value in zip(lookups, values, strict=True):
        if not answer.done():  # its caller may have gone
            answer.set_result(value)


def _or_raise(answer: list[bytes | None] | Exception) -> list[bytes | None]:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__
