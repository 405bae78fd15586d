"""Latency of each kind of operation in each phase of a run, beside its own baseline: figures that judge nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from experiments.checkers.fault import NS_PER_MS
from experiments.history import History
from experiments.record import RunRecord, Window
from experiments.report.series import sent
from loadtests.record import Kind

BASELINE: Final = "baseline"
QUANTILES: Final = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class PhaseLatency:
    """How long operations of a kind took that were due in a phase and sent: `n` of them, quantiles in ms.

    None where there were none. `ratio` is the p99 over the baseline's: None in the baseline, and without one.
    """

    kind: Kind
    phase: str
    n: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    ratio: float | None


def phase_latencies(history: History, run: RunRecord) -> list[PhaseLatency]:
    """A row for each phase, of each kind that was sent in any of them. Linear in the history.

    Counted from the scheduled time, for whatever was answered or given up, as in the figures.
    """
    phases = [(name, history.within(window if window is not None else (0, 0))) for name, window in _phases(run)]
    listed: list[PhaseLatency] = []
    for kind in Kind:
        took = [(name, rows.latency_ns[rows.of(kind) & sent(rows)] / NS_PER_MS) for name, rows in phases]
        if not any(len(ms) for _, ms in took):
            continue
        base: float | None = None
        for name, ms in took:
            p50, p95, p99 = np.percentile(ms, QUANTILES).tolist() if len(ms) else (None, None, None)
            ratio = p99 / base if p99 is not None and base else None
            if name == BASELINE:
                base = p99
            listed.append(PhaseLatency(kind, name, len(ms), p50, p95, p99, ratio))
    return listed


def _phases(run: RunRecord) -> list[tuple[str, Window | None]]:
    """The baseline first, with which the others are compared. A load test is one phase and compared with nothing."""
    if run.load is not None:
        return [("load", run.windows.undisturbed)]
    return [(BASELINE, run.windows.baseline), ("fault", run.windows.fault), ("recovery", run.windows.recovery)]
