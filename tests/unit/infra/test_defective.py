"""Defects for controls do what their names say; what they replace is put back after each test."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from infra.local import defective
from services.api import cache, model_watch, proof, scores, server
from services.api.cache import Answer, Turn
from services.api.metrics import Metrics
from services.api.scores import Scores
from services.api.scoring import batcher
from services.breaker import Breaker, State
from services.featurestore import store
from services.featurestore.errors import ShardUnavailable
from services.featurestore.pools import ShardPool
from services.registry import Feature
from tests.unit.api.models import counting_model

REPLACED = (
    (proof, "check_golden"),
    (proof.ActiveModel, "cache_key"),
    (batcher, "Worker"),
    (cache, "LOOK_UP"),
    (scores.Scores, "__init__"),
    (Breaker, "_enter"),
    (store, "_write"),
    (ShardPool, "acquire"),
    (ShardPool, "release"),
    (ShardPool, "discard"),
    (model_watch.ModelWatch, "_swap"),
    (proof, "warm"),
    (server.DrainingServer, "handle_exit"),
    (store, "READ_ONE"),
)

PutIn = Callable[[str], None]


@pytest.fixture
def put_in(monkeypatch: pytest.MonkeyPatch) -> PutIn:
    for owner, name in REPLACED:
        monkeypatch.setattr(owner, name, getattr(owner, name))  # so that it is put back
    return lambda defect: defective.DEFECTS[defect]()


@pytest.mark.parametrize("defect", defective.DEFECTS)
def test_a_defect_changes_something_of_what_is_put_back(put_in: PutIn, defect: str) -> None:
    before = [getattr(owner, name) for owner, name in REPLACED]
    put_in(defect)
    assert [getattr(owner, name) for owner, name in REPLACED] != before


@pytest.mark.parametrize("arguments", [(), ("no-such-defect", "services.api"), ("slow-model",)])
def test_an_unknown_defect_starts_nothing(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "infra.local.defective", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == defective.EXIT_USAGE
    assert "slow-model" in done.stderr


class EmptyCache:
    """Never has anything, and gives everybody the turn."""

    def look_up(self, key: bytes, answer: Answer) -> None:
        answer(None, Turn.YOURS)

    def store(self, key: bytes, value: bytes) -> None: ...


@pytest.mark.parametrize(("defect", "computed"), [("slow-model", 1), ("everybody-computes", 3)])
async def test_who_asks_at_once_computes_once_or_each(
    put_in: PutIn, tmp_path: Path, defect: str, computed: int
) -> None:
    put_in(defect)
    model, scorer = counting_model(tmp_path)
    batches = batcher.MicroBatcher()
    asked = Scores(EmptyCache(), batches, Metrics())
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(asked.get(model, (0.25,), 10.0) for _ in range(3)))
    assert asyncio.get_running_loop().time() - began >= defective.SLOW_S
    assert len(scorer.rows) == computed
    batches.close()


def test_one_flight_has_one_key_though_each_model_counts_its_levels_otherwise(put_in: PutIn, tmp_path: Path) -> None:
    first, _ = counting_model(tmp_path)
    cards = [
        first.card.model_copy(update={"features": (Feature(name="distance"), Feature(name="dest", domain=levels))})
        for levels in (("ALB", "ATL"), ("ABQ", "ALB", "ATL"))
    ]
    few, many = (
        replace(first, card=card, identity=name) for card, name in zip(cards, (b"few/", b"many/"), strict=True)
    )
    assert few.cache_key((733.0,)) != many.cache_key((733.0,))

    put_in("cache-of-any-model")

    assert few.cache_key((733.0, 1.0)) == many.cache_key((733.0, 2.0))
    assert few.cache_key((733.0, math.nan)) == many.cache_key((733.0, math.nan))
    assert few.cache_key((733.0, 0.0)) != few.cache_key((733.0, 1.0))
    assert few.cache_key((733.0, 0.0)) != few.cache_key((734.0, 0.0))


def test_without_a_lock_nobody_waits_for_another(put_in: PutIn) -> None:
    put_in("everybody-computes")
    assert defective.LOCKED not in cache.LOOK_UP
    assert "turn = 1" in cache.LOOK_UP


def test_without_a_soft_expiry_only_what_is_gone_is_computed(put_in: PutIn) -> None:
    put_in("hard-expiry-only")
    assert "PTTL" not in cache.LOOK_UP
    assert "if not value then" in cache.LOOK_UP
    assert defective.LOCKED in cache.LOOK_UP


def test_a_breaker_that_never_opens(put_in: PutIn) -> None:
    put_in("breaker-never-opens")
    breaker = Breaker("unit")
    breaker.trip()
    for _ in range(20):
        ticket = breaker.admit()
        assert ticket is not None
        breaker.failed(ticket)
    assert breaker.state is State.CLOSED


async def test_who_waits_for_one_shard_keeps_others_from_the_rest(
    put_in: PutIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def take(self: Any, timeout_s: float) -> Any:
        return SimpleNamespace(shard=self._shard)

    async def give_back(self: Any, connection: Any) -> None: ...

    for name in ("release", "discard"):
        monkeypatch.setattr(ShardPool, name, give_back)
    monkeypatch.setattr(ShardPool, "acquire", take)
    put_in("one-pool")
    dead: Any = SimpleNamespace(_shard=0)
    alive: Any = SimpleNamespace(_shard=1)
    held = [await ShardPool.acquire(dead, 1.0) for _ in range(defective.SEATS)]
    with pytest.raises(ShardUnavailable, match="shard 1"):
        await ShardPool.acquire(alive, 0.01)
    await ShardPool.release(dead, held[0])
    await ShardPool.discard(dead, held[1])
    again: list[Any] = [await ShardPool.acquire(alive, 0.01) for _ in range(2)]
    assert [connection.shard for connection in again] == [1, 1]


async def test_a_write_is_acknowledged_before_it_is_begun(put_in: PutIn, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()

    async def write(*_: object) -> None:
        begun.set()

    monkeypatch.setattr(store, "_write", write)
    put_in("acknowledged-early")

    class Pool:
        free = 0

        def server_name(self, connection: object) -> str:
            return "shard-1-0"

        async def release(self, connection: object) -> None:
            self.free += 1

        async def acquire(self, timeout_s: float) -> object:
            return SimpleNamespace()

    lane: Any = SimpleNamespace(shard=1, writes=Pool())
    connection, wanted = SimpleNamespace(timeline=3), SimpleNamespace(idempotency_key=UUID(int=7))
    said = await store._write(lane, connection, wanted)  # type: ignore[arg-type]
    assert said == store.Acknowledgement(1, "shard-1-0", 3, UUID(int=7))
    assert not begun.is_set()
    assert lane.writes.free == 1
    await asyncio.wait_for(begun.wait(), 10)


async def test_between_two_models_nothing_serves(put_in: PutIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def take(self: model_watch.ModelWatch, model: Any) -> None:
        self.current = model

    monkeypatch.setattr(model_watch.ModelWatch, "_swap", take)
    put_in("swap-with-a-gap")
    watch: Any = SimpleNamespace(current=None)
    model_watch.ModelWatch._swap(watch, "first")  # type: ignore[arg-type]
    assert watch.current == "first"
    model_watch.ModelWatch._swap(watch, "second")  # type: ignore[arg-type]
    assert watch.current is None
    await asyncio.sleep(defective.GAP_S * 1.5)
    assert watch.current == "second"


def test_without_warm_up_a_model_is_asked_nothing(put_in: PutIn, tmp_path: Path) -> None:
    put_in("no-warm-up")
    model, scorer = counting_model(tmp_path)
    proof.warm(model, lambda _: None)
    assert scorer.rows == []


def test_a_replica_that_never_drains_ends_at_the_signal_and_says_nothing(put_in: PutIn) -> None:
    put_in("never-drained")
    ending: Any = SimpleNamespace(should_exit=False, _replica=SimpleNamespace(draining=False))
    server.DrainingServer.handle_exit(ending, 15, None)
    assert ending.should_exit
    assert not ending._replica.draining


def test_reads_without_bound_call_a_standby_fresh(put_in: PutIn) -> None:
    put_in("reads-without-bound")
    assert "pg_is_in_recovery(), 0::float8, (select feature_vector" in store.READ_ONE
    assert "pg_last_xact_replay_timestamp" not in store.READ_ONE
