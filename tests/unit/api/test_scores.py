"""One computation for a key, whoever asks, leaves or waits, and whatever the cache says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.api import scores as scores_module
from services.api.cache import Answer, Turn
from services.api.metrics import Metrics
from services.api.problems import DeadlineExceeded, ScoringFailed
from services.api.proof import ActiveModel
from services.api.scores import CACHED, Scores
from services.api.scoring.batcher import MicroBatcher
from services.api.scoring.mojo import Score
from tests.unit.api.models import CountingScorer, counting_model, until

PATIENCE_S = 10.0
OLD = Score(0.75, late=True)


class ScriptedCache:
    """Answers each lookup with the next of `turns` (the last one for ever), when `go` is set."""

    def __init__(self, *turns: tuple[bytes | None, Turn]) -> None:
        self.turns = list(turns)
        self.lookups = 0
        self.stored: dict[bytes, bytes] = {}
        self.held: list[Answer] = []
        self.hold = False

    def look_up(self, key: bytes, answer: Answer) -> None:
        self.lookups += 1
        if self.hold:
            self.held.append(answer)
        else:
            self.answer(answer)

    def answer(self, answer: Answer) -> None:
        answer(*(self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]))

    def let_go(self) -> None:
        self.hold = False
        while self.held:
            self.answer(self.held.pop())

    def store(self, key: bytes, value: bytes) -> None:
        self.stored[key] = value


class Bench:
    def __init__(self, directory: Path) -> None:
        self.model: ActiveModel
        self.scorer: CountingScorer
        self.model, self.scorer = counting_model(directory)
        self.batcher = MicroBatcher()
        self.metrics = Metrics()

    def scores(self, cache: ScriptedCache) -> Scores:
        return Scores(cache, self.batcher, self.metrics)

    def ask(self, scores: Scores, value: float, timeout_s: float = PATIENCE_S) -> asyncio.Task[tuple[Score, str]]:
        return asyncio.ensure_future(scores.get(self.model, (value,), timeout_s))

    def computed(self, reason: str) -> float:
        return self.metrics.registry.get_sample_value("breakwater_api_computations_total", {"reason": reason}) or 0.0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.scorer.gate.set()
    bench.batcher.close()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_all_who_ask_at_once_share_one_lookup_and_one_computation(bench: Bench) -> None:
    cache = ScriptedCache((None, Turn.YOURS))
    cache.hold = True
    scores = bench.scores(cache)
    asking = [bench.ask(scores, 0.25) for _ in range(50)]
    await turns()
    cache.let_go()
    assert await asyncio.gather(*asking) == [(Score(0.25, late=False), "scored")] * 50
    assert (cache.lookups, len(bench.scorer.rows)) == (1, 1)
    assert list(cache.stored.values()) == [CACHED.pack(0.25, False)]
    assert bench.computed("miss") == 1
    assert bench.metrics.registry.get_sample_value("breakwater_api_joined_total") == 49


async def test_different_rows_are_different_flights(bench: Bench) -> None:
    scores = bench.scores(ScriptedCache((None, Turn.YOURS)))
    answers = await asyncio.gather(*(bench.ask(scores, value) for value in (0.1, 0.2, 0.1)))
    assert [score.probability for score, _ in answers] == [0.1, 0.2, 0.1]
    assert len(bench.scorer.rows) == 2


async def test_who_leaves_ends_nobodys_work(bench: Bench) -> None:
    cache = ScriptedCache((None, Turn.YOURS))
    scores = bench.scores(cache)
    bench.scorer.gate.clear()
    first, second, third = (bench.ask(scores, 0.25) for _ in range(3))
    await turns()
    first.cancel()
    third.cancel()
    await turns()
    bench.scorer.gate.set()
    assert (await second)[0].probability == 0.25
    assert first.cancelled()
    assert len(bench.scorer.rows) == 1
    assert cache.stored


async def test_when_all_have_left_the_score_is_still_stored(bench: Bench) -> None:
    cache = ScriptedCache((None, Turn.YOURS))
    bench.scorer.gate.clear()
    only = bench.ask(bench.scores(cache), 0.25)
    await turns()
    only.cancel()
    await turns()
    bench.scorer.gate.set()
    await until(lambda: cache.stored)


async def test_who_waits_has_a_deadline_of_its_own(bench: Bench) -> None:
    scores = bench.scores(ScriptedCache((None, Turn.YOURS)))
    bench.scorer.gate.clear()
    patient, hasty = bench.ask(scores, 0.25), bench.ask(scores, 0.25, timeout_s=0.01)
    with pytest.raises(DeadlineExceeded):
        await hasty
    bench.scorer.gate.set()
    assert (await patient)[0].probability == 0.25


async def test_a_failure_reaches_everybody_and_is_not_kept(bench: Bench) -> None:
    cache = ScriptedCache((None, Turn.YOURS))
    scores = bench.scores(cache)
    bench.scorer.failure = RuntimeError("the model is broken")
    results = await asyncio.gather(*(bench.ask(scores, 0.25) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ScoringFailed] * 3
    assert len({id(result) for result in results}) == 3
    assert not cache.stored
    bench.scorer.failure = None
    assert (await bench.ask(scores, 0.25))[1] == "scored"


async def test_a_fresh_value_needs_no_model(bench: Bench) -> None:
    scores = bench.scores(ScriptedCache((CACHED.pack(OLD.probability, OLD.late), Turn.NOBODYS)))
    assert await bench.ask(scores, 0.25) == (OLD, "cache")
    assert not bench.scorer.rows


async def test_past_the_soft_expiry_all_get_the_old_value_and_one_refreshes(bench: Bench) -> None:
    old = CACHED.pack(OLD.probability, OLD.late)
    cache = ScriptedCache((old, Turn.YOURS), (old, Turn.ANOTHERS))
    scores = bench.scores(cache)
    bench.scorer.gate.clear()
    assert await bench.ask(scores, 0.25) == (OLD, "cache")
    assert await bench.ask(scores, 0.25) == (OLD, "cache")
    bench.scorer.gate.set()
    await until(lambda: cache.stored)
    assert len(bench.scorer.rows) == bench.computed("refresh") == 1


async def test_what_another_replica_computes_is_waited_for(bench: Bench) -> None:
    cache = ScriptedCache((None, Turn.ANOTHERS), (None, Turn.ANOTHERS), (CACHED.pack(0.5, False), Turn.NOBODYS))
    assert await bench.ask(bench.scores(cache), 0.25) == (Score(0.5, late=False), "cache")
    assert cache.lookups == 3
    assert not bench.scorer.rows


async def test_but_not_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores_module, "LOCK_WAIT_S", 0.01)
    scores = bench.scores(ScriptedCache((None, Turn.ANOTHERS)))
    assert (await bench.ask(scores, 0.25))[1] == "scored"
    assert bench.computed("lock_timeout") == 1


async def test_without_cache_the_model_answers(bench: Bench) -> None:
    scores = bench.scores(ScriptedCache((None, Turn.UNKNOWN)))
    assert (await bench.ask(scores, 0.25))[1] == "scored"
    assert bench.computed("no_cache") == 1


async def test_a_value_of_another_format_is_computed_again(bench: Bench) -> None:
    scores = bench.scores(ScriptedCache((b"what is this", Turn.NOBODYS)))
    assert (await bench.ask(scores, 0.25))[1] == "scored"


async def test_nothing_is_left_behind(bench: Bench) -> None:
    scores = bench.scores(ScriptedCache((None, Turn.YOURS)))
    await asyncio.gather(*(bench.ask(scores, number / 100) for number in range(100)))
    assert not scores._flights
