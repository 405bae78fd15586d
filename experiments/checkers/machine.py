"""When the machine itself stood still: what was slow then is no proof against the platform, nor for it."""

from __future__ import annotations

import numpy as np

from experiments.checkers.fault import NS_PER_S
from experiments.evidence import Evidence
from experiments.history import History, Mask
from experiments.record import Window


def stalls(evidence: Evidence) -> tuple[Window, ...]:
    """When the disk or the processor answered nobody, in order, without overlaps."""
    seen = sorted(
        (event.t_ns, event.t_ns + int(event.data["ns"]))
        for event in evidence.events
        if (event.source, event.kind) == ("machine", "stalled")
    )
    joined: list[Window] = []
    for begin, end in seen:
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return tuple(joined)


def stood_still_s(evidence: Evidence, window: Window) -> float:
    """Seconds of a window in which the machine stood still."""
    overlaps = (min(end, window[1]) - max(begin, window[0]) for begin, end in stalls(evidence))
    return sum(overlap for overlap in overlaps if overlap > 0) / NS_PER_S


def machine_ran(history: History, evidence: Evidence) -> Mask:
    """Operations that no stall touched.

    A stall reaches as far again behind its end: what was due meanwhile waits, and on a machine that is half busy takes
    as long to be served as it took to gather.
    """
    ran: Mask = np.ones(len(history), dtype=np.bool_)
    for begin, end in stalls(evidence):
        ran &= (history.end_ns < begin) | (history.sched_ns > end + (end - begin))
    return ran
