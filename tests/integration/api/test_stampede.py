"""Two replicas' paths to a score over one real Redis: how often hot keys are computed, and what a lost Redis costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from services.api import scores as scores_module
from services.api.cache import LOCK_SUFFIX, PREFIX, REFRESH_BELOW_MS, ROUND_TRIP_S, ScoreCache
from services.api.metrics import Metrics
from services.api.scores import REASONS, Scores
from services.api.scoring.batcher import MicroBatcher
from services.api.scoring.mojo import Score
from services.breaker import State
from tests.integration.api.redis_server import RedisServer
from tests.unit.api.models import counting_model, until

pytestmark = pytest.mark.integration

HOT = [number / 1000 for number in range(20)]
"""Rows of one value each."""
CALLERS = 10
PATIENCE_S = 10.0


class ScorePath:
    """One replica's path."""

    def __init__(self, redis: RedisServer, directory: Path) -> None:
        self.model, self.scorer = counting_model(directory)
        self.metrics = Metrics()
        self.batcher = MicroBatcher()
        self.cache = ScoreCache("127.0.0.1", redis.port, redis.password_file.read_text(), self.metrics)
        self.scores = Scores(self.cache, self.batcher, self.metrics)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ScorePath]:
        self.cache.start()
        await until(lambda: self.cache.breaker.state is State.CLOSED)
        yield self
        self.scorer.gate.set()
        await self.cache.close()
        self.batcher.close()

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def computations(self) -> dict[str, float]:
        found = {reason: self.value("breakwater_api_computations_total", reason=reason) for reason in REASONS}
        return {reason: count for reason, count in found.items() if count}

    async def ask(self, row: float) -> tuple[Score, str]:
        return await self.scores.get(self.model, (row,), PATIENCE_S)


@pytest.fixture
async def replicas(redis: RedisServer, tmp_path: Path) -> AsyncIterator[list[ScorePath]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(ScorePath(redis, tmp_path).running()) for _ in range(2)]


async def stampede(replicas: list[ScorePath]) -> list[tuple[Score, str]]:
    """Every hot key, from every caller, at every replica, at once."""
    return await asyncio.gather(*(replica.ask(row) for _ in range(CALLERS) for row in HOT for replica in replicas))


def rows(replicas: list[ScorePath]) -> int:
    return sum(len(replica.scorer.rows) for replica in replicas)


def total(replicas: list[ScorePath], reason: str) -> float:
    return sum(replica.computations().get(reason, 0) for replica in replicas)


def expiries(replicas: list[ScorePath], kind: str) -> float:
    return sum(replica.value("breakwater_api_cache_expiries_total", kind=kind) for replica in replicas)


async def settled(redis: RedisServer) -> None:
    """Until no computation holds its lock."""
    await until(lambda: not redis.client.keys(PREFIX + b"*" + LOCK_SUFFIX))


async def test_keys_that_nobody_has_are_computed_once_over_all_replicas(
    replicas: list[ScorePath], redis: RedisServer
) -> None:
    answers = await stampede(replicas)
    assert {score.probability for score, _ in answers} == set(HOT)
    assert rows(replicas) == len(HOT) == total(replicas, "miss")
    await settled(redis)
    redis.client.delete(*redis.client.keys(PREFIX + b"*"))
    await stampede(replicas)
    assert rows(replicas) == 2 * len(HOT)
    assert expiries(replicas, "hard") == 2 * len(HOT), "each loss of a key counts once over all replicas"
    assert expiries(replicas, "soft") == 0


async def test_at_the_soft_expiry_one_replica_refreshes_each_key_and_nobody_waits(
    replicas: list[ScorePath], redis: RedisServer
) -> None:
    await stampede(replicas)
    await settled(redis)
    for key in redis.client.keys(PREFIX + b"*"):
        redis.client.pexpire(key, REFRESH_BELOW_MS - 1)
    for replica in replicas:
        replica.scorer.gate.clear()  # no computation ends: whoever is answered has the old value
    answers = await stampede(replicas)
    assert {source for _, source in answers} == {"cache"}
    for replica in replicas:
        replica.scorer.gate.set()
    await settled(redis)
    assert total(replicas, "refresh") == len(HOT)
    assert expiries(replicas, "soft") == len(HOT)
    assert expiries(replicas, "hard") == len(HOT), "the first computation's"
    assert {source for _, source in await stampede(replicas)} == {"cache"}
    assert rows(replicas) == 2 * len(HOT)
    assert all(redis.client.pttl(key) > REFRESH_BELOW_MS for key in redis.client.keys(PREFIX + b"*"))


async def test_a_replica_that_hangs_with_the_lock_delays_the_other_only_so_long(replicas: list[ScorePath]) -> None:
    hanging, other = replicas
    hanging.scorer.gate.clear()
    stuck = asyncio.ensure_future(hanging.ask(0.5))
    await until(hanging.computations)
    async with asyncio.timeout(10 * scores_module.LOCK_WAIT_S):
        assert (await other.ask(0.5))[1] == "scored"
    assert other.computations() == {"lock_timeout": 1}
    hanging.scorer.gate.set()
    await stuck


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_without_redis_each_replica_computes_each_key_once_and_soon(
    replicas: list[ScorePath], redis: RedisServer, fault: str
) -> None:
    getattr(redis, fault)()
    started = time.monotonic()
    answers = await stampede(replicas)
    took_s = time.monotonic() - started
    assert len(answers) == 2 * CALLERS * len(HOT)
    assert rows(replicas) <= 2 * len(HOT)
    assert total(replicas, "no_cache") == rows(replicas)
    assert took_s < 20 * ROUND_TRIP_S, "one round trip is lost, not one for each"
    for _ in range(50):
        await stampede(replicas)
    assert not any(replica.scores._flights for replica in replicas), "nothing piles up"


async def test_a_scorer_that_fails_leaves_no_trace_in_redis(replicas: list[ScorePath], redis: RedisServer) -> None:
    failing, sound = replicas
    failing.scorer.failure = RuntimeError("broken")
    results = await asyncio.gather(*(failing.ask(0.5) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(result, Exception) for result in results)
    assert not redis.client.exists(PREFIX + failing.model.cache_key((0.5,)))
    assert (await sound.ask(0.5))[0].probability == 0.5
