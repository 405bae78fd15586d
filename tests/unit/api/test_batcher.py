"""Micro-batches: off the loop, in order, bounded, each row by the model it was meant for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from services.api.problems import Overloaded, ScorerUnavailable, ScoringFailed
from services.api.scoring import batcher as batcher_module
from services.api.scoring.batcher import MAX_BATCH, MAX_WAITING, MicroBatcher
from services.api.scoring.mojo import Score
from services.api.scoring.vector import Row
from services.breaker import FAILURES, State
from tests.unit.api.models import until


class Recorder:
    """Scores a row by its first value; the first batch waits until it is let go."""

    def __init__(self, *, offset: float = 0.0, held: bool = False) -> None:
        self.batches: list[int] = []
        self.threads: set[str] = set()
        self.offset = offset
        self.gate = threading.Event()
        if not held:
            self.gate.set()

    def score(self, rows: Sequence[Row]) -> list[Score]:
        self.batches.append(len(rows))
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(10)
        return [Score(row[0] + self.offset, late=False) for row in rows]


class Broken:
    def score(self, rows: Sequence[Row]) -> list[Score]:
        raise RuntimeError("the model is broken")


class Moody:
    """Fails while `broken`."""

    def __init__(self) -> None:
        self.broken = True
        self.asked = 0

    def score(self, rows: Sequence[Row]) -> list[Score]:
        self.asked += 1
        if self.broken:
            raise RuntimeError("out of sorts")
        return [Score(row[0], late=False) for row in rows]


@pytest.fixture
def batcher() -> Iterator[MicroBatcher]:
    batcher = MicroBatcher()
    yield batcher
    batcher.close()


async def test_what_waits_while_the_worker_is_busy_goes_in_one_batch(batcher: MicroBatcher) -> None:
    scorer = Recorder(held=True)
    futures = [batcher.score(scorer, (0.0,))]
    await asyncio.sleep(0)
    futures += [batcher.score(scorer, (float(number),)) for number in range(1, 200)]
    scorer.gate.set()
    scores = await asyncio.gather(*futures)
    assert [score.probability for score in scores] == [float(number) for number in range(200)]
    assert scorer.batches == [1, MAX_BATCH, MAX_BATCH, MAX_BATCH, 200 - 1 - 3 * MAX_BATCH]


async def test_what_comes_in_one_turn_of_the_loop_goes_in_one_batch(batcher: MicroBatcher) -> None:
    scorer = Recorder()
    await asyncio.gather(*(batcher.score(scorer, (float(number),)) for number in range(30)))
    assert scorer.batches == [30]


async def test_a_lone_row_waits_for_no_company(batcher: MicroBatcher) -> None:
    scorer = Recorder()
    assert (await batcher.score(scorer, (0.5,))).probability == 0.5
    assert scorer.batches == [1]


async def test_each_row_is_scored_by_its_own_model(batcher: MicroBatcher) -> None:
    old, new = Recorder(held=True), Recorder(offset=1.0)
    futures = [batcher.score(model, (0.0,)) for model in (old, old, new, old)]
    old.gate.set()
    assert [(await future).probability for future in futures] == [0.0, 0.0, 1.0, 0.0]


async def test_the_loop_runs_on_while_a_batch_is_scored(batcher: MicroBatcher) -> None:
    scorer = Recorder(held=True)
    future = batcher.score(scorer, (0.5,))
    turns = 0
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        await asyncio.sleep(0.001)
        turns += 1
    assert not future.done()
    assert turns > 5
    scorer.gate.set()
    await future
    assert scorer.threads == {"scoring"}


async def test_a_failed_batch_fails_its_rows_and_no_other(batcher: MicroBatcher) -> None:
    failing = batcher.score(Broken(), (0.5,))
    following = batcher.score(Recorder(), (0.5,))
    with pytest.raises(ScoringFailed, match="the model is broken"):
        await failing
    assert (await following).probability == 0.5


async def test_a_caller_that_went_away_disturbs_nobody(batcher: MicroBatcher) -> None:
    scorer = Recorder(held=True)
    futures = [batcher.score(scorer, (float(number),)) for number in range(4)]
    futures[0].cancel()
    futures[2].cancel()
    scorer.gate.set()
    assert [(await futures[number]).probability for number in (1, 3)] == [1.0, 3.0]


async def test_the_queue_is_bounded(batcher: MicroBatcher) -> None:
    scorer = Recorder(held=True)
    futures = [batcher.score(scorer, (float(number),)) for number in range(MAX_WAITING)]
    with pytest.raises(Overloaded, match="try again"):
        batcher.score(scorer, (0.0,))
    scorer.gate.set()
    await asyncio.gather(*futures)
    await batcher.score(scorer, (0.0,))


async def test_a_model_that_keeps_failing_is_asked_no_more_until_a_probe_succeeds(
    batcher: MicroBatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher_module, "PROBE_EVERY_S", 0.01)
    scorer = Moody()
    for _ in range(FAILURES):
        with pytest.raises(ScoringFailed):
            await batcher.score(scorer, (0.5,))
    with pytest.raises(ScorerUnavailable):
        batcher.score(scorer, (0.5,))
    await until(lambda: scorer.asked > FAILURES + 2)
    scorer.broken = False
    await until(lambda: batcher.breaker.state is State.CLOSED)
    assert (await batcher.score(scorer, (0.5,))).probability == 0.5


async def test_a_new_model_is_not_blamed_for_the_old_one(batcher: MicroBatcher) -> None:
    old, new = Moody(), Recorder()
    for _ in range(FAILURES):
        with pytest.raises(ScoringFailed):
            await batcher.score(old, (0.5,))
    batcher.renew()
    assert (await batcher.score(new, (0.5,))).probability == 0.5
    assert batcher.breaker.state is State.CLOSED


async def test_a_batch_that_hangs_fails_all_behind_it_at_once_and_opens_the_breaker(
    batcher: MicroBatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher_module, "BATCH_S", 0.02)
    monkeypatch.setattr(batcher_module, "PROBE_EVERY_S", 0.01)
    scorer = Recorder(held=True)
    results = await asyncio.gather(*(batcher.score(scorer, (0.5,)) for _ in range(200)), return_exceptions=True)
    assert {type(result) for result in results} == {ScoringFailed}
    with pytest.raises(ScorerUnavailable):
        batcher.score(scorer, (0.5,))
    await asyncio.sleep(0.05)
    scorer.gate.set()
    await until(lambda: batcher.breaker.state is State.CLOSED)
    assert (await batcher.score(scorer, (0.5,))).probability == 0.5
