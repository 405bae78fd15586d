"""A planned restart of everything: who really was restarted, and what clients noticed of it."""

from __future__ import annotations

from experiments.checkers.availability import judged_bad
from experiments.checkers.fault import doubt_clocks
from experiments.checkers.finding import Exhibit, Finding, count, measured, unknown
from experiments.checkers.machine import stood_still_s
from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import RunRecord
from experiments.scenario import Promise


def not_restarted(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Members of the run that were not seen to run as another process afterwards."""
    doubt = doubt_clocks(evidence, run) or ("nothing was restarted" if run.fault is None else None)
    if doubt or run.fault is None:
        return unknown(promise, doubt or "nothing was restarted")
    back = {
        str(event.member): float(event.data["seconds"])
        for event in evidence.events
        if (event.source, event.kind) == ("fault", "came_back") and event.data["before"] != event.data["after"]
    }
    left = [name for name in run.members if name not in back]
    out_of = count(len(run.members), "member")
    stuck = evidence.first("fault", "stayed_away", after_ns=run.fault.t_ns)
    if stuck is not None:
        return measured(promise, max(1, len(left)), n=len(back), out_of=out_of, reason=str(stuck.data["why"]))
    if not run.members:
        return unknown(promise, "the run names no member")
    if not promise.kept(len(left)):
        return unknown(promise, f"not restarted: {', '.join(left)}", value=len(left), n=len(back), out_of=out_of)
    slowest = max(back, key=lambda name: back[name])
    reason = f"each of {out_of} runs as another process; {slowest} took longest, {back[slowest]:.1f} s"
    rows = tuple((name, f"{back[name]:.1f} s") for name in run.members)
    exhibit = Exhibit("restarts", ("member", "took"), rows, len(rows))
    return measured(promise, 0, n=len(back), out_of=out_of, reason=reason, evidence=(exhibit,))


def left_unanswered(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Attempts of the edge that API replicas left without an answer while they ended.

    Clients that repeat their writes, and an edge that asks another replica for a prediction, hide them: a client that
    does not repeat itself, or has sent what may not be sent twice, does not.
    """
    doubt = doubt_clocks(evidence, run) or ("nothing was restarted" if run.fault is None else None)
    seen = {e.member: e for e in evidence.events if (e.source, e.kind) == ("edge", "drained") and e.member is not None}
    missing = [name for name in run.replicas if name not in seen]
    out_of = count(len(seen), "replica")
    left = sum(int(event.data["unanswered"]) for event in seen.values())
    each = ", ".join(f"{member} {int(event.data['unanswered']):,}" for member, event in sorted(seen.items()))
    reason = f"left unanswered: {each or 'nobody counted'}"
    if seen and not promise.kept(left):
        stood_s = sum(stood_still_s(evidence, (int(e.data["since_ns"]), e.t_ns)) for e in seen.values())
        if stood_s:
            reason += f"; the machine itself stood still for {stood_s:.3f} s of it"
            return unknown(promise, reason, value=left, n=len(seen), out_of=out_of)
        return measured(promise, left, n=len(seen), out_of=out_of, reason=reason)
    if doubt or missing or not seen:
        why = doubt or f"not counted: {', '.join(missing) or 'no replica'}"
        return unknown(promise, why, value=left if seen else None, n=len(seen), out_of=out_of)
    return measured(promise, left, n=len(seen), out_of=out_of, reason=reason)


def bad_operations(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Bad operations of every kind over the whole run."""
    whole = run.windows.whole
    if whole is None:
        return unknown(promise, "the run has no window at all")
    return judged_bad(history, history.scheduled_in(whole), evidence, promise, run, noun="operation")
