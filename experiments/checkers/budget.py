"""What a fault costs in availability: the share of a month's error budget that the run used up."""

from __future__ import annotations

from typing import Final

from experiments.checkers.availability import MIN_OPERATIONS
from experiments.checkers.fault import NS_PER_S, attempted_on_time, client_ran, doubt_fault
from experiments.checkers.finding import Finding, count, measured, unknown
from experiments.checkers.machine import machine_ran
from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import RunRecord
from experiments.scenario import Promise

SECONDS_A_DAY: Final = 86_400
OBJECTIVE: Final = 99.9
"""Per cent of operations that get a right answer before their deadline; the design's services promise three nines."""
PERIOD_DAYS: Final = 30
PERCENT: Final = 100.0


def error_budget(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """The run's bad operations, in per cent of what `objective` allows in `period_days` at the run's rate.

    Every kind of operation counts, on every shard: what a user of the whole platform feels.
    """
    whole = run.windows.whole
    if whole is None:
        return unknown(promise, "the run has no window at all")
    rows = history.within(whole)
    counts = attempted_on_time(rows) & client_ran(rows)
    bad, n = rows.where(counts & ~rows.available), int(counts.sum())
    out_of = count(n, "operation")
    if n < MIN_OPERATIONS:
        return unknown(promise, f"only {out_of} seen; {MIN_OPERATIONS} are needed", n=n, out_of=out_of)
    objective, days = promise.number("objective", OBJECTIVE), promise.number("period_days", PERIOD_DAYS)
    share_bad = 1 - objective / PERCENT
    allowed = n / ((whole[1] - whole[0]) / NS_PER_S) * days * SECONDS_A_DAY * share_bad
    used = PERCENT * len(bad) / allowed
    reason = (
        f"availability {PERCENT * (n - len(bad)) / n:.3f} %: {len(bad):,} bad of {n:,}; "
        f"at this rate {objective:g} % over {days:g} days allow {allowed:,.0f}"
    )
    doubt = doubt_fault(evidence, run)
    if doubt is None and history.torn:
        doubt = "a part of the history is cut off"
    if doubt and promise.kept(used):
        return unknown(promise, f"{reason}, but {doubt}", value=used, n=n, out_of=out_of)
    proven = int(machine_ran(bad, evidence).sum())
    if not promise.kept(used) and promise.kept(PERCENT * proven / allowed):
        reason += f"; the machine itself stood still at {len(bad) - proven:,} of them"
        return unknown(promise, reason, value=used, n=n, out_of=out_of)
    return measured(promise, used, n=n, out_of=out_of, reason=reason)
