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
from loadtests.record import Kind

MIN_FOR_P99: Final = 300
"""With fewer operations a p99 is one of its three slowest: luck, not latency."""


def against_baseline(history: History, evidence: Evidence, promise: Promise, run: RunRecord, window: Window) -> Finding:
    """p99 in the window as a multiple of what is allowed: max(factor x baseline's p99, baseline's p99 + floor_ms)."""
    if run.windows.baseline is None:
        return unknown(promise, "the run has no baseline window: nothing to compare")
    before, seen_in = predictions(history, evidence, run.windows.baseline), predictions(history, evidence, window)
    out_of = count(len(seen_in), "prediction")
    if min(len(before), len(seen_in)) < MIN_FOR_P99:
        reason = f"{len(before):,} predictions in the baseline, {len(seen_in):,} in the fault; {MIN_FOR_P99} are needed"
        return unknown(promise, reason, n=len(seen_in), out_of=out_of)
    base, seen = (float(np.percentile(rows.latency_ns, 99)) / NS_PER_MS for rows in (before, seen_in))
    allowed = max(promise.number("factor", 2) * base, base + promise.number("floor_ms", 25))
    reason = f"p99 {seen:.1f} ms of {out_of}, {base:.1f} ms in the baseline, so {allowed:.1f} ms are allowed"
    return measured(promise, seen / allowed, n=len(seen_in), out_of=out_of, reason=reason)


def predictions(history: History, evidence: Evidence, window: Window) -> History:
    """Predictions due in a window, but for those that their own client or a machine that stood still delayed."""
    chosen = history.of(Kind.PREDICT) & history.scheduled_in(window)
    return history.where(chosen & attempted_on_time(history) & client_ran(history) & machine_ran(history, evidence))
