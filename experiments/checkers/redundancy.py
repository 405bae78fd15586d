"""Whether the platform is as strong after the fault as before: every standby streams, no API replica leaks."""

from __future__ import annotations

from typing import Final

from experiments.checkers.fault import NS_PER_S, doubt_fault, doubt_shard_fault
from experiments.checkers.finding import Finding, Verdict, count, measured, unknown
from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import RunRecord
from experiments.scenario import Promise
from services.contracts.events import Event

API: Final = "api-"


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


def descriptors_grown(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Most file descriptors that an API replica holds more after the recovery than before the fault.

    Under the same load before and after: whatever stays open for every failure ends a server one day.
    """
    doubt = doubt_fault(evidence, run)
    held: dict[str, dict[str, Event]] = {"before": {}, "after": {}}
    for event in evidence.events:
        if event.source == "loop" and event.kind in held and event.member is not None:
            held[event.kind][event.member] = event
    replicas = [member for member in run.members if member.startswith(API)]
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
