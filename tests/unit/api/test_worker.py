"""Work on the worker's thread: results and errors come back, one after the other, and nobody waits for what hangs."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest

from services.api.worker import Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("test")
    yield worker
    worker.close()


async def test_results_and_errors_come_back_from_one_thread(worker: Worker) -> None:
    def fail() -> None:
        raise ZeroDivisionError("of the work")

    names = [await worker.run(lambda: threading.current_thread().name) for _ in range(2)]
    assert names == ["test", "test"]
    with pytest.raises(ZeroDivisionError, match="of the work"):
        await worker.run(fail)


async def test_only_its_own_thread_steps_back() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    patient = Worker("patient", niceness=15)
    try:
        assert await patient.run(niceness) == max(15, before)
    finally:
        patient.close()
    assert niceness() == before


async def test_who_leaves_ends_nobodys_work(worker: Worker) -> None:
    gate, done = threading.Event(), threading.Event()

    def work() -> None:
        gate.wait(10)
        done.set()

    leaving = asyncio.create_task(worker.run(work))
    await asyncio.sleep(0.01)
    leaving.cancel()
    gate.set()
    assert await worker.run(done.is_set)


def test_work_that_ends_after_its_loop_is_nobodys_trouble(worker: Worker) -> None:
    gate = threading.Event()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.run(lambda: gate.wait(10)), 0.05)

    asyncio.run(leave())
    gate.set()
    assert asyncio.run(worker.run(lambda: "the next loop is served"))
