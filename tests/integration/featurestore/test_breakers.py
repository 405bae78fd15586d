"""Each shard's breakers on real servers: they open for the shard's failures only, and cost a return nothing."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from uuid import uuid4

import pytest

from services.breaker import FAILURES, PROBE_EVERY_S, Breaker, State
from services.contracts.shards import ShardEndpoints
from services.featurestore.errors import InvalidRequest, ShardUnavailable
from services.featurestore.gate import PATIENCE_S
from services.featurestore.pools import ShardPool
from services.featurestore.store import FeatureStore
from tests.integration.featurestore.servers import Postgres
from tests.integration.featurestore.writers import NOW, entity_on, first_acknowledged, open_store

pytestmark = pytest.mark.integration

Shards = tuple[ShardEndpoints, ShardEndpoints]
Servers = tuple[Postgres, Postgres]

KNOCK_S = 30.0
"""Patience of a test; the probe knocks four times a second."""
AT_ONCE_S = PATIENCE_S / 4
"""What is refused in less did not wait in line, however busy the machine."""


def breaker_of(store: FeatureStore, name: str) -> Breaker:
    return next(breaker for breaker in store.breakers() if breaker.name == name)


async def fail_to_write(store: FeatureStore) -> float:
    """Seconds that a refusal took."""
    started = time.monotonic()
    with pytest.raises(ShardUnavailable):
        await store.write(entity_on(0), NOW, "UA", {}, idempotency_key=uuid4())
    return time.monotonic() - started


async def test_a_dead_shard_is_refused_at_once_and_found_as_soon_as_it_is_back(
    shards: Shards, servers: Servers
) -> None:
    async with open_store(shards) as store:
        await first_acknowledged(store, 0, 2)
        await asyncio.to_thread(servers[0].kill)
        await asyncio.gather(*(fail_to_write(store) for _ in range(2 * FAILURES)))
        assert breaker_of(store, "shard-0-write").state is not State.CLOSED
        refusals_s = [await fail_to_write(store) for _ in range(20)]
        assert sorted(refusals_s)[10] < AT_ONCE_S
        await store.write(entity_on(1), NOW, "UA", {}, idempotency_key=uuid4())
        assert breaker_of(store, "shard-1-write").state is State.CLOSED
        await asyncio.to_thread(servers[0].start)
        await first_acknowledged(store, 0, 2)
        assert breaker_of(store, "shard-0-write").state is State.CLOSED


async def test_while_a_failover_may_be_under_way_callers_wait_for_it(shards: Shards, servers: Servers) -> None:
    """As they would without a breaker: not one of them is refused."""
    async with open_store(shards) as store:
        await first_acknowledged(store, 0, 2)
        await asyncio.to_thread(servers[0].kill)
        for breaker in store.breakers():
            breaker.trip()
        waiting = [
            asyncio.ensure_future(store.write(entity_on(0), NOW, "UA", {}, idempotency_key=uuid4())) for _ in range(20)
        ]
        await asyncio.to_thread(servers[0].start)
        assert len(await asyncio.gather(*waiting)) == 20


async def test_what_the_caller_did_wrong_opens_nothing(shards: Shards) -> None:
    async with open_store(shards) as store:
        for _ in range(2 * FAILURES):
            with pytest.raises(InvalidRequest):
                await store.write(entity_on(0), NOW.replace(year=1999), "UA", {}, idempotency_key=uuid4())
            going = asyncio.ensure_future(store.read(entity_on(0), NOW))
            await asyncio.sleep(0)
            going.cancel()
            await asyncio.wait([going])
        assert {breaker.state for breaker in store.breakers()} == {State.CLOSED}


async def test_a_new_leader_lets_a_probe_in(shards: Shards) -> None:
    async with open_store(shards) as store:
        await first_acknowledged(store, 0, 2)
        breaker = breaker_of(store, "shard-0-write")
        states: list[State] = []
        breaker.trip()
        breaker.listen(lambda breaker: states.append(breaker.state))
        store.announce(0)
        await store.write(entity_on(0), NOW, "UA", {}, idempotency_key=uuid4())
        assert states[-2:] == [State.HALF_OPEN, State.CLOSED]
        assert breaker_of(store, "shard-1-write").state is State.CLOSED


async def test_what_nothing_else_notices_the_leaders_announcement_ends(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The background probe alone would let a probe in within 0.25 s: here it never succeeds."""

    async def in_vain(_pool: ShardPool, _opened: float) -> bool:
        return False

    monkeypatch.setattr(ShardPool, "_knock", in_vain)
    async with open_store(shards) as store:
        await first_acknowledged(store, 0, 2)
        breaker_of(store, "shard-0-write").trip()
        assert await fail_to_write(store) > PATIENCE_S / 2, "a failover was waited for"
        for _ in range(3):
            await asyncio.sleep(PROBE_EVERY_S)
            assert await fail_to_write(store) < AT_ONCE_S
        store.announce(1)
        await fail_to_write(store)
        store.announce(0)
        await store.write(entity_on(0), NOW, "UA", {}, idempotency_key=uuid4())
        assert breaker_of(store, "shard-0-write").state is State.CLOSED


async def test_an_open_breaker_closes_without_any_caller_noticing(shards: Shards) -> None:
    """Sessions that were terminated all at once, and a server that never went away."""
    async with open_store(shards) as store:
        await first_acknowledged(store, 0, 2)
        knocked = {name: asyncio.Event() for name in ("shard-0-write", "shard-0-read")}
        for name in knocked:
            breaker = breaker_of(store, name)
            breaker.trip()
            breaker.listen(lambda breaker: knocked[breaker.name].set())
        # the background probe alone finds the server there, at whatever speed this machine has
        async with asyncio.timeout(KNOCK_S):
            await asyncio.gather(*(event.wait() for event in knocked.values()))
        await store.write(entity_on(0), NOW, "UA", {}, idempotency_key=uuid4())
        await store.read(entity_on(0), NOW)
        assert {breaker_of(store, name).state for name in knocked} == {State.CLOSED}


async def test_a_cancellation_that_is_swallowed_does_not_keep_the_store_open(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """psycopg_pool hands a connection to who is cancelled in the same moment, and the cancellation is gone."""
    knocking = asyncio.Event()

    async def deaf(_pool: ShardPool, _opened: float) -> bool:
        knocking.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return True

    monkeypatch.setattr(ShardPool, "_knock", deaf)
    async with asyncio.timeout(10), open_store(shards) as store:
        breaker_of(store, "shard-1-read").trip()
        await knocking.wait()
