"""What tests of the prediction path share: a model that needs no JVM, and waiting for a condition."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from services.api.proof import ActiveModel
from services.api.scoring.mojo import MojoScorer, Score
from services.api.scoring.vector import Row, VectorEncoder
from services.registry import Feature, Pointer
from tests.unit.registry.test_files import artifact, card

SOON_S = 10.0


async def until(condition: Callable[[], object]) -> None:
    """Return when the condition holds; fails when it does not within 10 s."""
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("the condition did not become true")


class CountingScorer:
    """Scores a row by its first value. `gate` holds the thread back while clear; `failure` is raised instead."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.calls = 0
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def score(self, rows: Sequence[Row]) -> list[Score]:
        assert self.gate.wait(10)
        self.calls += 1
        self.rows += rows
        if self.failure is not None:
            raise self.failure
        return [Score(row[0], late=row[0] > 0.5) for row in rows]


def counting_model(directory: Path) -> tuple[ActiveModel, CountingScorer]:
    """A model of one feature."""
    scorer = CountingScorer()
    encoder = VectorEncoder([Feature(name="distance")])
    its_card = card(artifact(directory))
    pointer = Pointer(name=its_card.name, version=its_card.version, generation=1, manifest="0" * 64)
    return ActiveModel(its_card, pointer, cast(MojoScorer, scorer), encoder, b"test/1/"), scorer
