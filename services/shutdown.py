"""How a process of threads hears that it is to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType


def on_shutdown(stop: Callable[[], None]) -> None:
    """Have `stop` called, by a thread of its own, when this process gets SIGTERM or SIGINT. From the main thread only.

    A handler itself must not set a `threading.Event`: it interrupts the main thread anywhere, also where that holds the
    event's lock, and would wait for it forever. A SimpleQueue takes an item wherever it is interrupted.
    """
    asked: SimpleQueue[int] = SimpleQueue()

    def ask(number: int, frame: FrameType | None) -> None:
        asked.put(number)

    def obey() -> None:
        asked.get()
        stop()

    threading.Thread(target=obey, name="shutdown", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
