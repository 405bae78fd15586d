"""What every checker must know of the fault before it may say anything about it."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from experiments.evidence import Evidence
from experiments.history import History, Mask
from experiments.record import FaultRecord, RunRecord, Window
from loadtests.arrivals import ON_TIME_NS
from loadtests.record import Error, Kind

NS_PER_S: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000

COUNT_NOISE: Final = 4.0
"""Poisson arrivals (predictions, reads): fewer rows than rate x time by more than this many standard deviations are
rows that are missing (chance below 1 in 10,000), not luck. Writers are paced evenly and get no such allowance."""


def doubt_fault(evidence: Evidence, run: RunRecord) -> str | None:
    """Why this run says nothing about a fault; None when the fault is proven to have happened."""
    if run.fault is None:
        return "no fault was recorded"
    for fault in run.faults:
        if not fault.proven:
            return f"the fault on {fault.member} is not proven to have happened"
        if not fault.names_its_victim:
            return f"the fault on {fault.member} names no process and no pod that it struck"
    return doubt_clocks(evidence, run)


def doubt_shard_fault(evidence: Evidence, run: RunRecord) -> str | None:
    """The same for a fault on a shard of Postgres; what struck anything else says nothing about a shard."""
    doubt = doubt_fault(evidence, run)
    if doubt is None and run.fault is not None and (run.fault.shard is None or run.fault.old_timeline is None):
        doubt = f"the fault on {run.fault.member} struck no shard"
    return doubt


def doubt_clocks(evidence: Evidence, run: RunRecord) -> str | None:
    """Why the sources' times cannot be compared; None when all of them read the run's clock."""
    strange = sorted({f"{e.source} ({e.clock_id})" for e in evidence.events if e.clock_id != run.clock_id})
    if strange:
        return f"times of {', '.join(strange)} are from another clock than the run's ({run.clock_id})"
    return None


def after_fault(run: RunRecord, fault: FaultRecord) -> Window:
    """From the fault to the end of what was watched."""
    whole = run.windows.whole
    return (fault.t_ns, max(whole[1], fault.t_ns) if whole is not None else fault.t_ns)


def attempted_on_time(history: History) -> Mask:
    """Operations that their client sent when they were due."""
    mask: Mask = (history.error != int(Error.NOT_SENT)) & (history.start_ns - history.sched_ns <= ON_TIME_NS)
    return mask


def client_ran(history: History, late_ns: int = ON_TIME_NS) -> Mask:
    """Operations during which their client was not itself stalled for longer than `late_ns`.

    An open-model client that takes an arrival up long after it was due did nothing in between; whatever it had under
    way then was answered to a client that did not listen. Stalls are told by each process's own late arrivals.
    """
    late = history.start_ns - history.sched_ns > late_ns
    ran: Mask = ~late
    for process in np.unique(history.process[late]):
        own = history.process == process
        stalled = own & late
        order = np.argsort(history.sched_ns[stalled])
        begins = history.sched_ns[stalled][order]
        ends = np.maximum.accumulate(history.start_ns[stalled][order])
        # the last stall that began before the operation ended; the ends only grow
        at = np.searchsorted(begins, history.end_ns[own], side="left") - 1
        ran[own] &= ~((at >= 0) & (ends[at] > history.start_ns[own]))
    return ran


def due(scheduled: int, expected: float, *, noise: float = 0.0) -> float:
    """How many operations a window should hold: those that were recorded, or as many as expected if rows are missing.

    `noise` is the allowance in standard deviations of a Poisson count.
    """
    return max(float(scheduled), expected - noise * math.sqrt(expected) - 1)


def attempted_writes(history: History, run: RunRecord, fault: FaultRecord, window: Window) -> tuple[int, float]:
    """Writes to the faulted shard that were sent when due in a window, and how many were due."""
    rows = history.where(
        history.of(Kind.WRITE, Kind.WRITE_API) & (history.shard == fault.shard) & history.scheduled_in(window)
    )
    rate = run.rates.write + run.rates.write_api
    return int(attempted_on_time(rows).sum()), due(len(rows), run.scheduled(rate, window))
