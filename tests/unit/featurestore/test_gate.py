"""The line before an open breaker: bounded in length and time, and the first in it probes."""

from __future__ import annotations

import asyncio
import time

import pytest

from services.breaker import FAILURES, Breaker, State
from services.featurestore import gate as gate_module
from services.featurestore.gate import Gate

LONG_S = 10.0


@pytest.fixture
async def breaker() -> Breaker:
    return Breaker("shard-0-write")


@pytest.fixture
async def gate(breaker: Breaker) -> Gate:
    return Gate(breaker, line=3)


def open_it(breaker: Breaker) -> None:
    for _ in range(FAILURES):
        breaker.failed(breaker.admit() or 0)


async def test_a_closed_breaker_holds_nobody_up(gate: Gate) -> None:
    assert await gate.enter(LONG_S) is not None


async def test_when_the_shard_announces_itself_one_enters_and_when_it_succeeds_all_do(
    gate: Gate, breaker: Breaker
) -> None:
    open_it(breaker)
    entering = [asyncio.ensure_future(gate.enter(LONG_S)) for _ in range(3)]
    await asyncio.sleep(0.01)
    breaker.announce()
    done, waiting = await asyncio.wait(entering, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    assert breaker.state is State.HALF_OPEN
    breaker.succeeded(done.pop().result() or 0)
    assert None not in await asyncio.gather(*waiting)


async def test_the_line_has_an_end(gate: Gate, breaker: Breaker) -> None:
    open_it(breaker)
    entering = [asyncio.ensure_future(gate.enter(LONG_S)) for _ in range(3)]
    await asyncio.sleep(0)
    assert await gate.enter(LONG_S) is None
    for entrance in entering:
        entrance.cancel()
    await asyncio.wait(entering)
    assert not gate._waiting


async def test_patience_counts_from_the_outages_beginning(
    gate: Gate, breaker: Breaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "PATIENCE_S", 0.05)
    open_it(breaker)
    assert await gate.enter(LONG_S) is None
    started = time.monotonic()
    assert await gate.enter(LONG_S) is None
    assert time.monotonic() - started < 0.05, "the outage is older than the patience: refused at once"
    breaker.announce()
    breaker.succeeded(await gate.enter(LONG_S) or 0)
    open_it(breaker)
    waiting = asyncio.ensure_future(gate.enter(LONG_S))
    await asyncio.sleep(0.001)
    assert not waiting.done(), "a new outage is waited for again"
    assert await waiting is None


async def test_a_callers_own_time_may_be_shorter(gate: Gate, breaker: Breaker) -> None:
    open_it(breaker)
    assert await gate.enter(0.01) is None
