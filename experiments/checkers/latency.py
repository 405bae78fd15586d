"""Latency of predictions in a window, against the same run's baseline."""

from __future__ import annotations

from typing import Final

import numpy as np

from experiments.checkers.fault import NS_PER_MS, attempted_on_time, client_ran
from experiments.checkers.finding import Finding, count, measured, unknown
from experiments.checkers.machine import machine_ran
from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import RunRecord, Window
from experiments.scenario import Promise
from loadtests.arrivals import ON_TIME_NS
from loadtests.record import Kind

MIN_FOR_P99: Final = 300
"""With fewer operations a p99 is one of its three slowest: luck, not latency."""

HELD_UP_NS: Final = 20 * NS_PER_MS
"""A client sends within 5 ms of the schedule. One that is later had no processor, however fast the answers came: a
dozen arrivals in 60 ms, all sent at their end, are a p99 of eleven seconds."""

MOST_HELD_UP: Final = 0.05
"""A client that is held up at more than this share has its hands full with slow answers: then all of them count."""


def against_baseline(history: History, evidence: Evidence, promise: Promise, run: RunRecord, window: Window) -> Finding:
    """p99 in the window as a multiple of what is allowed: max(factor x baseline's p99, baseline's p99 + floor_ms)."""
    if run.windows.baseline is None:
        return unknown(promise, "the run has no baseline window: nothing to compare")
    before, seen_in = (_without_held_up(history, evidence, span) for span in (run.windows.baseline, window))
    out_of = count(len(seen_in), "prediction")
    if min(len(before), len(seen_in)) < MIN_FOR_P99:
        reason = f"{len(before):,} predictions in the baseline, {len(seen_in):,} in the fault; {MIN_FOR_P99} are needed"
        return unknown(promise, reason, n=len(seen_in), out_of=out_of)
    base, seen = (float(np.percentile(rows.latency_ns, 99)) / NS_PER_MS for rows in (before, seen_in))
    allowed = max(promise.number("factor", 2) * base, base + promise.number("floor_ms", 25))
    reason = f"p99 {seen:.1f} ms of {out_of}, {base:.1f} ms in the baseline, so {allowed:.1f} ms are allowed"
    return measured(promise, seen / allowed, n=len(seen_in), out_of=out_of, reason=reason)


def _without_held_up(history: History, evidence: Evidence, window: Window) -> History:
    """Predictions of a window whose latency is the platform's: without the few that their client was held up at."""
    every = predictions(history, evidence, window)
    rows = predictions(history, evidence, window, HELD_UP_NS)
    return rows if len(rows) >= (1 - MOST_HELD_UP) * len(every) else every


def predictions(history: History, evidence: Evidence, window: Window, late_ns: int = ON_TIME_NS) -> History:
    """Predictions due in a window, but for those that a machine that stood still delayed, or their own client by
    more than `late_ns`."""
    chosen = history.of(Kind.PREDICT) & history.scheduled_in(window)
    sent = attempted_on_time(history) & client_ran(history, late_ns)
    return history.where(chosen & sent & machine_ran(history, evidence))
