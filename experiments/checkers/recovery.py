"""How long a shard was away: next acknowledged write, next good read, and where that time went, layer by layer.

All durations are on the run's monotonic clock. A recovery is found between two attempts, so each number has a
resolution: the gap before the attempt that succeeded. A target inside that gap is neither met nor missed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from experiments.checkers.election import unless_etcd_elected
from experiments.checkers.fault import (
    NS_PER_MS,
    NS_PER_S,
    after_fault,
    attempted_on_time,
    attempted_writes,
    doubt_shard_fault,
)
from experiments.checkers.finding import Exhibit, Finding, Verdict, count, measured, unknown
from experiments.checkers.machine import stood_still_s
from experiments.checkers.victims import for_each_victim
from experiments.evidence import Evidence
from experiments.history import History, Mask
from experiments.record import FaultRecord, RunRecord
from experiments.scenario import Promise
from loadtests.record import Durability, Error, Kind
from services.contracts.events import Event

STREAK: Final = 50
"""So many good operations in a row follow the first one: one lucky answer between two failures is no recovery."""

RESOLUTION_NS: Final = 20 * NS_PER_MS
"""Attempts must usually be no further apart, or the load is too thin to measure fractions of a second."""

MIN_ATTEMPTED: Final = 0.95
"""Below this share of the scheduled writes the silence may be the writers' own."""

COARSE: Final = 0.1
"""A gap of more than this share of the whole recovery (and more than RESOLUTION_NS) explains nothing by layer."""

GAP_ROWS: Final = 5
"""Failed attempts shown from each end of the gap."""


@dataclass(frozen=True, slots=True)
class Streak:
    """The first operation of a recovered service. Times in ns of the run's clock."""

    end_ns: int
    gap_ns: int
    """Time between this operation's start and the attempt before it: the resolution of `end_ns`."""
    kind: str
    timeline: int


def next_streak(rows: History, good: Mask, since_ns: int) -> Streak | None:
    """The first operation started at or after `since_ns` that is good and followed by STREAK good ones in a row.

    `rows` are in the order in which they were sent. Of the operations in that streak the one that ended first counts,
    for a slow path that started earlier must not hide a quick one.
    """
    run_length = 0
    for at in range(int(np.searchsorted(rows.start_ns, since_ns)), len(rows)):
        run_length = run_length + 1 if good[at] else 0
        if run_length > STREAK:
            head = at - STREAK
            first = head + int(np.argmin(rows.end_ns[head : at + 1]))
            before = max(since_ns, int(rows.start_ns[head - 1])) if head > 0 else since_ns
            gap = int(rows.start_ns[head]) - before
            kind = str(rows.kind[first])
            # a prediction's column holds its model's generation
            timeline = 0 if kind == Kind.PREDICT.value else int(rows.timeline[first])
            return Streak(int(rows.end_ns[first]), gap, kind, timeline)
    return None


def shard_writes(history: History, shard: int | None) -> History:
    """Every write to a shard that was sent when due, direct and through the API, in the order of sending."""
    of_shard = history.of(Kind.WRITE, Kind.WRITE_API) & (history.shard == shard)
    return history.where(of_shard & attempted_on_time(history)).by_start()


def acknowledged(rows: History) -> Mask:
    mask: Mask = rows.durability == int(Durability.OK)
    return mask


@for_each_victim
def next_ack(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Seconds from the kill to the next acknowledged write on that shard, direct writes and the API's together."""
    doubt = doubt_shard_fault(evidence, run)
    if doubt or run.fault is None:
        return unknown(promise, f"{doubt}, so no recovery can be measured")
    if run.windows.fault is None:
        return unknown(promise, "the fault window has no end, so the attempts within it cannot be counted")
    attempted, scheduled = attempted_writes(history, run, run.fault, run.windows.fault)
    if attempted < MIN_ATTEMPTED * scheduled or not scheduled:
        return unknown(
            promise,
            f"only {attempted:,} of {scheduled:,.0f} scheduled writes were attempted while the fault lasted: "
            "the silence may be the writers' own",
            n=attempted,
            out_of=f"{attempted:,} of {scheduled:,.0f} writes",
        )
    rows = shard_writes(history, run.fault.shard)
    since = rows.where(rows.start_ns >= run.fault.t_ns)
    streak = next_streak(rows, acknowledged(rows), run.fault.t_ns)
    spacing = _spacing(rows, run.fault.t_ns if streak is None else streak.end_ns)
    if spacing is None or spacing > RESOLUTION_NS:
        seen = "none" if spacing is None else f"one in {spacing / NS_PER_MS:.0f} ms"
        return unknown(
            promise, f"writes around the recovery were too sparse ({seen}; needed: one in 20 ms)", n=len(since)
        )
    parts = [_one_kind(rows.where(rows.of(kind)), kind, run.fault.t_ns) for kind in (Kind.WRITE, Kind.WRITE_API)]
    attempts = Attempts(rows, acknowledged(rows), run.fault, "acknowledged write")
    found = _resumed(promise, attempts, evidence, "; ".join(parts))
    end_ns = attempts.last_failed_ns if streak is None else streak.end_ns
    return unless_etcd_elected(found, evidence, promise, run, end_ns)


@for_each_victim
def reads_resume(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Seconds from the kill to the next good read of that shard; predictions by entity read it, too."""
    doubt = doubt_shard_fault(evidence, run)
    if doubt or run.fault is None:
        return unknown(promise, f"{doubt}, so no recovery can be measured")
    of_shard = history.of(Kind.READ, Kind.PREDICT) & (history.shard == run.fault.shard)
    rows = history.where(of_shard & attempted_on_time(history)).by_start()
    attempts = Attempts(rows, rows.available, run.fault, "good read")
    return _resumed(promise, attempts, evidence, f"{count(len(attempts.failed), 'bad read')} after the kill")


@dataclass(frozen=True, slots=True)
class Attempts:
    """What clients tried on the faulted shard, in the order of sending, and which of it was good."""

    rows: History
    good: Mask
    fault: FaultRecord
    what: str

    @property
    def failed(self) -> History:
        """Those after the fault that were not good."""
        return self.rows.where((self.rows.start_ns >= self.fault.t_ns) & ~self.good)

    @property
    def last_failed_ns(self) -> int:
        """When the last of them was sent; the fault's own time when none failed."""
        failed = self.failed.start_ns
        return int(failed[-1]) if len(failed) else self.fault.t_ns


def _resumed(promise: Promise, attempts: Attempts, evidence: Evidence, parts: str) -> Finding:
    """Judge the time from the fault to the streak, with the gap before it as the measure's resolution."""
    fault, what = attempts.fault, attempts.what
    since = int((attempts.rows.start_ns >= fault.t_ns).sum())
    if since <= STREAK:
        reason = f"{count(since, 'attempt')} after the kill; {STREAK + 1} are needed"
        return unknown(promise, reason, n=since, out_of="0 of 1")
    streak = next_streak(attempts.rows, attempts.good, fault.t_ns)
    if streak is None:
        return _never(promise, attempts)
    value = (streak.end_ns - fault.t_ns) / NS_PER_S
    earliest = value - streak.gap_ns / NS_PER_S
    timeline = f" on timeline {streak.timeline}" if streak.timeline else ""
    reason = (
        f"first {what}{timeline} {value:.3f} s after the kill, then {STREAK} in a row "
        f"(resolution {streak.gap_ns / NS_PER_MS:.0f} ms; {parts})"
    )
    if not promise.kept(value) and promise.kept(earliest) and streak.gap_ns > RESOLUTION_NS:
        reason += f"; nothing was attempted in the {streak.gap_ns / NS_PER_S:.3f} s before, in which the target lies"
        return Finding(value, promise.target, Verdict.UNKNOWN, 1, "1 of 1", reason, _gap(attempts))
    stood_still = stood_still_s(evidence, (fault.t_ns, streak.end_ns))
    if not promise.kept(value) and promise.kept(value - stood_still):
        reason += f"; the machine itself stood still for {stood_still:.3f} s of it"
        return Finding(value, promise.target, Verdict.UNKNOWN, 1, "1 of 1", reason, _gap(attempts))
    gap = () if promise.kept(value) else _gap(attempts)
    return measured(promise, value, n=1, out_of="1 of 1", reason=reason, evidence=gap)


def _never(promise: Promise, attempts: Attempts) -> Finding:
    """No recovery seen: broken when attempts failed beyond the target, unknown when nobody tried for that long."""
    away = (attempts.last_failed_ns - attempts.fault.t_ns) / NS_PER_S
    reason = (
        f"no {attempts.what} followed by {STREAK} in a row was seen; "
        f"the last failed attempt was {away:.3f} s after the kill"
    )
    verdict = Verdict.UNKNOWN if promise.kept(away) else Verdict.FALSE
    return Finding(None, promise.target, verdict, 0, "0 of 1", reason, _gap(attempts))


def _one_kind(rows: History, kind: Kind, since_ns: int) -> str:
    name = "through the API" if kind is Kind.WRITE_API else "direct"
    streak = next_streak(rows, acknowledged(rows), since_ns)
    return f"{name} not seen" if streak is None else f"{name} {(streak.end_ns - since_ns) / NS_PER_S:.3f} s"


def _spacing(rows: History, centre_ns: int) -> float | None:
    """Median ns between attempts in the second before and the second after an instant."""
    around = rows.start_ns[np.abs(rows.start_ns - centre_ns) <= NS_PER_S]
    return float(np.median(np.diff(around))) if len(around) > 1 else None


def _gap(attempts: Attempts) -> tuple[Exhibit, ...]:
    """The operations that were not good after the fault: the first and the last of them."""
    failed, fault = attempts.failed, attempts.fault
    if not len(failed):
        return ()
    chosen = sorted({*range(min(GAP_ROWS, len(failed))), *range(max(0, len(failed) - GAP_ROWS), len(failed))})
    rows = tuple(
        (
            f"+{(int(failed.start_ns[at]) - fault.t_ns) / NS_PER_S:.3f} s",
            str(failed.kind[at]),
            int(failed.key[at]),
            Durability(int(failed.durability[at])).name.lower(),
            Error(int(failed.error[at])).name.lower(),
            f"{(int(failed.end_ns[at]) - int(failed.start_ns[at])) / NS_PER_MS:.1f} ms",
        )
        for at in chosen
    )
    columns = ("sent", "kind", "key", "durability", "error", "took")
    return (Exhibit(f"operations of shard {fault.shard} in the gap", columns, rows, len(failed)),)


@dataclass(frozen=True, slots=True)
class Layer:
    """One part of the recovery. Times in ns since the kill; `seen` is what its end rests on, None if not observed."""

    name: str
    start_ns: int
    end_ns: int
    seen: str | None


@dataclass(frozen=True, slots=True)
class Recovery:
    """The layers in order: the first starts at 0, each where the one before ended, the last ends at the total."""

    layers: tuple[Layer, ...]
    total_ns: int
    resolution_ns: int


def recovery_of(history: History, evidence: Evidence, run: RunRecord) -> Recovery | None:
    """Split the time to the next acknowledged write into detect, promote, route and client; None if it never came.

    An observation can only be late: whoever reached the new primary proves that it was writable by then. So each
    layer ends at its own observation or at a later layer's, whichever came first. A layer that nobody observed has no
    length of its own; the next one includes it.
    """
    if doubt_shard_fault(evidence, run) or run.fault is None or run.fault.old_timeline is None:
        return None
    fault, killed, old_timeline = run.fault, run.fault.t_ns, run.fault.old_timeline
    rows = shard_writes(history, fault.shard)
    streak = next_streak(rows, acknowledged(rows), killed)
    if streak is None:
        return None

    def of_shard(event: Event) -> bool:
        return bool(event.data.get("shard") == fault.shard)

    def of_new_timeline(event: Event) -> bool:
        timeline = event.data.get("timeline")
        return of_shard(event) and isinstance(timeline, int) and timeline > old_timeline

    observed = [
        ("detect", evidence.first("etcd", "leader_deleted", after_ns=killed, test=of_shard)),
        ("promote", evidence.first("prober", "writable", after_ns=killed, test=of_new_timeline)),
        ("route", evidence.first("router", "routed", after_ns=killed, test=of_new_timeline)),
    ]
    total = streak.end_ns - killed
    bound = total
    ends: list[int] = []
    for _, event in reversed(observed):
        bound = min(bound, event.t_ns - killed) if event is not None else bound
        ends.insert(0, bound)
    layers: list[Layer] = []
    start = 0
    for (name, event), end in zip(observed, ends, strict=True):
        stop = start if event is None else end
        layers.append(Layer(name, start, stop, None if event is None else _seen(event)))
        start = stop
    kind = "through the API" if streak.kind == Kind.WRITE_API.value else "direct"
    layers.append(Layer("client", start, total, f"first acknowledged write, {kind}"))
    return Recovery(tuple(layers), total, streak.gap_ns)


def _seen(event: Event) -> str:
    match event.kind:
        case "leader_deleted":
            return "leader key deleted"
        case "writable":
            return f"{event.member} writable on timeline {event.data['timeline']}"
        case _:
            return f"a fresh connection reached {event.member}"


def recovery_layers(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """How many of the four layers were really observed. Missing observations are unknown, never a broken promise."""
    doubt = doubt_shard_fault(evidence, run)
    if doubt:
        return unknown(promise, f"{doubt}, so there is no recovery to explain")
    recovery = recovery_of(history, evidence, run)
    if recovery is None:
        return unknown(promise, "no acknowledged write followed the fault, so there is no recovery to explain")
    seen = [layer for layer in recovery.layers if layer.seen is not None]
    words = ", ".join(
        f"{layer.name} {_span(layer.end_ns - layer.start_ns)}"
        if layer.seen is not None
        else f"{layer.name} not observed (the next layer includes it)"
        for layer in recovery.layers
    )
    gap = recovery.resolution_ns
    reason = f"{words}; together {_span(recovery.total_ns)}, resolution {_span(gap)}"
    out_of = f"{len(seen)} of {len(recovery.layers)} layers"
    too_coarse = gap > RESOLUTION_NS and gap > COARSE * recovery.total_ns
    if too_coarse or not promise.kept(len(seen)):
        return unknown(promise, reason, value=len(seen), n=len(seen), out_of=out_of)
    return measured(promise, len(seen), n=len(seen), out_of=out_of, reason=reason)


def _span(ns: int) -> str:
    return f"{ns / NS_PER_MS:.0f} ms" if ns < NS_PER_S else f"{ns / NS_PER_S:.2f} s"


@for_each_victim
def old_primary_streaming(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Seconds until the old primary streams from the new one, from its start or from a fault that held nothing down.

    What was fenced comes back by itself, before the fault that froze it is lifted: that took no time.
    """
    doubt = doubt_shard_fault(evidence, run)
    if doubt or run.fault is None:
        return unknown(promise, f"{doubt}, so there is no old primary")
    member = run.fault.member

    def of_member(event: Event) -> bool:
        return event.member == member

    since, words = run.fault.t_ns, "the fault"
    if run.fault.hold:
        started = evidence.first("fault", "started", after_ns=run.fault.t_ns, test=of_member)
        if started is None:
            return unknown(promise, f"{member} was never started again", out_of="0 of 1")
        since, words = started.t_ns, "its start"
    follows = evidence.first("prober", "streaming", after_ns=run.fault.t_ns, test=_of_successor(member, run.fault))
    if follows is not None and follows.t_ns < since:
        reason = f"{member} streamed {(since - follows.t_ns) / NS_PER_S:.1f} s before {words} already"
        return measured(promise, 0.0, n=1, out_of="1 of 1", reason=reason)
    streaming = evidence.first("prober", "streaming", after_ns=since, test=of_member)
    if streaming is None:
        watched = max(0.0, (after_fault(run, run.fault)[1] - since) / NS_PER_S)
        reason = f"{member} was not seen streaming in the {watched:.1f} s after {words}"
        verdict = Verdict.UNKNOWN if promise.kept(watched) else Verdict.FALSE
        return Finding(None, promise.target, verdict, 0, "0 of 1", reason)
    value = (streaming.t_ns - since) / NS_PER_S
    lag = streaming.data.get("lag_bytes")
    behind = "" if lag is None else f", {lag:,} bytes behind"
    reason = f"{member} streamed {value:.1f} s after {words} on timeline {streaming.data.get('timeline')}{behind}"
    return measured(promise, value, n=1, out_of="1 of 1", reason=reason)


def _of_successor(member: str, fault: FaultRecord) -> Callable[[Event], bool]:
    """Events of the member on a timeline that is newer than the one it led before the fault."""

    def test(event: Event) -> bool:
        timeline = event.data.get("timeline")
        newer = isinstance(timeline, int) and fault.old_timeline is not None and timeline > fault.old_timeline
        return event.member == member and newer

    return test


@for_each_victim
def leadership_ended(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Seconds from the fault until the struck shard has no leader in etcd: given back, or run out with its lease."""
    doubt = doubt_shard_fault(evidence, run)
    if doubt or run.fault is None or run.windows.fault is None:
        return unknown(promise, f"{doubt or 'the fault window has no end'}, so no leadership is known to have ended")
    fault, end_ns = run.fault, run.windows.fault[1]

    def of_shard(event: Event) -> bool:
        return bool(event.data.get("shard") == fault.shard)

    ended = evidence.first("etcd", "leader_deleted", after_ns=fault.t_ns, test=of_shard)
    if ended is None or ended.t_ns > end_ns:
        watched = (end_ns - fault.t_ns) / NS_PER_S
        verdict = Verdict.UNKNOWN if promise.kept(watched) else Verdict.FALSE
        reason = f"{fault.member} led on in the {watched:.1f} s that were watched"
        found = Finding(None, promise.target, verdict, 0, "0 of 1", reason)
        return unless_etcd_elected(found, evidence, promise, run, end_ns)
    value = (ended.t_ns - fault.t_ns) / NS_PER_S
    reason = f"the leadership of {fault.member} ended {value:.3f} s after the fault"
    found = measured(promise, value, n=1, out_of="1 of 1", reason=reason)
    return unless_etcd_elected(found, evidence, promise, run, ended.t_ns)
