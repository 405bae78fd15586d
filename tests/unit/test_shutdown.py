"""The order to end is heard wherever it interrupts the main thread."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from services.shutdown import on_shutdown

HEARD_S = 5.0


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_order_that_comes_while_the_lock_is_held_is_obeyed_once_it_is_free(number: signal.Signals) -> None:
    lock, obeyed = threading.Lock(), SimpleQueue[bool]()

    def stop() -> None:
        obeyed.put(lock.acquire(timeout=HEARD_S))

    on_shutdown(stop)
    with lock:
        os.kill(os.getpid(), number)  # the handler has run when this returns

    assert obeyed.get(timeout=HEARD_S)


def test_a_second_order_changes_nothing() -> None:
    obeyed = SimpleQueue[None]()

    on_shutdown(lambda: obeyed.put(None))
    os.kill(os.getpid(), signal.SIGTERM)
    obeyed.get(timeout=HEARD_S)
    os.kill(os.getpid(), signal.SIGINT)
    for thread in threading.enumerate():
        if thread.name == "shutdown":
            thread.join(HEARD_S)
            assert not thread.is_alive(), "somebody waits for another order"

    assert obeyed.empty()
