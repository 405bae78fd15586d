"""Scoring off the event loop in micro-batches: whatever has come in while the worker was busy goes in one batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from services.api.scoring.mojo import Score
from services.api.scoring.vector import Row

MAX_BATCH = 64
"""About 0.4 ms of scoring: the gain per row is reached by then, and nobody waits long behind a batch."""


class Scorer(Protocol):
    def score(self, rows: Sequence[Row]) -> list[Score]: ...


class MicroBatcher:
    """Belongs to one event loop. No timer: an idle worker starts at once, so a lone row never waits for company.

    The worker is one long-lived thread: a thread's first call into Java costs 0.1 ms, and two threads score no faster
    than one (they hand the interpreter lock to and fro).
    """

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        self._waiting: deque[tuple[Scorer, Row, asyncio.Future[Score]]] = deque()
        self._running: asyncio.Future[list[Score]] | None = None

    def score(self, scorer: Scorer, row: Row) -> asyncio.Future[Score]:
        """The row's score by that scorer, whatever model has become current meanwhile."""
        future: asyncio.Future[Score] = asyncio.get_running_loop().create_future()
        self._waiting.append((scorer, row, future))
        if self._running is None:
            self._start_batch()
        return future

    def close(self) -> None:
        """End the worker after its batch."""
        self._worker.shutdown()

    def _start_batch(self) -> None:
        scorer = self._waiting[0][0]
        rows: list[Row] = []
        futures: list[asyncio.Future[Score]] = []
        while self._waiting and self._waiting[0][0] is scorer and len(rows) < MAX_BATCH:
            _, row, future = self._waiting.popleft()
            rows.append(row)
            futures.append(future)
        self._running = asyncio.get_running_loop().run_in_executor(self._worker, scorer.score, rows)
        self._running.add_done_callback(lambda done: self._finish_batch(done, futures))

    def _finish_batch(self, done: asyncio.Future[list[Score]], futures: Sequence[asyncio.Future[Score]]) -> None:
        self._running = None
        if self._waiting:
            self._start_batch()
        failure = done.exception()
        scores = done.result() if failure is None else None
        for index, future in enumerate(futures):
            if future.done():  # its caller has gone
                continue
            if scores is None:
                future.set_exception(failure or RuntimeError("scoring gave nothing"))
            else:
                future.set_result(scores[index])
