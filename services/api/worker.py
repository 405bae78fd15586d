"""One long-lived thread for work that may block, such as scoring or a slow artifact store: no process waits for it."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, cast

Result = TypeVar("Result")
Deliver = Callable[[object, BaseException | None], None]


class Worker:
    """Runs one piece of work after the other. One thread, because each new one that calls into Java costs memory.

    A daemon, unlike an executor's: the interpreter would not end before a read that hangs.
    """

    def __init__(self, name: str, *, niceness: int = 0) -> None:
        """`niceness` is the thread's own (nice(1)): work that may wait leaves the processor to what may not."""
        self._niceness = niceness
        self._work: queue.SimpleQueue[tuple[Callable[[], object], Deliver] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def start(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """The future of what the work returns or raises; cancelling it does not end the work.

        An executor does the same at three times the cost, which a batch of predictions feels.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def done(outcome: object, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(cast(Result, outcome))
            else:
                future.set_exception(error)

        def deliver(outcome: object, error: BaseException | None) -> None:
            with suppress(RuntimeError):  # the loop has closed: nobody asks any more
                loop.call_soon_threadsafe(done, outcome, error)

        self._work.put((work, deliver))
        return future

    async def run(self, work: Callable[[], Result]) -> Result:
        """What the work returns or raises. Cancelling the caller does not end the work."""
        return await self.start(work)

    def close(self) -> None:
        """End the thread after what it is doing; does not wait."""
        self._work.put(None)

    def _run(self) -> None:
        own = threading.get_native_id()  # Linux keeps a niceness for each thread
        os.setpriority(os.PRIO_PROCESS, own, max(self._niceness, os.getpriority(os.PRIO_PROCESS, own)))
        while (item := self._work.get()) is not None:
            work, deliver = item
            outcome, error = _outcome(work)
            deliver(outcome, error)
            del item, work, deliver, outcome, error  # who waits for work holds no model of the work before


def _outcome(work: Callable[[], object]) -> tuple[object, BaseException | None]:
    """What it returns or raises. A function of its own: an error knows every frame that it passed, and a frame that
    knew the error's future would keep both, and all they worked on, for as long as nobody collects cycles."""
    try:
        return work(), None
    except BaseException as error:
        return None, error
