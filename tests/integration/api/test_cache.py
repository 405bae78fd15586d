"""The cache against a real Redis that is killed, frozen, filled up and brought back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.api.cache import MAX_WAITING_STORES, PREFIX, TTL_S, ScoreCache
from services.api.metrics import Metrics
from tests.integration.api.redis_server import RedisServer

pytestmark = pytest.mark.integration

SOON_S = 5.0
FAST_S = 1.0
"""A tenth of what 200 lookups would take if each waited for Redis."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.close()


@pytest.fixture
async def cache(redis: RedisServer) -> AsyncIterator[ScoreCache]:
    cache = ScoreCache("127.0.0.1", redis.port, redis.password_file.read_text(), Metrics())
    cache.start()
    await until_open(cache)
    yield cache
    await cache.close()


async def until_open(cache: ScoreCache) -> None:
    """Until a value that is put can be got."""
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        cache.put(b"probe", b"1")
        if await cache.get(b"probe") == b"1":
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"the cache did not open within {SOON_S} s")


async def test_what_was_put_is_got_until_it_expires(cache: ScoreCache, redis: RedisServer) -> None:
    assert await cache.get(b"absent") is None
    cache.put(b"key", b"\x00binary\xff")
    assert await cache.get(b"key") == b"\x00binary\xff"
    assert 0 < redis.client.ttl(PREFIX + b"key") <= TTL_S


async def test_lookups_that_come_together_go_together(cache: ScoreCache, redis: RedisServer) -> None:
    for number in range(200):
        cache.put(b"%d" % number, b"value %d" % number)
    await cache.get(b"0")
    before = redis.client.info("commandstats")["cmdstat_mget"]["calls"]
    values = await asyncio.gather(*(cache.get(b"%d" % number) for number in range(300)))
    assert values == [b"value %d" % number for number in range(200)] + [None] * 100
    assert redis.client.info("commandstats")["cmdstat_mget"]["calls"] - before <= 3


async def test_a_killed_redis_costs_nothing_and_is_found_again(cache: ScoreCache, redis: RedisServer) -> None:
    redis.kill()
    started = time.monotonic()
    for number in range(200):
        assert await cache.get(b"%d" % number) is None
        cache.put(b"%d" % number, b"value")
    assert time.monotonic() - started < FAST_S
    redis.start()
    await until_open(cache)


async def test_a_frozen_redis_is_waited_for_once(cache: ScoreCache, redis: RedisServer) -> None:
    redis.freeze()
    started = time.monotonic()
    assert await asyncio.gather(*(cache.get(b"%d" % number) for number in range(100))) == [None] * 100
    first = time.monotonic() - started
    for number in range(200):
        assert await cache.get(b"%d" % number) is None
    everything = time.monotonic() - started
    redis.thaw()
    assert first < FAST_S
    assert everything - first < FAST_S
    await until_open(cache)


async def test_a_full_redis_still_answers(cache: ScoreCache, redis: RedisServer) -> None:
    cache.put(b"kept", b"value")
    assert await cache.get(b"kept") == b"value"
    redis.client.config_set("maxmemory", 1)
    cache.put(b"refused", b"value")
    assert await cache.get(b"kept") == b"value"
    assert await cache.get(b"refused") is None


async def test_a_wrong_password_is_a_closed_cache(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    cache = ScoreCache("127.0.0.1", redis.port, "wrong", Metrics())
    cache.start()
    deadline = time.monotonic() + SOON_S
    while "cannot be reached" not in caplog.text:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert await cache.get(b"key") is None
    assert "wrong" not in caplog.text
    await cache.close()


async def test_stores_that_wait_are_bounded(cache: ScoreCache, redis: RedisServer) -> None:
    for number in range(2 * MAX_WAITING_STORES):
        cache.put(b"%d" % number, b"value")
    await cache.get(b"0")
    assert redis.client.dbsize() <= MAX_WAITING_STORES + 1


async def test_a_caller_that_goes_away_disturbs_nobody(cache: ScoreCache) -> None:
    cache.put(b"key", b"value")
    leaving = asyncio.create_task(cache.get(b"key"))
    staying = asyncio.create_task(cache.get(b"key"))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == b"value"


async def test_closing_lets_nobody_wait(redis: RedisServer) -> None:
    cache = ScoreCache("127.0.0.1", redis.port, redis.password_file.read_text(), Metrics())
    cache.start()
    await until_open(cache)
    redis.freeze()
    waiting = asyncio.create_task(cache.get(b"key"))
    await asyncio.sleep(0)
    await cache.close()
    assert await waiting is None
