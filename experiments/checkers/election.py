"""When etcd itself elected a leader beside a fault: what then took too long is no proof against the platform.

A new leader of etcd does not know how much of a lease had passed before it, and gives each its whole time again
(etcd#9395). Until it leads, nobody takes, renews or gives back the leadership of a shard either.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from experiments.checkers.fault import NS_PER_S
from experiments.checkers.finding import Finding, Verdict
from experiments.evidence import Evidence
from experiments.record import RunRecord
from experiments.scenario import Promise

ETCD: Final = "etcd-"


def unless_etcd_elected(finding: Finding, evidence: Evidence, promise: Promise, run: RunRecord, end_ns: int) -> Finding:
    """What was found of a time that ended at `end_ns`; unknown where a broken promise may be an election's doing.

    That is so when, counted from etcd's last election before the end, the promise would be kept. (One before the time
    began cannot do that.) An election beside a fault of etcd's own belongs to that fault, and excuses nothing.
    """
    if finding.verdict is not Verdict.FALSE or run.fault is None or _struck(evidence):
        return finding
    until_then = [
        event
        for event in evidence.events
        if (event.source, event.kind) == ("etcd", "elected") and int(event.data["since_ns"]) <= end_ns
    ]
    last = max(until_then, key=lambda event: event.t_ns, default=None)
    if last is None:
        return finding
    left_s = max(0, end_ns - last.t_ns) / NS_PER_S
    if not promise.kept(left_s):
        return finding
    after_s = (last.t_ns - run.fault.t_ns) / NS_PER_S
    reason = (
        f"{finding.reason}; etcd elected a leader {after_s:.1f} s after the fault (term {last.data['term']}), "
        f"and every lease began anew: counted from there it took {left_s:.3f} s"
    )
    return replace(finding, verdict=Verdict.UNKNOWN, reason=reason)


def _struck(evidence: Evidence) -> bool:
    """Whether a fault of the run befell a member of etcd."""
    return any(event.source == "fault" and str(event.member).startswith(ETCD) for event in evidence.events)
