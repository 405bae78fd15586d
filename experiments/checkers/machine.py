"""When the machine itself stood still or had no processor left: what was slow then is no proof against the platform."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Final

import numpy as np

from experiments.checkers.fault import NS_PER_S, attempted_on_time
from experiments.checkers.finding import Checker, Finding, Verdict
from experiments.evidence import Evidence
from experiments.history import History, Mask
from experiments.record import RunRecord, Window
from experiments.scenario import Promise

SENT_WHEN_DUE: Final = 0.99
"""Of all operations; what the load's own promise asks of each stream."""


def unless_starved(checker: Checker) -> Checker:
    """The same checker, for a promise that depends on time: unknown instead of false where clients had no processor.

    An open model sends when it is due, whatever the platform does. Who is kept from that did not run, and then also
    notices answers late that were there in time; the servers beside it had no more.
    """

    @functools.wraps(checker)
    def judged(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
        finding = checker(history, evidence, promise, run)
        if finding.verdict is not Verdict.FALSE or run.windows.whole is None:
            return finding
        due = history.scheduled_in(run.windows.whole)
        sent, scheduled = int((due & attempted_on_time(history)).sum()), int(due.sum())
        if sent >= SENT_WHEN_DUE * scheduled:
            return finding
        doubt = f"but clients had no processor: only {sent:,} of {scheduled:,} operations were sent when due"
        return replace(finding, verdict=Verdict.UNKNOWN, reason=f"{finding.reason}; {doubt}")

    return judged


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
