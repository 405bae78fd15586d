"""A model's life: warm before anything may be served by it, and gone from memory once nothing is."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest

from services.api import model_watch, proof
from services.api.metrics import Metrics
from services.api.model_watch import ModelWatch
from services.api.proof import load
from services.api.scoring.batcher import MicroBatcher
from services.api.scoring.mojo import MojoScorer, Score
from services.api.scoring.vector import Row
from services.api.worker import Worker
from services.breaker import PROBE_EVERY_S, State
from services.registry import ModelCard, ReplicaState, Verdict
from tests.unit.api.models import until
from tests.unit.api.test_model_watch import Heard, announce, publish, serving
from tests.unit.registry.files import GOLDEN_PROBABILITY, FileRegistry

WARM_CALLS = 1000
"""What the design asks for: fewer, and the JVM's compiler has not caught up."""


class Scorer:
    """Stands in for a model in the JVM; counts calls. `golden` is what it says of every row."""

    def __init__(self, golden: float = GOLDEN_PROBABILITY) -> None:
        self.calls = 0
        self.golden = golden
        self.fails = False

    def score(self, rows: Sequence[Row]) -> list[Score]:
        self.calls += 1
        if self.fails:
            raise RuntimeError("broken trees")
        return [Score(self.golden, late=False)] * len(rows)


class Made:
    """Every scorer that was made: counts of calls, and whether it is alive still, in the order of loading."""

    def __init__(self) -> None:
        self.golden = GOLDEN_PROBABILITY
        self.made: list[weakref.ref[Scorer]] = []

    def __call__(self, artifact: Path, card: ModelCard) -> MojoScorer:
        scorer = Scorer(self.golden)
        self.made.append(weakref.ref(scorer))
        return cast(MojoScorer, scorer)

    def calls(self) -> int:
        """Of the newest."""
        scorer = self.made[-1]()
        assert scorer is not None
        return scorer.calls

    def living(self) -> list[int]:
        return [number for number, scorer in enumerate(self.made) if scorer() is not None]


class CountedWords(Heard):
    """Remembers how warm the candidate was when it was first said to be prepared."""

    def __init__(self, made: Made) -> None:
        super().__init__()
        self._made = made
        self.calls: int | None = None

    def say(self, state: ReplicaState, verdict: Verdict | None) -> None:
        if self.calls is None and verdict is not None and verdict.refused is None:
            self.calls = self._made.calls()
        super().say(state, verdict)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()
    monkeypatch.setattr(proof, "MojoScorer", made)
    return made


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    return FileRegistry(tmp_path / "models")


@pytest.fixture
def heard(made: Made) -> CountedWords:
    return CountedWords(made)


@pytest.fixture
async def batcher() -> AsyncIterator[MicroBatcher]:
    batcher = MicroBatcher()
    yield batcher
    batcher.close()


@pytest.fixture
def watch(registry: FileRegistry, heard: Heard, batcher: MicroBatcher) -> Iterator[ModelWatch]:
    watch = ModelWatch("api-0", registry, heard, Metrics(), swapped=batcher.renew)
    yield watch
    watch.close()


@pytest.fixture
def no_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is freed is freed because nothing refers to it. A cycle that a swap freezes would stay for ever."""
    monkeypatch.setattr(proof, "warm", lambda *_: None)
    monkeypatch.setattr(model_watch, "freeze_heap", lambda: None)
    monkeypatch.setattr(logging.getLogger("services.api.scoring.batcher"), "disabled", True)  # pytest keeps tracebacks
    gc.disable()
    yield
    gc.enable()


def test_a_model_is_warm_when_its_load_returns(registry: FileRegistry, tmp_path: Path, made: Made) -> None:
    publish(registry, tmp_path, "v1")
    model = load(registry, registry.pointer(), lambda _: None)
    assert made.calls() >= WARM_CALLS
    assert model.card.version == "v1"


async def test_a_first_model_is_warm_before_it_serves(
    registry: FileRegistry, tmp_path: Path, made: Made, watch: ModelWatch
) -> None:
    publish(registry, tmp_path, "v1")
    checking = asyncio.ensure_future(watch.check())
    await until(lambda: made.made)
    while watch.current is None:
        assert not checking.done()
        await asyncio.sleep(0)
    assert made.calls() >= WARM_CALLS
    await checking


async def test_a_candidate_is_warm_before_it_is_said_to_be_prepared(
    registry: FileRegistry, tmp_path: Path, made: Made, heard: CountedWords, watch: ModelWatch
) -> None:
    publish(registry, tmp_path, "v1")
    await watch.check()
    announce(registry, tmp_path, "v2")
    await watch.check()
    assert heard.verdict is not None
    assert heard.calls is not None
    assert heard.calls >= WARM_CALLS


async def score(batcher: MicroBatcher, watch: ModelWatch) -> None:
    assert watch.current is not None
    await batcher.score(watch.current.scorer, (1.0,))


@pytest.mark.usefixtures("no_collector")
async def test_a_model_that_was_replaced_is_freed_at_once(
    registry: FileRegistry, tmp_path: Path, made: Made, watch: ModelWatch, batcher: MicroBatcher
) -> None:
    for version in ("v1", "v2", "v3"):
        publish(registry, tmp_path, version)
        await watch.check()
        await watch.check()  # what loads is busy with something else by now
        assert serving(watch)[0] == version
        assert made.living() == [len(made.made) - 1]
        await score(batcher, watch)
        await asyncio.sleep(0)


@pytest.mark.usefixtures("no_collector")
async def test_a_prepared_model_replaces_another_and_leaves_nothing_of_it(
    registry: FileRegistry, tmp_path: Path, made: Made, watch: ModelWatch, batcher: MicroBatcher
) -> None:
    publish(registry, tmp_path, "v1")
    await watch.check()
    await score(batcher, watch)
    announce(registry, tmp_path, "v2")
    await watch.check()
    assert len(made.living()) == 2
    registry.point("flight-delay", "v2")
    await watch.check()
    assert serving(watch) == ("v2", 2)
    assert made.living() == [len(made.made) - 1]


@pytest.mark.usefixtures("no_collector")
async def test_a_candidate_that_is_refused_or_dropped_is_freed(
    registry: FileRegistry, tmp_path: Path, made: Made, heard: CountedWords, watch: ModelWatch
) -> None:
    publish(registry, tmp_path, "v1")
    await watch.check()
    serves = made.living()
    announce(registry, tmp_path, "v2")
    await watch.check()
    assert len(made.living()) == 2
    registry.candidate = None
    await watch.check()
    assert made.living() == serves
    made.golden += 0.1
    announce(registry, tmp_path, "v3")
    await watch.check()
    assert heard.verdict is not None
    assert "golden row 0" in str(heard.verdict.refused)
    await watch.check()
    assert made.living() == serves


@pytest.mark.usefixtures("no_collector")
async def test_a_model_that_kept_failing_is_freed_once_another_serves(
    registry: FileRegistry, tmp_path: Path, made: Made, watch: ModelWatch, batcher: MicroBatcher
) -> None:
    publish(registry, tmp_path, "v1")
    await watch.check()
    failing = made.made[-1]()
    assert failing is not None
    failing.fails = True
    del failing
    while batcher.breaker.state is not State.OPEN:
        [failed] = await asyncio.gather(score(batcher, watch), return_exceptions=True)
        assert isinstance(failed, Exception)
        del failed  # it knows the frames that it passed
    publish(registry, tmp_path, "v2")
    await watch.check()
    await score(batcher, watch)
    await asyncio.sleep(2 * PROBE_EVERY_S)  # a probe of the old one may be due still
    assert made.living() == [len(made.made) - 1]


async def test_a_worker_that_waits_holds_nothing_of_what_it_did() -> None:
    worker = Worker("test")

    def fail(_: Scorer) -> None:
        raise RuntimeError("with all its frames")

    gc.disable()
    try:
        for work in (lambda scorer: scorer, fail):
            scorer = Scorer()
            alive = weakref.ref(scorer)
            working = worker.start(lambda work=work, scorer=scorer: work(scorer))  # type: ignore[misc]
            await asyncio.wait([working])
            working.exception()
            del working, scorer
            await until(lambda alive=alive: alive() is None)  # type: ignore[misc]
    finally:
        gc.enable()
        worker.close()
