"""Servers killed and frozen under writes: what is acknowledged stays, and nobody waits longer than needed."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import psycopg
import pytest

from services.contracts.shards import ShardEndpoints
from services.featurestore import pools as pools_module
from services.featurestore import store as store_module
from services.featurestore.errors import CommitUnknown, ShardUnavailable
from services.featurestore.pools import ACQUIRE_TIMEOUT_S
from services.featurestore.store import RETRY_S, Acknowledgement, FeatureStore
from tests.integration.featurestore.servers import Postgres
from tests.integration.featurestore.writers import (
    NOW,
    Crowd,
    entity_on,
    first_acknowledged,
    open_store,
    stored_entities,
)

pytestmark = pytest.mark.integration

Shards = tuple[ShardEndpoints, ShardEndpoints]
Servers = tuple[Postgres, Postgres]

Write = asyncio.Task[Acknowledgement]
SOON_S = 20.0
"""Longest wait for what a healthy server does at once."""
LONGER_THAN_RETRIES_S = 2 * (RETRY_S + ACQUIRE_TIMEOUT_S)
LIBRARY_BACK_OFF_S = 1.0
"""psycopg_pool's first pause; then it doubles. Being back well before proves that it is not in the way."""


@contextmanager
def setting(server: Postgres, name: str, value: str) -> Iterator[psycopg.Connection]:
    """A server-wide setting for the time of the block; gives a superuser's session."""
    with server.superuser() as connection:
        connection.execute(f"alter system set {name} = '{value}'")
        connection.execute("select pg_reload_conf()")
        try:
            yield connection
        finally:
            connection.execute(f"alter system reset {name}")
            connection.execute("select pg_reload_conf()")


def session_waiting_for_standby(superuser: psycopg.Connection) -> int | None:
    """Process id of a session whose COMMIT waits for a synchronous standby."""
    row = superuser.execute("select pid from pg_stat_activity where wait_event = 'SyncRep'").fetchone()
    return None if row is None else int(row[0])


async def session_waiting_for_lock(superuser: psycopg.Connection, *, after: int = 0) -> int:
    """Process id of a session of the store's that waits for a lock, another one than `after`."""
    waiting = (
        "select pid from pg_stat_activity where wait_event_type = 'Lock' and application_name = 'test' and pid != %s"
    )
    async with asyncio.timeout(SOON_S):
        while True:
            row = superuser.execute(waiting, (after,)).fetchone()
            if row is not None:
                return int(row[0])
            await asyncio.sleep(0.01)


async def write_that_waits(store: FeatureStore, superuser: psycopg.Connection) -> tuple[Write, UUID, int]:
    """A write whose COMMIT waits for a standby, its entity and its session.

    A server's processes take up a changed setting one after the other, so the first writes may still pass.
    """
    async with asyncio.timeout(SOON_S):
        while True:
            entity = entity_on(0)
            write = asyncio.ensure_future(store.write(entity, NOW, "UA", {}, idempotency_key=uuid4()))
            while not write.done():
                if (pid := session_waiting_for_standby(superuser)) is not None:
                    return write, entity, pid
                await asyncio.sleep(0.01)


def writing(store: FeatureStore) -> Write:
    """A write to shard 0 on its way."""
    return asyncio.ensure_future(store.write(entity_on(0), NOW, "UA", {}, idempotency_key=uuid4()))


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_a_commit_whose_wait_was_cancelled_is_not_acknowledged(
    shards: Shards, servers: Servers, how: str
) -> None:
    async with open_store(shards) as store:
        await store.probe(0)
        with setting(servers[0], "synchronous_standby_names", "nobody") as superuser:
            write, entity, pid = await write_that_waits(store, superuser)
            superuser.execute(f"select {how}(%s)", (pid,))
            with pytest.raises(CommitUnknown, match=r"wait for synchronous replication|terminating connection|closed"):
                await write
    assert entity in stored_entities(shards[0]), "it is applied, and still nobody may count on it"


async def test_a_caller_that_goes_away_does_not_cancel_its_commit(shards: Shards, servers: Servers) -> None:
    async with open_store(shards) as store:
        await store.probe(0)
        with setting(servers[0], "synchronous_standby_names", "nobody") as superuser:
            write, entity, pid = await write_that_waits(store, superuser)
            write.cancel()
            await asyncio.wait([write])
            assert write.cancelled()
            await asyncio.sleep(0.2)
            assert session_waiting_for_standby(superuser) == pid
        await store.probe(0)
        assert store.stats()[0]["write"].get("returns_bad", 0) == 0, "the connection is still of use"
    assert entity in stored_entities(shards[0])


async def test_a_commit_without_an_answer_is_given_up_without_being_cancelled(
    shards: Shards, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "WRITE_TIMEOUT_S", 0.3)
    async with open_store(shards) as store:
        await store.probe(0)
        with setting(servers[0], "synchronous_standby_names", "nobody") as superuser:
            write, _, pid = await write_that_waits(store, superuser)
            with pytest.raises(CommitUnknown):
                await write
            assert session_waiting_for_standby(superuser) == pid, "the server still waits for its standby"


async def test_a_write_that_never_reached_commit_certainly_failed(
    shards: Shards, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "WRITE_TIMEOUT_S", 0.3)
    async with open_store(shards) as store:
        await store.probe(0)
        with servers[0].superuser(shards[0].dbname) as blocker:
            blocker.execute("begin; lock table entities")
            with pytest.raises(ShardUnavailable, match="nothing was applied"):
                await writing(store)
            blocker.execute("rollback")
        await store.write(entity_on(0), NOW, "UA", {}, idempotency_key=uuid4())
    assert len(stored_entities(shards[0])) == 1


async def test_a_write_whose_connection_broke_before_its_commit_is_done_again(shards: Shards, servers: Servers) -> None:
    async with open_store(shards) as store:
        await store.probe(0)
        with servers[0].superuser(shards[0].dbname) as blocker, servers[0].superuser() as onlooker:
            blocker.execute("begin; lock table entities")
            write = writing(store)
            first = await session_waiting_for_lock(onlooker)
            onlooker.execute("select pg_terminate_backend(%s)", (first,))
            await session_waiting_for_lock(onlooker, after=first)
            blocker.execute("rollback")
        await write
    assert len(stored_entities(shards[0])) == 1


async def test_a_server_killed_under_writes_loses_nothing_and_denies_nothing(shards: Shards, servers: Servers) -> None:
    async with open_store(shards) as store:
        crowd = Crowd(store, shard=0, shards=2)
        writers = [asyncio.ensure_future(crowd.write()) for _ in range(8)]
        for away_s in (0.1, 0.1, LONGER_THAN_RETRIES_S):
            await crowd.acknowledges(50)
            await asyncio.to_thread(servers[0].kill)
            await asyncio.sleep(away_s)
            await asyncio.to_thread(servers[0].start)
        await crowd.acknowledges(50)
        crowd.stop()
        await asyncio.gather(*writers)
    stored = stored_entities(shards[0])
    assert crowd.failed, "the fault was felt"
    assert crowd.acknowledged <= stored, "acknowledged and lost"
    assert not crowd.failed & stored, "called failed and applied"
    assert stored <= crowd.acknowledged | crowd.unknown, "applied and never written"


async def test_a_returned_server_is_used_at_once(shards: Shards, servers: Servers) -> None:
    async with open_store(shards) as store:
        await first_acknowledged(store, 0, 2)
        await asyncio.to_thread(servers[0].kill)
        away_until = time.monotonic() + 2 * LIBRARY_BACK_OFF_S
        while time.monotonic() < away_until:
            with pytest.raises(ShardUnavailable):
                await store.write(entity_on(0), NOW, "UA", {}, idempotency_key=uuid4())
        await asyncio.to_thread(servers[0].start)
        _, took_s = await first_acknowledged(store, 0, 2)
    # The promise is the time: at most one pause of 50-100 ms and one login. Slack for a busy machine.
    assert took_s < LIBRARY_BACK_OFF_S / 2


async def test_connections_that_died_unused_are_never_handed_out(shards: Shards, servers: Servers) -> None:
    async with open_store(shards) as store:
        await first_acknowledged(store, 0, 2)
        await asyncio.gather(*(writing(store) for _ in range(8)))
        await asyncio.to_thread(servers[0].kill)
        await asyncio.to_thread(servers[0].start)
        for _ in range(8):
            await store.write(entity_on(0), NOW, "UA", {}, idempotency_key=uuid4())
            await store.read(entity_on(0), NOW)


async def test_a_server_that_stopped_taking_writes_is_left(shards: Shards, servers: Servers) -> None:
    async with open_store(shards) as store:
        await store.write(entity_on(0), NOW, "UA", {}, idempotency_key=uuid4())
        with setting(servers[0], "default_transaction_read_only", "on"):
            await asyncio.sleep(0.2)
            with pytest.raises(ShardUnavailable, match="read-only"):
                await store.write(entity_on(0), NOW, "UA", {}, idempotency_key=uuid4())
            with pytest.raises(ShardUnavailable, match="couldn't get a connection"):
                await store.write(entity_on(0), NOW, "UA", {}, idempotency_key=uuid4())
        await first_acknowledged(store, 0, 2)


async def test_a_server_that_lets_in_and_then_says_nothing_blocks_nobody(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools_module, "TIMELINE", "select pg_sleep(60)")
    monkeypatch.setattr(pools_module, "CONNECT_TIMEOUT_S", 0.2)
    store = open_store(shards)
    await store.open()
    with pytest.raises(ShardUnavailable, match=r"last connection error: .*closed"):
        await store.probe(0)
    started = time.monotonic()
    await store.close()
    # The promise is the time: psycopg_pool would wait 5 s for its workers and leave them behind.
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_a_dead_shard_does_not_slow_the_other(shards: Shards, servers: Servers, how: str) -> None:
    async with open_store(shards) as store:
        await first_acknowledged(store, 0, 2)
        await first_acknowledged(store, 1, 2)
        (servers[0].kill if how == "kill" else servers[0].freeze)()
        try:
            broken, sound = Crowd(store, shard=0, shards=2), Crowd(store, shard=1, shards=2)
            writers = [asyncio.ensure_future(broken.write()) for _ in range(100)]
            writers += [asyncio.ensure_future(sound.write()) for _ in range(2)]
            await asyncio.sleep(1.5)
            broken.stop()
            sound.stop()
        finally:
            if how == "freeze":
                servers[0].thaw()
        await asyncio.gather(*writers)
        if how == "kill":
            await asyncio.to_thread(servers[0].start)
    assert not sound.failed | sound.unknown
    # The promise is the time: the sound shard's writes share no wait with the dead one, 1 s (killed) or 5 s (frozen).
    # The middle one of many, because on a busy machine a single one may be slow all by itself.
    assert statistics.median(sound.took_s) < 0.25
    assert not broken.acknowledged or how == "freeze"


async def test_opening_does_not_wait_for_a_dead_shard(shards: Shards, servers: Servers) -> None:
    await asyncio.to_thread(servers[0].kill)
    try:
        async with open_store(shards) as store:
            await store.write(entity_on(1), NOW, "UA", {}, idempotency_key=uuid4())
            with pytest.raises(ShardUnavailable, match=r"shard 0 .*Connection refused"):
                await store.write(entity_on(0), NOW, "UA", {}, idempotency_key=uuid4())
    finally:
        await asyncio.to_thread(servers[0].start)


async def test_a_read_whose_connection_breaks_is_repeated_for_its_caller(shards: Shards, servers: Servers) -> None:
    entity = entity_on(0)
    async with open_store(shards) as store:
        await first_acknowledged(store, 0, 2)
        await store.write(entity, NOW, "UA", {"distance": 1.0}, idempotency_key=uuid4())
        with servers[0].superuser(shards[0].dbname) as holder, servers[0].superuser() as onlooker:
            with holder.transaction():
                holder.execute("lock table features in access exclusive mode")
                reading = asyncio.create_task(store.read(entity, NOW))
                blocked = await session_waiting_for_lock(onlooker)
                onlooker.execute("select pg_terminate_backend(%s)", (blocked,))
            row = await reading
        assert row is not None
        assert row.features == {"distance": 1.0}
        assert store.stats()[0]["read"]["returns_bad"] == 1, "its first connection is of no use any more"
