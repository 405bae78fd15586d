"""One command at a time works on an environment: a lock that says who holds it, and that ends with its holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

from infra.environment import EnvironmentFault

EXPERIMENT_ENDS_S: Final = 60.0
"""An experiment is interrupted when its command dies, and then undoes its faults: a member's start takes seconds."""
POLL_S: Final = 0.05


@contextlib.contextmanager
def locked(path: Path, environment: str) -> Iterator[None]:
    """Hold the environment's lock; EnvironmentFault when another command holds it or the file cannot be opened."""
    with _opened(path, environment) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise EnvironmentFault(
                f"another breakwater command works on {environment} (pid {lock.read().strip() or '?'}); "
                "wait for it or end it"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def wait_free(path: Path, environment: str) -> None:
    """Return when no experiment holds its lock; EnvironmentFault when one whose command was killed does not end."""
    end = time.monotonic() + EXPERIMENT_ENDS_S
    with path.open("a") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > end:
                    raise EnvironmentFault(
                        f"an experiment on {environment}, whose command was killed, has not ended within "
                        f"{EXPERIMENT_ENDS_S:.0f} s; end it by hand (its command line holds {path})"
                    ) from error
                time.sleep(POLL_S)
            else:
                return


def _opened(path: Path, environment: str) -> TextIO:
    try:
        return path.open("a+")
    except OSError as error:
        raise EnvironmentFault(
            f"{error.filename} cannot be opened: {error.strerror}; run the command as the user who brought "
            f"{environment} up, or set XDG_STATE_HOME to another place"
        ) from error
