"""A cache stampede: how often each struck key was computed, what clients felt, and what replicas' memory did."""

from __future__ import annotations

from typing import Final

import numpy as np

from experiments.checkers.fault import NS_PER_MS, NS_PER_S, doubt_fault
from experiments.checkers.finding import Finding, count, measured, unknown
from experiments.checkers.latency import against_baseline
from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import RunRecord
from experiments.scenario import Promise
from loadtests.record import Kind

MIB: Final = 1024 * 1024
FEWEST: Final = 0.9
"""Below so many computations for each struck key not all of them were asked for again, or nobody counted."""


def computations_per_key(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Rows given to the model by all replicas while the fault lasted, for each key that it struck.

    Each hot key expired once, so one computation is needed. The replicas' own count of expiries is not used: a defect
    that lets everybody compute would count as many expiries as computations.
    """
    doubt = doubt_fault(evidence, run)
    if doubt or run.fault is None:
        return unknown(promise, f"{doubt}: no key is known to have expired")
    struck = evidence.first("fault", "deleted", after_ns=run.fault.t_ns) or evidence.first(
        "fault", "expired", after_ns=run.fault.t_ns
    )
    keys = int(struck.data.get("keys", 0)) if struck is not None else 0
    grown = _grown(evidence, run, "computations")
    if not keys or not grown:
        return unknown(promise, "no key was struck" if not keys else "the replicas' counts are not complete")
    computed = sum(grown.values())
    value, out_of = computed / keys, count(keys, "key")
    each = ", ".join(f"{member} {number:,.0f}" for member, number in sorted(grown.items()))
    reason = f"{computed:,.0f} computations ({each}) for {out_of} that expired at once"
    if value < FEWEST:
        return unknown(promise, f"{reason}: not all were asked for again", value=value, n=keys, out_of=out_of)
    return measured(promise, value, n=keys, out_of=out_of, reason=reason)


def hard_expiries(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Keys that were gone when they were asked for, while the fault lasted that had left each `left_ms` to live.

    All were past their soft expiry: whoever asked first had to refresh them. Only a key that nobody asks for in its
    last `left_ms` may die, so each flight must have been asked for in them.
    """
    doubt = doubt_fault(evidence, run)
    if doubt or run.fault is None or run.windows.fault is None:
        return unknown(promise, f"{doubt or 'the fault window has no end'}: no key is known to have outlived it")
    struck = evidence.first("fault", "expired", after_ns=run.fault.t_ns)
    keys, left_ms = (int(struck.data.get(name, 0)) if struck is not None else 0 for name in ("keys", "left_ms"))
    if not keys or not left_ms:
        return unknown(promise, "no key was left a time to live")
    grown = _grown(evidence, run, "hard_expiries")
    if not grown:
        return unknown(promise, "the replicas' counts are not complete")
    died, out_of = sum(grown.values()), count(keys, "key")
    reason = f"{count(round(died), 'key')} gone, of {keys:,} that had {left_ms / 1000:g} s left to live"
    death_ns = run.fault.t_ns + left_ms * NS_PER_MS
    in_time = history.of(Kind.PREDICT) & history.available & (history.start_ns >= run.fault.t_ns)
    asked = len(np.unique(history.key[in_time & (history.end_ns < death_ns)]))
    if run.windows.fault[1] <= death_ns:
        return unknown(promise, f"{reason}, but the fault ended before", value=died, n=keys, out_of=out_of)
    if asked < keys:
        return unknown(
            promise, f"{reason}, but only {asked:,} were asked for in that time", value=died, n=keys, out_of=out_of
        )
    return measured(promise, died, n=keys, out_of=out_of, reason=f"{reason}; each was asked for in that time")


def latency_after_fault(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """p99 of the predictions due in the first `window_s` after the fault, as a multiple of what is allowed."""
    doubt = doubt_fault(evidence, run)
    if doubt or run.fault is None or run.windows.fault is None:
        return unknown(promise, f"{doubt or 'the fault window has no end'}: nothing to compare")
    end = run.fault.t_ns + round(promise.number("window_s", 2) * NS_PER_S)
    return against_baseline(history, evidence, promise, run, (run.fault.t_ns, min(end, run.windows.fault[1])))


def memory_grown(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Most MiB by which a replica's resident memory grew while the fault lasted."""
    doubt = doubt_fault(evidence, run)
    grown = _grown(evidence, run, "memory_bytes")
    if doubt or not grown:
        return unknown(promise, doubt or "the replicas' counts are not complete")
    member = max(grown, key=lambda name: grown[name])
    out_of = count(len(grown), "replica")
    return measured(
        promise, max(0.0, grown[member] / MIB), n=len(grown), out_of=out_of, reason=f"most in {member}, of {out_of}"
    )


def _grown(evidence: Evidence, run: RunRecord, what: str) -> dict[str, float]:
    """By how much each replica's count grew from just before the fault to its end; {} unless each has both counts."""
    noted: dict[str, dict[str, float]] = {"before": {}, "after": {}}
    for event in evidence.events:
        if event.source == "metrics" and event.kind in noted and event.member is not None:
            noted[event.kind][event.member] = float(event.data[what])
    replicas = set(run.replicas)
    if not replicas or not all(replicas == set(counts) for counts in noted.values()):
        return {}
    grown = {name: noted["after"][name] - noted["before"][name] for name in replicas}
    restarted = what != "memory_bytes" and min(grown.values()) < 0
    return {} if restarted else grown
