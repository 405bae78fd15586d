"""Following the pointer: one swap when a model is proved, and nothing but words when it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from services.api import model_watch
from services.api.metrics import Metrics
from services.api.model_watch import ActiveModel, ModelWatch, check_contract
from services.api.scoring.errors import ModelRefused
from services.api.scoring.mojo import MojoScorer
from services.api.scoring.vector import VectorEncoder
from services.contracts.flights import FEATURES
from services.registry import Feature, ModelCard
from tests.unit.api.test_vector import DOMAINS
from tests.unit.registry.files import NO_MANIFEST, FileRegistry
from tests.unit.registry.test_files import artifact, card

CONTRACT = tuple(Feature(name=name, domain=DOMAINS.get(name)) for name in FEATURES)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def contract_card(path: Path, version: str) -> ModelCard:
    return card(path, version=version).model_copy(update={"features": CONTRACT})


def fake_scorer(path: Path, described: ModelCard) -> MojoScorer:
    """Stands in for the JVM, which these tests do without: refuses what is not named right."""
    if path.read_bytes() == b"no mojo":
        raise ModelRefused(f"genmodel cannot load {path}")
    return cast(MojoScorer, object())


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    return FileRegistry(tmp_path / "models")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(registry: FileRegistry, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelWatch]:
    monkeypatch.setattr(model_watch, "MojoScorer", fake_scorer)
    monkeypatch.setattr(model_watch, "warm", lambda _: None)
    monkeypatch.setattr(model_watch, "freeze_heap", lambda: None)
    watch = ModelWatch(registry, Metrics(), monotonic=clock)
    yield watch
    watch.close()


def publish(registry: FileRegistry, tmp_path: Path, version: str, content: bytes = b"trees") -> None:
    path = artifact(tmp_path, content + version.encode() if content == b"trees" else content)
    registry.publish(path, contract_card(path, version))


def serving(watch: ModelWatch) -> tuple[str, int]:
    assert watch.current is not None
    return watch.current.card.version, watch.current.generation


async def test_the_first_model_appears_and_later_ones_replace_it(
    watch: ModelWatch, registry: FileRegistry, tmp_path: Path
) -> None:
    await watch.check()
    assert watch.current is None
    for version, generation in (("v1", 1), ("v2", 2)):
        publish(registry, tmp_path, version)
        await watch.check()
        assert serving(watch) == (version, generation)
    registry.activate("flight-delay", "v1")
    await watch.check()
    assert serving(watch) == ("v1", 3)


async def test_whoever_scores_hears_of_a_swap(
    registry: FileRegistry, tmp_path: Path, watch: ModelWatch, clock: Clock
) -> None:
    heard: list[int] = []
    listening = ModelWatch(registry, Metrics(), swapped=lambda: heard.append(1), monotonic=clock)
    await listening.check()
    assert not heard
    publish(registry, tmp_path, "v1")
    await listening.check()
    await listening.check()
    assert heard == [1]
    listening.close()


async def test_an_unchanged_pointer_changes_nothing(watch: ModelWatch, registry: FileRegistry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "v1")
    await watch.check()
    before = watch.current
    await watch.check()
    assert watch.current is before


async def test_a_pointer_that_goes_back_is_ignored(watch: ModelWatch, registry: FileRegistry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "v1")
    publish(registry, tmp_path, "v2")
    await watch.check()
    (tmp_path / "models" / "current.json").write_text(
        f'{{"schema":1,"name":"flight-delay","version":"v1","generation":1,"manifest":"{NO_MANIFEST}"}}'
    )
    await watch.check()
    assert serving(watch) == ("v2", 2)


@pytest.mark.parametrize("damage", ["artifact", "card", "pointer", "no mojo"])
async def test_a_bad_model_is_refused_and_the_old_one_serves(
    watch: ModelWatch, registry: FileRegistry, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    publish(registry, tmp_path, "v1")
    await watch.check()
    publish(registry, tmp_path, "v2", b"no mojo" if damage == "no mojo" else b"trees")
    models = tmp_path / "models"
    if damage == "artifact":
        (models / "flight-delay" / "v2" / "model.zip").write_bytes(b"damaged")
    elif damage == "card":
        (models / "flight-delay" / "v2" / "model.json").write_text("{}")
    elif damage == "pointer":
        (models / "current.json").write_text("{")
    for _ in range(3):
        await watch.check()
    assert serving(watch) == ("v1", 1)
    assert sum("v1 goes on serving" in record.message for record in caplog.records) == 1
    (models / "current.json").write_text(
        f'{{"schema":1,"name":"flight-delay","version":"v2","generation":2,"manifest":"{NO_MANIFEST}"}}'
    )
    publish(registry, tmp_path, "v3")
    await watch.check()
    assert serving(watch) == ("v3", 3)


async def test_a_refused_model_is_tried_again_later(
    watch: ModelWatch, registry: FileRegistry, tmp_path: Path, clock: Clock
) -> None:
    publish(registry, tmp_path, "v1")
    stored = tmp_path / "models" / "flight-delay" / "v1" / "model.zip"
    good = stored.read_bytes()
    stored.write_bytes(b"damaged")
    await watch.check()
    stored.write_bytes(good)
    await watch.check()
    assert watch.current is None
    clock.now += model_watch.RETRY_REFUSED_S
    await watch.check()
    assert serving(watch) == ("v1", 1)


async def test_the_watch_survives_everything_a_registry_can_hold(
    watch: ModelWatch, registry: FileRegistry, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "current.json").mkdir()
    await watch.check()
    assert watch.current is None
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()


@pytest.mark.parametrize(
    ("features", "named"),
    [
        (CONTRACT[1:], "month"),
        ((*CONTRACT, Feature(name="gate")), "gate"),
        (tuple(Feature(name=name) for name in FEATURES), "carrier, dest, origin"),
    ],
)
def test_a_model_of_another_contract_is_refused(tmp_path: Path, features: tuple[Feature, ...], named: str) -> None:
    path = artifact(tmp_path)
    with pytest.raises(ModelRefused, match=f"contract in {named}:"):
        check_contract(card(path).model_copy(update={"features": features}))
    with pytest.raises(ModelRefused, match="target arr_delay"):
        check_contract(card(path).model_copy(update={"features": CONTRACT, "target": "arr_delay"}))


def test_a_cache_key_belongs_to_one_artifact_and_one_row(tmp_path: Path) -> None:
    path = artifact(tmp_path)
    encoder = VectorEncoder(CONTRACT)
    row = (1.0,) * len(FEATURES)
    models = [
        ActiveModel(card(path), 1, cast(MojoScorer, object()), encoder, identity)
        for identity in (b"a/v1/", b"a/v1/", b"a/v2/")
    ]
    keys = [model.cache_key(row) for model in models]
    assert keys[0] == keys[1] != keys[2]
    assert models[0].cache_key((2.0, *row[1:])) != keys[0]
