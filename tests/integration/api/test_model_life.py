"""Models in the real JVM: one that no longer serves is no longer there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jpype
import pytest

from services.api.metrics import Metrics
from services.api.model_watch import ModelWatch
from services.api.scoring import mojo
from services.api.scoring.batcher import MicroBatcher
from services.api.scoring.jvm import start_jvm
from services.h2o.trained import TrainedModel
from tests.integration.api.platform import HEAP_MB
from tests.unit.api.test_model_watch import Heard
from tests.unit.registry.files import FileRegistry

pytestmark = pytest.mark.integration

SWAPS = 6
SCORES = 2000
"""Enough for the JVM to compile what scores, and to tailor it to the very model (MethodHandle.customize)."""


@dataclass
class Loaded:
    """A Java weak reference to every model that was loaded, in order."""

    models: list[Any] = field(default_factory=list)

    def living(self) -> list[int]:
        """After a full collection of the JVM's heap, which the serial collector does when it is asked."""
        jpype.JClass("java.lang.System").gc()
        return [number for number, model in enumerate(self.models) if model.get() is not None]


@pytest.fixture
def loaded(genmodel_jar: Path, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    start_jvm(genmodel_jar, HEAP_MB)
    loaded = Loaded()
    bulk_operator = mojo._bulk_operator

    def remembered(model: Any) -> Any:
        loaded.models.append(jpype.JClass("java.lang.ref.WeakReference")(model))
        return bulk_operator(model)

    monkeypatch.setattr(mojo, "_bulk_operator", remembered)
    return loaded


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    return FileRegistry(tmp_path / "models")


@pytest.fixture
def watch(registry: FileRegistry) -> Iterator[ModelWatch]:
    watch = ModelWatch("api-0", registry, Heard(), Metrics())
    yield watch
    watch.close()


async def test_after_each_swap_one_model_is_left(
    loaded: Loaded, registry: FileRegistry, watch: ModelWatch, trained: Mapping[str, TrainedModel]
) -> None:
    batcher = MicroBatcher()
    row = (1.0,) * len(trained["v1"].card.features)
    for number in range(SWAPS):
        model = trained["v2" if number % 2 else "v1"]
        registry.golden = model.golden
        registry.publish(model.model_zip, model.card.model_copy(update={"version": f"n{number}"}))
        await watch.check()
        assert watch.current is not None
        assert watch.current.card.version == f"n{number}"
        for _ in range(SCORES):
            await batcher.score(watch.current.scorer, row)
        assert loaded.living() == [len(loaded.models) - 1]
    batcher.close()
    assert len(loaded.models) == SWAPS + 1, "the first is loaded twice"


def test_a_model_that_is_held_is_seen(loaded: Loaded, trained: Mapping[str, TrainedModel]) -> None:
    """The same measurement, of a model that somebody still refers to."""
    scorer = mojo.MojoScorer(trained["v1"].model_zip, trained["v1"].card)
    assert loaded.living() == [0]
    del scorer
    assert loaded.living() == []
