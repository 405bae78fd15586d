"""Who else noticed: operations that did not get a right answer before their deadline.

An operation that its client did not send when it was due is neither good nor bad: the load's own promise counts it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import numpy as np

from experiments.checkers.fault import NS_PER_MS, NS_PER_S, attempted_on_time, client_ran, doubt_fault
from experiments.checkers.finding import EXHIBIT_ROWS, Exhibit, Finding, Verdict, count, measured, unknown
from experiments.checkers.machine import machine_ran
from experiments.evidence import Evidence
from experiments.history import History, Mask
from experiments.record import RunRecord
from experiments.scenario import Promise
from loadtests.record import NO_SHARD, Error, Kind

FIRST_ROWS: Final = 8
"""So many bad operations are shown one by one; the groups tell the rest."""

MIN_OPERATIONS: Final = 100
"""Fewer operations than this prove nothing by not failing."""


def other_shards_bad(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Bad operations elsewhere from the fault to the end of the recovery: other shards, and predictions by vector."""
    if not run.struck_shards or run.windows.fault is None:
        return unknown(promise, "the run has no whole fault window of a shard")
    end = run.windows.recovery[1] if run.windows.recovery is not None else run.windows.fault[1]
    window = (run.windows.fault[0], end)
    chosen = ~_of_struck_shards(history, run) & history.scheduled_in(window)
    return judged_bad(history, chosen, evidence, promise, run, noun="operation")


def bad_predictions(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Bad predictions over the whole run, by vector and by entity.

    A prediction by entity reads its shard, so those of the faulted shard are left to the reads' own promise for
    `faulted_shard_grace_s` after the fault.
    """
    whole = run.windows.whole
    if whole is None:
        return unknown(promise, "the run has no window at all")
    left_out = _within_grace(history, promise, run)
    chosen = history.of(Kind.PREDICT) & history.scheduled_in(whole) & ~left_out
    return judged_bad(history, chosen, evidence, promise, run, noun="prediction")


def _within_grace(history: History, promise: Promise, run: RunRecord) -> Mask:
    grace_ns = round(promise.number("faulted_shard_grace_s", 0) * NS_PER_S)
    if run.fault is None:
        return np.zeros(len(history), dtype=np.bool_)
    under_way = (history.end_ns >= run.fault.t_ns) & (history.sched_ns < run.fault.t_ns + grace_ns)
    return under_way & _of_struck_shards(history, run)


def _of_struck_shards(history: History, run: RunRecord) -> Mask:
    mask: Mask = np.isin(history.shard, sorted(run.struck_shards))
    return mask


def judged_bad(
    history: History, chosen: Mask, evidence: Evidence, promise: Promise, run: RunRecord, *, noun: str
) -> Finding:
    """Judge the chosen operations, but for those that their own client delayed: late to send, or stalled meanwhile."""
    rows = history.where(chosen & attempted_on_time(history) & client_ran(history))
    scheduled = int(chosen.sum())
    bad = rows.where(~rows.available)
    out_of = count(len(rows), noun)
    split = _split(rows, bad)
    reason = f"{count(len(bad), 'bad ' + noun)} of {len(rows):,}" + (f" ({split})" if split else "")
    if len(bad):
        reason += f"; the first: {_first(bad, run)}"
    if scheduled > len(rows):
        reason += f"; {scheduled - len(rows):,} more were delayed by their own client"
    doubt = doubt_fault(evidence, run)
    if doubt is None and len(rows) < MIN_OPERATIONS:
        doubt = f"only {out_of} seen; {MIN_OPERATIONS} are needed"
    if doubt and promise.kept(len(bad)):
        return unknown(
            promise, f"{reason}, but {doubt}", value=len(bad) if len(rows) else None, n=len(rows), out_of=out_of
        )
    evidence_of_bad = _exhibits(bad, run, noun) if len(bad) else ()
    proven = int(machine_ran(bad, evidence).sum())
    if not promise.kept(len(bad)) and promise.kept(proven):
        reason += f"; the machine itself stood still at {len(bad) - proven:,} of them"
        return Finding(len(bad), promise.target, Verdict.UNKNOWN, len(rows), out_of, reason, evidence_of_bad)
    return measured(promise, len(bad), n=len(rows), out_of=out_of, reason=reason, evidence=evidence_of_bad)


def _split(rows: History, bad: History) -> str:
    """Bad of all, for predictions by vector and by entity and for every other kind that was seen."""
    parts: list[str] = []
    for kind in Kind:
        for by_vector in (True, False):
            all_of = rows.of(kind) & ((rows.shard == NO_SHARD) == by_vector)
            if not all_of.any():
                continue
            bad_of = int((bad.of(kind) & ((bad.shard == NO_SHARD) == by_vector)).sum())
            how = (" by vector" if by_vector else " by entity") if kind is Kind.PREDICT else ""
            parts.append(f"{kind.value}{how} {bad_of:,} of {int(all_of.sum()):,}")
    return ", ".join(parts)


def _first(bad: History, run: RunRecord) -> str:
    due, kind, shard, error, after = _row(bad, 0, _zero(bad, run))
    where = "" if shard is None else f" on shard {shard}"
    return f"{kind}{where} due at {due}, {error} after {after}"


def _zero(bad: History, run: RunRecord) -> int:
    """The moment that others are told from: the fault, or the first bad operation where there is none."""
    return run.fault.t_ns if run.fault is not None else int(bad.sched_ns[0])


def _row(bad: History, at: int, zero: int) -> tuple[str, str, int | None, str, str]:
    """When it was due, kind, shard, error, and how long after that it ended."""
    return (
        _after(int(bad.sched_ns[at]), zero),
        str(bad.kind[at]),
        _shard(int(bad.shard[at])),
        Error(int(bad.error[at])).name.lower(),
        f"{(int(bad.end_ns[at]) - int(bad.sched_ns[at])) / NS_PER_MS:.1f} ms",
    )


def _exhibits(bad: History, run: RunRecord, noun: str) -> tuple[Exhibit, ...]:
    """What was bad in groups, and the first of it one by one."""
    zero = _zero(bad, run)
    groups: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    for kind, shard, error, due in zip(bad.kind, bad.shard, bad.error, bad.sched_ns, strict=True):
        groups[str(kind), int(shard), int(error)].append(int(due))
    grouped = tuple(
        (kind, _shard(shard), Error(error).name.lower(), len(due), _after(due[0], zero), _after(due[-1], zero))
        for (kind, shard, error), due in sorted(groups.items(), key=lambda group: -len(group[1]))[:EXHIBIT_ROWS]
    )
    rows = tuple(_row(bad, at, zero) for at in range(min(len(bad), FIRST_ROWS)))
    return (
        Exhibit(
            f"bad {noun}s by kind, shard and error",
            ("kind", "shard", "error", "operations", "first due", "last due"),
            grouped,
            len(groups),
        ),
        Exhibit(f"the first bad {noun}s", ("due", "kind", "shard", "error", "answered after"), rows, len(bad)),
    )


def _after(t_ns: int, zero_ns: int) -> str:
    return f"{(t_ns - zero_ns) / NS_PER_S:+.3f} s"


def _shard(shard: int) -> int | None:
    return None if shard == NO_SHARD else shard
