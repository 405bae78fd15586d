"""The longest time in which nobody was acknowledged a write: an outage also when it begins long after its cause.

A frozen Patroni's primary goes on for seconds before anybody acts; the next acknowledged write would come at once, and
say nothing. This looks at all the time from the fault to the end of the load after it.
"""

from __future__ import annotations

import numpy as np

from experiments.checkers.election import unless_etcd_elected
from experiments.checkers.fault import NS_PER_MS, NS_PER_S, after_fault, attempted_on_time, doubt_fault, due
from experiments.checkers.finding import Exhibit, Finding, Verdict, count, measured, unknown
from experiments.checkers.machine import stood_still_s
from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import RunRecord, Window
from experiments.scenario import Promise
from loadtests.record import Durability, Kind

MIN_ATTEMPTED = 0.95
"""Below this share of the scheduled writes the silence may be the writers' own."""


def longest_silence(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Seconds between two acknowledged writes of one shard, at most; the worst of the struck shards, or of all."""
    doubt = doubt_fault(evidence, run)
    if doubt or run.fault is None or run.windows.recovery is None:
        return unknown(promise, f"{doubt or 'the load after the fault was cut off'}, so no silence can be measured")
    window = after_fault(run, run.fault)
    shards = sorted(run.struck_shards) or [entry.shard for entry in run.shards]
    if not shards:
        return unknown(promise, "the run has no shard")
    found = [(_longest(history, shard, window), shard) for shard in shards]
    (begin, end), shard = max(found, key=lambda entry: entry[0][1] - entry[0][0])
    value = (end - begin) / NS_PER_S
    writes = history.where(history.of(Kind.WRITE, Kind.WRITE_API) & (history.shard == shard))
    inside = writes.where(writes.scheduled_in((begin, end)))
    attempted = int(attempted_on_time(inside).sum())
    scheduled = due(len(inside), run.scheduled(run.rates.write + run.rates.write_api, (begin, end)))
    n = int((writes.scheduled_in(window) & (writes.durability == int(Durability.OK))).sum())
    after_s = (begin - run.fault.t_ns) / NS_PER_S
    reason = f"shard {shard} acknowledged nothing for {value:.3f} s from {after_s:.3f} s after the fault on"
    out_of = count(n, "acknowledged write")
    if attempted < MIN_ATTEMPTED * scheduled and not promise.kept(value):
        reason += f", but only {attempted:,} of {scheduled:,.0f} scheduled writes were attempted meanwhile"
        return unknown(promise, reason, value=value, n=n, out_of=out_of)
    stood_still = stood_still_s(evidence, (begin, end))
    exhibit = _attempts(inside, run)
    if not promise.kept(value) and promise.kept(value - stood_still):
        reason += f"; the machine itself stood still for {stood_still:.3f} s of it"
        return Finding(value, promise.target, Verdict.UNKNOWN, n, out_of, reason, exhibit)
    shown = () if promise.kept(value) else exhibit
    finding = measured(promise, value, n=n, out_of=out_of, reason=reason, evidence=shown)
    return unless_etcd_elected(finding, evidence, promise, run, end)


def _longest(history: History, shard: int, window: Window) -> Window:
    """The longest time within the window in which no write of the shard was acknowledged."""
    ok = history.of(Kind.WRITE, Kind.WRITE_API) & (history.shard == shard) & (history.durability == int(Durability.OK))
    ends = history.end_ns[ok]
    marks = np.concatenate(([window[0]], np.sort(ends[(ends >= window[0]) & (ends < window[1])]), [window[1]]))
    at = int(np.argmax(np.diff(marks)))
    return int(marks[at]), int(marks[at + 1])


def _attempts(inside: History, run: RunRecord) -> tuple[Exhibit, ...]:
    zero = run.fault.t_ns if run.fault is not None else 0
    shown = range(0, len(inside), max(1, len(inside) // 10))
    rows = tuple(
        (
            f"+{(int(inside.sched_ns[at]) - zero) / NS_PER_S:.3f} s",
            str(inside.kind[at]),
            Durability(int(inside.durability[at])).name.lower(),
            f"{(int(inside.end_ns[at]) - int(inside.start_ns[at])) / NS_PER_MS:.1f} ms",
        )
        for at in shown
    )
    return (Exhibit("writes due in the silence", ("due", "kind", "durability", "took"), rows, len(inside)),)
