"""Processes that may wait: training leaves the processors to whoever serves."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

NICENESS: Final = 10
"""Below everything that serves (nice(1)): a tenth of a processor that somebody else wants."""

BELOW: Final = ("setpriv", "--pdeathsig", "KILL", "nice", "-n", str(NICENESS))

LOWERED_S: Final = 1.0
"""The kernel lets a user change one session in 100 ms: several processes that start at once take turns."""

logger = logging.getLogger(__name__)


def spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start `command` below everything that serves, as a session of its own that dies with whoever started it.

    Where the kernel shares the processors out between sessions before it looks at nice (sched(7), autogroup), it is the
    session that has to be nice. `options` are those of Popen; OSError as from there.
    """
    process = subprocess.Popen([*BELOW, *command], start_new_session=True, **options)
    _lower_session(process)
    return process


def _lower_session(process: subprocess.Popen[bytes]) -> None:
    share = Path(f"/proc/{process.pid}/autogroup")
    end = time.monotonic() + LOWERED_S
    while True:
        try:
            share.write_text(str(NICENESS))
        except BlockingIOError:
            if time.monotonic() < end:
                time.sleep(LOWERED_S / 20)
                continue
            logger.warning("process %d keeps an ordinary share of the processors: the kernel was busy", process.pid)
        except OSError as error:
            # such a kernel has no autogroups, or the process has ended already
            logger.debug("process %d has no share of its own: %s", process.pid, error)
        return
