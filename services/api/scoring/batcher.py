"""Scoring off the event loop in micro-batches: whatever has come in while the worker was busy goes in one batch."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

from services.api.problems import Overloaded, ScorerUnavailable, ScoringFailed
from services.api.scoring.mojo import Score
from services.api.scoring.vector import Row
from services.api.worker import Worker
from services.breaker import PROBE_EVERY_S, Breaker, State, Ticket

MAX_BATCH: Final = 64
"""About 0.4 ms of scoring: the gain per row is reached by then, and nobody waits long behind a batch."""

MAX_WAITING: Final = 1024
"""Rows in the queue, 16 batches, about 7 ms of scoring; more than that only comes when the worker does not go on."""

BATCH_S: Final = 1.0
"""A batch takes 0.4 ms. One that is not done by then holds up every row behind it."""

logger = logging.getLogger(__name__)


class Scorer(Protocol):
    def score(self, rows: Sequence[Row]) -> list[Score]: ...


Waiting = tuple[Scorer, Row, asyncio.Future[Score], Ticket]


class MicroBatcher:
    """Belongs to one event loop. No timer: an idle worker starts at the end of the loop's turn, so a lone row never
    waits for company, and rows of requests that came in together go together.

    The worker is one long-lived thread: a thread's first call into Java costs 0.1 ms, and two threads score no faster
    than one (they hand the interpreter lock to and fro).
    """

    def __init__(self) -> None:
        self.breaker = Breaker("scorer")
        self._worker = Worker("scoring")
        self._waiting: deque[Waiting] = deque()
        self._running: asyncio.Future[list[Score]] | None = None
        self._starting = False
        self._probe: asyncio.TimerHandle | None = None
        self._closed = False

    def score(self, scorer: Scorer, row: Row) -> asyncio.Future[Score]:
        """The row's score by that scorer, whatever model has become current meanwhile.

        Raises ScorerUnavailable or Overloaded; the future fails with ScoringFailed.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise Overloaded(f"{MAX_WAITING} rows wait to be scored on this replica: try again")
        ticket = self.breaker.admit()
        if ticket is None:
            raise ScorerUnavailable("the model keeps failing on this replica: try again")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Score] = loop.create_future()
        self._waiting.append((scorer, row, future, ticket))
        if self._running is None and not self._starting:
            self._starting = True
            loop.call_soon(self._start)
        return future

    def renew(self) -> None:
        """Another model, which has been warmed, serves from now on: what failed before says nothing of it."""
        self.breaker.announce()
        ticket = self.breaker.admit()
        if ticket is not None:
            self.breaker.succeeded(ticket)

    def close(self) -> None:
        """End the worker after its batch; one that hangs is not waited for."""
        self._closed = True
        if self._probe is not None:
            self._probe.cancel()
        self._worker.close()

    def _start(self) -> None:
        self._starting = False
        if self._waiting and self._running is None:
            self._start_batch()

    def _start_batch(self) -> None:
        scorer = self._waiting[0][0]
        batch: list[Waiting] = []
        while self._waiting and self._waiting[0][0] is scorer and len(batch) < MAX_BATCH:
            batch.append(self._waiting.popleft())
        loop = asyncio.get_running_loop()
        running = self._running = self._worker.start(partial(scorer.score, [row for _, row, _, _ in batch]))
        overdue = loop.call_later(BATCH_S, self._hang, batch)
        running.add_done_callback(lambda done: self._finish_batch(done, batch, overdue))

    def _finish_batch(
        self, done: asyncio.Future[list[Score]], batch: Sequence[Waiting], overdue: asyncio.TimerHandle
    ) -> None:
        overdue.cancel()
        self._running = None
        if self._waiting:
            self._start_batch()
        scorer, row, _, ticket = batch[-1]  # all were admitted in one state, but for a probe, which came last
        failure = done.exception()
        if failure is not None:
            logger.error("scoring failed", exc_info=failure)
            self.breaker.failed(ticket)
            _fail(batch, f"the model failed: {failure}")
            self._probe_later(scorer, row)
            return
        self.breaker.succeeded(ticket)
        for (_, _, future, _), score in zip(batch, done.result(), strict=True):
            if not future.done():  # its caller has gone
                future.set_result(score)

    def _hang(self, batch: Sequence[Waiting]) -> None:
        logger.error("a batch of %d rows has been scored for %.0f s", len(batch), BATCH_S)
        self.breaker.trip()
        _fail([*batch, *self._waiting], "the model does not answer")
        self._waiting.clear()
        self._probe_later(*batch[0][:2])

    def _probe_later(self, scorer: Scorer, row: Row) -> None:
        if self.breaker.state is State.OPEN and not self._closed:
            self._probe = asyncio.get_running_loop().call_later(PROBE_EVERY_S, self._probe_now, scorer, row)

    def _probe_now(self, scorer: Scorer, row: Row) -> None:
        """Score the failed row again: the breaker must close without requests, for without it none are sent here."""
        self._probe = None  # it would hold the model when another one serves
        self.breaker.announce()
        if self._running is not None:
            self._probe_later(scorer, row)  # it hangs still
        elif (ticket := self.breaker.admit()) is not None and self.breaker.state is State.HALF_OPEN:
            self._waiting.append((scorer, row, asyncio.get_running_loop().create_future(), ticket))
            self._start_batch()


def _fail(batch: Sequence[Waiting], message: str) -> None:
    for _, _, future, _ in batch:
        if not future.done():
            future.set_exception(ScoringFailed(message))
            future.exception()  # seen, should nobody wait
