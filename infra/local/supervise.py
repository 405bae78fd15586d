"""supervisord that adopts what its servers leave behind: `python -m infra.local.supervise -c CONFIG`.

Patroni starts Postgres through a process that ends at once, so the postmaster belongs to nobody but PID 1. Where PID 1
does not collect dead children (a container without an init), a killed postmaster stays a zombie, Patroni takes it for
alive and waits for ever. As their subreaper, supervisord collects them itself.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

from supervisor import supervisord
from supervisor.options import ServerOptions

PR_SET_CHILD_SUBREAPER: Final = 36
"""linux/prctl.h; prctl(2). Not inherited by fork, so it is set after the daemon's own."""


class AdoptingOptions(ServerOptions):  # type: ignore[misc]  # supervisor has no types
    """Becomes a subreaper once it is a daemon; supervisord already collects children that it does not know."""

    def daemonize(self) -> None:
        super().daemonize()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl: {os.strerror(ctypes.get_errno())}")

    def setpgrp(self) -> None:
        """Called in each child before it becomes a server: a session of its own, which has a process group too.

        The kernel shares the processors out between sessions (sched(7), autogroup), and every process of Postgres makes
        one for itself. In one session all other members together would get what a single backend gets.
        """
        os.setsid()


def main() -> None:
    options = AdoptingOptions()
    options.realize(sys.argv[1:], doc=supervisord.__doc__)
    options.first, options.test = True, False
    supervisord.go(options)


if __name__ == "__main__":
    main()
