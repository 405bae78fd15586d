"""How unsteady undisturbed load is compared with itself: the measure by which a baseline is awaited and judged."""

from __future__ import annotations

from typing import Final

import numpy as np

from experiments.checkers.fault import NS_PER_MS, NS_PER_S, attempted_on_time
from experiments.history import History
from experiments.record import Window
from loadtests.record import Kind

TWICE: Final = 2.0
"""A stretch that is more than twice as noisy as itself is no baseline (the design's bound)."""
FLOOR_NS: Final = 50 * NS_PER_MS
"""Halves that differ by less are alike whatever their ratio: a busy machine's own jitter."""
MIN_A_SECOND: Final = 20
"""A second with fewer operations of a kind says nothing of the kind's slow ones."""
MIN_SECONDS: Final = 3
"""The median of fewer seconds is no typical one."""


def unlike_halves(history: History, window: Window) -> tuple[float, str] | None:
    """Ratio between the noise of the window's halves, and the kind of operation for which it is largest, in words.

    A half's noise is the p99 of its typical second (the median of its seconds): a p99 over the whole half would be the
    length of its one longest stall, for a single fsync of 0.1 s delays more than 1 % of a few seconds' operations.
    None when no kind has enough operations in both halves.
    """
    # What was still under way at the window's end may have met the fault.
    inside = history.within(window)
    rows = inside.where((inside.end_ns < window[1]) & attempted_on_time(inside))
    middle = (window[0] + window[1]) // 2
    spans = (window[0], middle), (middle, window[1])
    worst: tuple[float, str] | None = None
    for kind in Kind:
        of_kind = rows.where(rows.of(kind))
        halves = [noise for span in spans if (noise := _noise_ns(of_kind, span)) is not None]
        if len(halves) < len(spans):
            continue
        low, high = sorted(halves)
        ratio = 1.0 if high - low <= FLOOR_NS else high / max(low, 1.0)
        if worst is None or ratio > worst[0]:
            words = f"{kind.value} p99 of a typical second {low / NS_PER_MS:.1f} and {high / NS_PER_MS:.1f} ms"
            worst = (ratio, words)
    return worst


def _noise_ns(rows: History, span: Window) -> float | None:
    """Median of the p99 latencies of the span's seconds; None when too few of them hold enough operations."""
    inside = rows.scheduled_in(span)
    second, latency = (rows.sched_ns[inside] - span[0]) // NS_PER_S, rows.latency_ns[inside]
    counts = np.unique(second, return_counts=True)[1]
    # in the order of their schedule, so that the operations of a second stand together
    each = np.split(latency, np.cumsum(counts)[:-1])
    p99s = [np.percentile(rows_of, 99) for rows_of in each if len(rows_of) >= MIN_A_SECOND]
    return float(np.median(p99s)) if len(p99s) >= MIN_SECONDS else None
