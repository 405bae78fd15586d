"""A replica that cannot serve: when it was noticed, when it left and came back, and what the rest of the load felt."""

from __future__ import annotations

from experiments.checkers.fault import NS_PER_S, doubt_fault
from experiments.checkers.finding import Finding, Verdict, count, measured, unknown
from experiments.checkers.latency import against_baseline, predictions
from experiments.checkers.machine import stood_still_s
from experiments.checkers.victims import for_each_victim
from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import FaultRecord, RunRecord
from experiments.scenario import Promise
from services.contracts.events import Event


@for_each_victim
def breaker_opens(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Seconds from the fault until the replica itself says that it is not fit to serve."""
    return _turned(evidence, promise, run, source="agent", to="down", words="its watchdog said down")


@for_each_victim
def out_of_rotation(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Seconds from the fault until the edge sends the replica no more requests."""
    return _turned(evidence, promise, run, source="edge", to="out", words="the edge took it out of rotation")


def _turned(evidence: Evidence, promise: Promise, run: RunRecord, *, source: str, to: str, words: str) -> Finding:
    doubt = doubt_fault(evidence, run)
    if doubt or run.fault is None or run.windows.fault is None:
        return unknown(promise, f"{doubt or 'the fault window has no end'}, so nothing can have noticed it")
    fault = run.fault
    before = [e for e in evidence.events if e.source == source and e.member == fault.member and e.t_ns < fault.t_ns]
    if not before or before[-1].kind == to:
        said = f"was {to} before the fault" if before else f"was not watched by {source} before the fault"
        return unknown(promise, f"{fault.member} {said}", out_of="0 of 1")
    return _until(evidence, promise, fault, since_ns=fault.t_ns, end_ns=run.windows.fault[1], seen=(source, to, words))


@for_each_victim
def back_in_rotation(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Seconds from the fault's end until the edge sends the replica requests again."""
    doubt = doubt_fault(evidence, run)
    if doubt or run.fault is None or run.windows.fault is None or run.windows.recovery is None:
        return unknown(promise, f"{doubt or 'the recovery was not watched'}, so no return can be measured")
    fault, lifted = run.fault, run.windows.fault[1]
    if _left(evidence, fault) is None:
        return unknown(promise, f"{fault.member} never left the rotation, so it cannot come back", out_of="0 of 1")
    seen = ("edge", "in", "the edge sends it requests again")
    return _until(evidence, promise, fault, since_ns=lifted, end_ns=run.windows.recovery[1], seen=seen)


def _until(
    evidence: Evidence,
    promise: Promise,
    fault: FaultRecord,
    *,
    since_ns: int,
    end_ns: int,
    seen: tuple[str, str, str],
) -> Finding:
    """Judge the time to an event of the struck member; never seen is broken once it was watched for long enough."""
    source, kind, words = seen

    def of_member(event: Event) -> bool:
        return event.member == fault.member

    event = evidence.first(source, kind, after_ns=since_ns, test=of_member)
    if event is None or event.t_ns > end_ns:
        watched = (end_ns - since_ns) / NS_PER_S
        reason = f"{fault.member}: not seen in the {watched:.1f} s that were watched that {words}"
        verdict = Verdict.UNKNOWN if promise.kept(watched) else Verdict.FALSE
        return Finding(None, promise.target, verdict, 0, "0 of 1", reason)
    value = (event.t_ns - since_ns) / NS_PER_S
    reason = f"{fault.member}: {words} after {value:.3f} s"
    stood_s = stood_still_s(evidence, (since_ns, event.t_ns))
    if not promise.kept(value) and promise.kept(value - stood_s):
        reason += f", in {stood_s:.3f} s of which the machine itself stood still"
        return unknown(promise, reason, value=value, n=1, out_of="1 of 1")
    return measured(promise, value, n=1, out_of="1 of 1", reason=reason)


def bad_share(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Per cent of predictions without a right answer before their deadline, from the fault to the end of the recovery.

    So many must be seen that a single bad one could still be within the target; else no bad one proves nothing.
    """
    if run.windows.fault is None or run.windows.recovery is None:
        return unknown(promise, "the run has no whole fault window and recovery")
    rows = predictions(history, evidence, (run.windows.fault[0], run.windows.recovery[1]))
    bad, out_of = int((~rows.available).sum()), count(len(rows), "prediction")
    doubt = doubt_fault(evidence, run)
    if not len(rows) or (doubt is None and len(rows) * promise.target < 100):  # noqa: PLR2004 - per cent
        doubt = f"only {out_of} seen; {100 / promise.target:,.0f} are needed"
    share = 100.0 * bad / len(rows) if len(rows) else None
    reason = f"{bad:,} bad of {len(rows):,}"
    if share is None or (doubt and promise.kept(share)):
        return unknown(promise, f"{reason}, but {doubt}", value=share, n=len(rows), out_of=out_of)
    return measured(promise, share, n=len(rows), out_of=out_of, reason=reason)


def latency_of_the_rest(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """p99 while the replica is out of rotation, as a multiple of what is allowed: max(2 x baseline, baseline + 25 ms).

    Without those that the blocked replica caught before it was noticed: they wait for the edge to ask another one, and
    the promises on noticing and on bad predictions judge them. A replica that never left leaves nothing out.
    """
    doubt = doubt_fault(evidence, run)
    if doubt or run.fault is None or run.windows.fault is None:
        return unknown(promise, f"{doubt or 'the fault window has no end'}: nothing to compare")
    lifted = run.windows.fault[1]
    left = [_left(evidence, fault) for fault in run.faults]
    since = max(run.fault.t_ns, *(event.t_ns for event in left if event is not None and event.t_ns <= lifted), 0)
    return against_baseline(history, evidence, promise, run, (since, lifted))


def _left(evidence: Evidence, fault: FaultRecord) -> Event | None:
    """When the edge took the struck replica out of rotation."""
    return evidence.first("edge", "out", after_ns=fault.t_ns, test=lambda event: event.member == fault.member)
