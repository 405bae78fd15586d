"""Whether the platform is as strong after the fault as before: standbys stream, pools are full, no replica leaks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from experiments.checkers.fault import NS_PER_S, doubt_fault, doubt_shard_fault
from experiments.checkers.finding import Finding, Verdict, count, measured, unknown
from experiments.checkers.victims import for_each_victim
from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import RunRecord, Window
from experiments.scenario import Promise
from services.contracts.events import Event

CHANCE: Final = 1
"""Two requests that meet open a connection more than one after the other would: so many more are the load's chance."""

Size = tuple[int, int]
"""Connections of a pool: open, and being dialled."""
Sizes = Sequence[tuple[int, Size | None]]
"""A pool's size from each time on, in order; None from when its replica did not tell."""


@for_each_victim
def redundancy_restored(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Seconds from the fault's end until every other member of the shard streams from its newest primary."""
    doubt = doubt_shard_fault(evidence, run)
    if doubt or run.fault is None or run.windows.fault is None or run.windows.recovery is None:
        return unknown(promise, f"{doubt or 'the recovery was not watched'}, so no redundancy can be measured")
    fault, lifted, end = run.fault, run.windows.fault[1], run.windows.recovery[1]
    members = next(entry.members for entry in run.shards if entry.shard == fault.shard)

    def of_shard(event: Event) -> bool:
        return bool(event.data.get("shard") == fault.shard)

    writable = [e for e in evidence.events if (e.source, e.kind) == ("prober", "writable") and of_shard(e)]
    newest = max(writable, key=lambda event: (int(event.data["timeline"]), event.t_ns), default=None)
    if newest is None:
        return unknown(promise, f"no primary of shard {fault.shard} was seen", out_of=f"0 of {len(members) - 1}")
    standbys = [member for member in members if member != newest.member]
    since: dict[str, int] = {}
    for event in evidence.events:
        current = event.data.get("timeline") == newest.data["timeline"]
        if (event.source, event.kind) == ("prober", "streaming") and of_shard(event) and current and event.member:
            since.setdefault(event.member, event.t_ns)
    missing = [member for member in standbys if member not in since or since[member] > end]
    out_of = f"{len(standbys) - len(missing)} of {count(len(standbys), 'replica')}"
    if missing or not standbys:
        watched = (end - lifted) / NS_PER_S
        reason = f"{', '.join(missing) or 'no replica'} not seen streaming from {newest.member} in {watched:.1f} s"
        verdict = Verdict.UNKNOWN if promise.kept(watched) or not standbys else Verdict.FALSE
        return Finding(None, promise.target, verdict, len(standbys) - len(missing), out_of, reason)
    last = max(standbys, key=lambda member: since[member])
    value = max(0.0, (since[last] - lifted) / NS_PER_S)
    reason = (
        f"all of {', '.join(standbys)} stream from {newest.member} {value:.1f} s after the fault's end, {last} last"
    )
    return measured(promise, value, n=len(standbys), out_of=out_of, reason=reason)


def pools_back(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Seconds from the fault's end until each pool of each API replica was once at its size again.

    At its size is a pool that dials for nothing, and has at most one connection more than it had at most before the
    fault. One that has fewer needs no more, for a pool dials as soon as somebody waits.
    """
    doubt, windows = doubt_fault(evidence, run), run.windows
    if doubt or windows.undisturbed is None or windows.fault is None or windows.recovery is None:
        return unknown(promise, f"{doubt or 'the recovery was not watched'}, so no pool can be compared")
    pools = _pools(evidence)
    replicas = run.replicas
    unseen = [member for member in replicas if not any(member == owner for owner, _ in pools)]
    if unseen or not replicas:
        return unknown(promise, f"{', '.join(unseen) or 'no replica'} told nothing of its pools")
    lifted, end = windows.fault[1], windows.recovery[1]
    back: dict[str, float] = {}
    away: dict[str, str] = {}
    for (member, pool), sizes in pools.items():
        name = f"{member} {pool}"
        before = [size for size in _during(sizes, windows.undisturbed) if size is not None]
        if not before:
            return unknown(promise, f"{name} was not seen before the fault")
        most = max(size[0] for size in before)
        since = next((max(t, lifted) for t, size in _from(sizes, lifted) if _is_back(size, most) and t <= end), None)
        if since is None:
            last = [size for t, size in sizes if t <= end][-1]
            has = "silent" if last is None else f"{last[0]} open, {last[1]} being dialled"
            away[name] = f"{name} ({has}; at most {most} before)"
        else:
            back[name] = (since - lifted) / NS_PER_S
    out_of = f"{len(back)} of {count(len(pools), 'pool')}"
    if away:
        watched = (end - lifted) / NS_PER_S
        reason = f"{watched:.1f} s after the fault's end not back: {', '.join(away.values())}"
        verdict = Verdict.UNKNOWN if promise.kept(watched) else Verdict.FALSE
        return Finding(None, promise.target, verdict, len(back), out_of, reason)
    last_one = max(back, key=lambda name: back[name])
    reason = (
        f"each of {count(len(back), 'pool')} at its size {back[last_one]:.1f} s after the fault's end, {last_one} last"
    )
    return measured(promise, back[last_one], n=len(back), out_of=out_of, reason=reason)


def _pools(evidence: Evidence) -> dict[tuple[str, str], Sizes]:
    """Sizes of each replica's pools, by member and pool."""
    found: dict[tuple[str, str], list[tuple[int, Size | None]]] = defaultdict(list)
    of_member: dict[str, set[str]] = defaultdict(set)
    for event in evidence.events:
        if event.source != "pools" or event.member is None:
            continue
        if event.kind == "sized":
            of_member[event.member] |= event.data.keys()
        for pool in sorted(of_member[event.member]):  # a set's own order differs from process to process
            size = event.data.get(pool) if event.kind == "sized" else None
            found[event.member, pool].append((event.t_ns, None if size is None else (int(size[0]), int(size[1]))))
    return dict(found)


def _from(sizes: Sizes, t_ns: int) -> Sizes:
    """What holds at `t_ns`, if anything was seen by then, and everything after it."""
    at = sum(t <= t_ns for t, _ in sizes)
    return sizes[max(0, at - 1) :]


def _during(sizes: Sizes, window: Window) -> Iterable[Size | None]:
    return (size for t, size in _from(sizes, window[0]) if t < window[1])


def _is_back(size: Size | None, most: int) -> bool:
    return size is not None and 1 <= size[0] <= most + CHANCE and size[1] == 0


def descriptors_grown(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Most file descriptors that an API replica holds more after the recovery than before the fault.

    Under the same load before and after: whatever stays open for every failure ends a server one day.
    """
    doubt = doubt_fault(evidence, run)
    held: dict[str, dict[str, Event]] = {"before": {}, "after": {}}
    for event in evidence.events:
        if event.source == "loop" and event.kind in held and event.member is not None:
            held[event.kind][event.member] = event
    replicas = run.replicas
    if doubt or not replicas or not all(set(replicas) == set(each) for each in held.values()):
        return unknown(promise, doubt or "the replicas' counts are not complete")
    grown: dict[str, float] = {}
    for member in replicas:
        before, after = held["before"][member].data, held["after"][member].data
        if before["started"] != after["started"]:
            return unknown(promise, f"{member} was restarted, so its counts do not compare")
        grown[member] = after["descriptors"] - before["descriptors"]
    each = ", ".join(f"{member} {grown[member]:+.0f}" for member in replicas)
    out_of = count(len(replicas), "replica")
    return measured(promise, max(0.0, *grown.values()), n=len(replicas), out_of=out_of, reason=f"descriptors: {each}")
