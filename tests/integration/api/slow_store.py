"""An artifact store that answers, but slowly: the kernel holds every open of a file back for as long as it is told."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LOOK_S = 0.01
APART_S = 0.05
"""Between an open that went through and the next one that is held back: those that waited together go on together."""


@contextmanager
def opens_take(paths: Sequence[Path], seconds: float) -> Iterator[list[Path]]:
    """Gives the list of opens that were held back. Main thread only, as everything that handles signals.

    By a lease on each file (fcntl(2), F_SETLEASE), which the kernel wants back before it lets anybody else open it.
    """
    ended = threading.Event()
    held: list[Path] = []
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # tells of each open that waits, and would end this process

    def hold(path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR)
        try:
            while not ended.is_set():
                try:
                    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
                except BlockingIOError:  # somebody reads it
                    ended.wait(LOOK_S)
                    continue
                while fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_WRLCK and not ended.wait(LOOK_S):
                    pass
                if not ended.is_set():
                    held.append(path)
                    ended.wait(seconds)
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
                ended.wait(APART_S)
        finally:
            os.close(descriptor)

    threads = [threading.Thread(target=hold, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    try:
        yield held
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        signal.signal(signal.SIGIO, before)
