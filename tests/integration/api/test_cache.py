"""The cache against a real Redis that is killed, frozen, filled up and brought back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from services.api.cache import (
    HARD_EXPIRY_MS,
    LOCK_SUFFIX,
    MAX_WAITING_STORES,
    PREFIX,
    REFRESH_BELOW_MS,
    ScoreCache,
    Turn,
)
from services.api.metrics import Metrics
from tests.integration.api.redis_server import RedisServer

pytestmark = pytest.mark.integration

SOON_S = 5.0
FAST_S = 1.0
"""A tenth of what 200 lookups would take if each waited for Redis."""


@pytest.fixture
async def cache(redis: RedisServer) -> AsyncIterator[ScoreCache]:
    cache = ScoreCache("127.0.0.1", redis.port, redis.password_file.read_text(), Metrics())
    cache.start()
    await until_open(cache)
    yield cache
    await cache.close()


@pytest.fixture
async def another(redis: RedisServer) -> AsyncIterator[ScoreCache]:
    """Another replica's."""
    cache = ScoreCache("127.0.0.1", redis.port, redis.password_file.read_text(), Metrics())
    cache.start()
    await until_open(cache)
    yield cache
    await cache.close()


async def look_up(cache: ScoreCache, key: bytes) -> tuple[bytes | None, Turn]:
    answer: asyncio.Future[tuple[bytes | None, Turn]] = asyncio.get_running_loop().create_future()
    cache.look_up(key, lambda value, turn: None if answer.done() else answer.set_result((value, turn)))
    return await answer


async def get(cache: ScoreCache, key: bytes) -> bytes | None:
    return (await look_up(cache, key))[0]


async def until_open(cache: ScoreCache) -> None:
    """Until a value that is put can be got."""
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        cache.store(b"probe", b"1")
        if await get(cache, b"probe") == b"1":
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"the cache did not open within {SOON_S} s")


async def test_a_fault_of_ours_closes_it_for_a_moment_only(cache: ScoreCache, caplog: pytest.LogCaptureFixture) -> None:
    def faulty(value: bytes | None, turn: Turn) -> None:
        raise KeyError("a fault of ours")

    cache.look_up(b"absent", faulty)
    await until_open(cache)
    assert [record for record in caplog.records if record.exc_info and "fault of ours" in record.message]


async def test_what_was_put_is_got_until_it_expires(cache: ScoreCache, redis: RedisServer) -> None:
    assert await get(cache, b"absent") is None
    cache.store(b"key", b"\x00binary\xff")
    assert await get(cache, b"key") == b"\x00binary\xff"
    assert 0 < redis.client.pttl(PREFIX + b"key") <= HARD_EXPIRY_MS


async def test_lookups_that_come_together_go_together(cache: ScoreCache, redis: RedisServer) -> None:
    for number in range(200):
        cache.store(b"%d" % number, b"value %d" % number)
    await get(cache, b"0")
    before = redis.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    values = await asyncio.gather(*(get(cache, b"%d" % number) for number in range(300)))
    assert values == [b"value %d" % number for number in range(200)] + [None] * 100
    assert redis.client.info("commandstats")["cmdstat_evalsha"]["calls"] - before <= 3


async def test_a_killed_redis_costs_nothing_and_is_found_again(cache: ScoreCache, redis: RedisServer) -> None:
    redis.kill()
    started = time.monotonic()
    for number in range(200):
        assert await get(cache, b"%d" % number) is None
        cache.store(b"%d" % number, b"value")
    assert time.monotonic() - started < FAST_S
    redis.start()
    await until_open(cache)


async def test_a_frozen_redis_is_waited_for_once(cache: ScoreCache, redis: RedisServer) -> None:
    redis.freeze()
    started = time.monotonic()
    assert await asyncio.gather(*(get(cache, b"%d" % number) for number in range(100))) == [None] * 100
    first = time.monotonic() - started
    for number in range(200):
        assert await get(cache, b"%d" % number) is None
    everything = time.monotonic() - started
    redis.thaw()
    assert first < FAST_S
    assert everything - first < FAST_S
    await until_open(cache)


async def test_a_full_redis_still_answers(cache: ScoreCache, redis: RedisServer) -> None:
    cache.store(b"kept", b"value")
    assert await get(cache, b"kept") == b"value"
    redis.client.config_set("maxmemory", 1)
    cache.store(b"refused", b"value")
    assert await get(cache, b"kept") == b"value"
    assert await look_up(cache, b"refused") == (None, Turn.YOURS)
    assert await look_up(cache, b"refused") == (None, Turn.YOURS)  # no room for a lock: everybody computes


async def test_one_of_all_who_miss_computes(cache: ScoreCache, another: ScoreCache) -> None:
    turns = [turn for _ in range(5) for _, turn in await asyncio.gather(look_up(cache, b"k"), look_up(another, b"k"))]
    assert sorted(turns) == [Turn.YOURS] + [Turn.ANOTHERS] * 9


async def test_past_the_soft_expiry_one_refreshes_and_all_have_the_old_value(
    cache: ScoreCache, another: ScoreCache, redis: RedisServer
) -> None:
    cache.store(b"key", b"old")
    assert await look_up(cache, b"key") == (b"old", Turn.NOBODYS)
    redis.client.pexpire(PREFIX + b"key", REFRESH_BELOW_MS - 1)
    found = await asyncio.gather(*(look_up(one, b"key") for one in (cache, another) for _ in range(5)))
    assert {value for value, _ in found} == {b"old"}
    assert sorted(turn for _, turn in found) == [Turn.YOURS] + [Turn.ANOTHERS] * 9


async def test_storing_gives_up_the_lock_and_only_ones_own(
    cache: ScoreCache, another: ScoreCache, redis: RedisServer
) -> None:
    assert await look_up(cache, b"key") == (None, Turn.YOURS)
    another.store(b"key", b"by who lost patience")
    assert await get(another, b"key") == b"by who lost patience"
    assert redis.client.exists(PREFIX + b"key" + LOCK_SUFFIX)
    cache.store(b"key", b"value")
    assert await look_up(cache, b"key") == (b"value", Turn.NOBODYS)
    assert not redis.client.exists(PREFIX + b"key" + LOCK_SUFFIX)


async def test_a_lock_whose_holder_died_ends(cache: ScoreCache, another: ScoreCache, redis: RedisServer) -> None:
    assert await look_up(cache, b"key") == (None, Turn.YOURS)
    redis.client.pexpire(PREFIX + b"key" + LOCK_SUFFIX, 1)
    await asyncio.sleep(0.01)
    assert await look_up(another, b"key") == (None, Turn.YOURS)


async def test_scripts_that_redis_forgot_are_loaded_again(cache: ScoreCache, redis: RedisServer) -> None:
    redis.client.script_flush()
    assert await look_up(cache, b"key") == (None, Turn.UNKNOWN)
    await until_open(cache)


async def test_a_wrong_password_is_a_closed_cache(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    cache = ScoreCache("127.0.0.1", redis.port, "wrong", Metrics())
    cache.start()
    deadline = time.monotonic() + SOON_S
    while "cannot be reached" not in caplog.text:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert await get(cache, b"key") is None
    assert "wrong" not in caplog.text
    await cache.close()


async def test_stores_that_wait_are_bounded(cache: ScoreCache, redis: RedisServer) -> None:
    for number in range(2 * MAX_WAITING_STORES):
        cache.store(b"%d" % number, b"value")
    await get(cache, b"0")
    assert redis.client.dbsize() <= MAX_WAITING_STORES + 1


async def test_a_caller_that_goes_away_disturbs_nobody(cache: ScoreCache) -> None:
    cache.store(b"key", b"value")
    leaving = asyncio.create_task(get(cache, b"key"))
    staying = asyncio.create_task(get(cache, b"key"))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == b"value"


async def test_closing_lets_nobody_wait(redis: RedisServer) -> None:
    cache = ScoreCache("127.0.0.1", redis.port, redis.password_file.read_text(), Metrics())
    cache.start()
    await until_open(cache)
    redis.freeze()
    waiting = asyncio.create_task(get(cache, b"key"))
    await asyncio.sleep(0)
    await cache.close()
    assert await waiting is None


@pytest.mark.parametrize("moment", range(16))
async def test_closing_in_the_middle_of_a_round_trip_ends(redis: RedisServer, moment: int) -> None:
    cache = ScoreCache("127.0.0.1", redis.port, redis.password_file.read_text(), Metrics())
    cache.start()
    await until_open(cache)
    cache.store(b"key", b"value")
    for _ in range(moment):
        await asyncio.sleep(0)
    async with asyncio.timeout(SOON_S):
        await cache.close()
