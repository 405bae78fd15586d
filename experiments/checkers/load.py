"""What a load test says, where nothing was damaged: who was answered as the rates changed, and what was kept."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

from experiments.checkers.availability import MIN_OPERATIONS
from experiments.checkers.durability import accounts_of, judged_lost
from experiments.checkers.fault import NS_PER_MS, NS_PER_S, attempted_on_time, client_ran
from experiments.checkers.finding import Exhibit, Finding, Verdict, count, measured, unknown
from experiments.checkers.machine import machine_ran
from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import RunRecord, Window
from experiments.scenario import Promise

STRETCHES: Final = 10
"""A load is shown in so many equal stretches: each phase of a profile fills two at least, each line has samples."""
MIN_WRITES: Final = 100
"""Fewer acknowledged writes prove nothing by being there."""
PERCENT: Final = 100.0


def answered_in_time(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Per cent of all operations that got a right answer before their deadline, and the load stretch by stretch."""
    whole = run.windows.whole
    if whole is None:
        return unknown(promise, "the run has no window at all")
    inside = history.within(whole)
    rows = inside.where(attempted_on_time(inside) & client_ran(inside))
    n, out_of = len(rows), count(len(rows), "operation")
    if n < MIN_OPERATIONS:
        return unknown(promise, f"only {out_of} seen; {MIN_OPERATIONS} are needed", n=n, out_of=out_of)
    bad = rows.where(~rows.available)
    value = PERCENT * (n - len(bad)) / n
    exhibit = stretches(inside, run, whole)
    reason = f"{count(len(bad), 'bad operation')} of {n:,}"
    if len(inside) > n:
        reason += f"; {len(inside) - n:,} more were delayed by their own client"
    proven = int(machine_ran(bad, evidence).sum())
    if not promise.kept(value) and promise.kept(PERCENT * (n - proven) / n):
        reason += f"; the machine itself stood still at {len(bad) - proven:,} of them"
        return Finding(value, promise.target, Verdict.UNKNOWN, n, out_of, reason, (exhibit,))
    return measured(promise, value, n=n, out_of=out_of, reason=reason, evidence=(exhibit,))


def stretches(history: History, run: RunRecord, window: Window) -> Exhibit:
    """What was due and answered, how fast, in equal stretches of a window; latency from the scheduled time."""
    rate = run.rates.total(len(run.shards))
    edges = np.linspace(window[0], window[1], STRETCHES + 1).astype(np.int64).tolist()
    rows = []
    for begin, end in pairwise(edges):
        seconds = (end - begin) / NS_PER_S
        due = history.within((begin, end))
        asked = due.where(attempted_on_time(due))
        latencies = np.percentile(asked.latency_ns, (50, 99)).tolist() if len(asked) else ()
        p50, p99 = [f"{ns / NS_PER_MS:.1f} ms" for ns in latencies] or (None, None)
        rows.append(
            (
                f"{(begin - window[0]) / NS_PER_S:.0f} s",
                f"{run.scheduled(rate, (begin, end)) / seconds:,.0f}/s",
                f"{len(asked) / seconds:,.0f}/s",
                f"{int(asked.available.sum()) / seconds:,.0f}/s",
                p50,
                p99,
                int((~asked.available).sum()),
            )
        )
    columns = ("from", "scheduled", "sent", "answered", "p50", "p99", "bad")
    return Exhibit("the load, stretch by stretch", columns, tuple(rows), len(rows))


def lost_under_load(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Acknowledged writes that are missing in the final reads, where no fault excuses anything."""
    accounts, doubt = accounts_of(history, evidence, run)
    acknowledged = sum(account.acknowledged for account in accounts.values())
    if doubt is None and acknowledged < MIN_WRITES:
        doubt = f"only {count(acknowledged, 'write')} acknowledged; {MIN_WRITES} are needed"
    return judged_lost(history, accounts, doubt, promise, run, among="")
