"""BentoML: a service with a plain and an adaptively batched method, as its documentation shows."""

from __future__ import annotations

import bentoml
import numpy as np
from scorer import Scorer


@bentoml.service(workers=1, traffic={"timeout": 10, "max_concurrency": 512})
class FlightDelay:
    """Rows of 16 numbers in, a probability each out."""

    def __init__(self) -> None:
        self._scorer = Scorer()

    @bentoml.api  # type: ignore[untyped-decorator]
    async def predict(self, rows: np.ndarray) -> np.ndarray:
        return self._score(rows)

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)  # type: ignore[untyped-decorator]
    async def predict_batched(self, rows: np.ndarray) -> np.ndarray:
        return self._score(rows)

    def _score(self, rows: np.ndarray) -> np.ndarray:
        return np.array([self._scorer.score(row) for row in rows])
