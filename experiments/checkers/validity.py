"""Whether the run proves anything: the fault happened, the load was there, the baseline was sound, nothing was cut off.

These checkers answer `unknown` where a promise's checker would answer `false`: a run that was no proof says nothing
about the platform. The journal's is the exception: a platform that does not come back to its steady state, and a fault
that could not be undone, are results.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from experiments.checkers.fault import (
    COUNT_NOISE,
    attempted_on_time,
    attempted_writes,
    doubt_clocks,
    due,
)
from experiments.checkers.finding import Exhibit, Finding, Verdict, count, measured, unknown
from experiments.checkers.noise import MIN_A_SECOND, MIN_SECONDS, unlike_halves
from experiments.checkers.victims import for_each_victim
from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import RunRecord, Window
from experiments.scenario import Promise
from loadtests.record import Kind


@for_each_victim
def fault_proven(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """The fault was recorded, named the processes it ended, and was seen to have ended them."""
    fault = run.fault
    if fault is None:
        return unknown(promise, "no fault was recorded", value=0, out_of="0 of 1")
    doubt = doubt_clocks(evidence, run)
    proven = evidence.first("fault", "proven", after_ns=fault.t_ns)
    if doubt is None and not (fault.proven and fault.names_its_victim):
        doubt = f"nothing shows that the fault on {fault.member} had an effect"
    if doubt is None and proven is None:
        doubt = f"run.json calls the fault on {fault.member} proven, but no event says so"
    if doubt:
        return unknown(promise, doubt, value=0, out_of="0 of 1")
    reason = f"{fault.method} to {count(len(fault.pids), 'process', 'processes')} of {fault.member}: {fault.evidence}"
    return measured(promise, 1, n=1, out_of="1 of 1", reason=reason)


@for_each_victim
def writes_attempted(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Share of the faulted shard's scheduled writes that were sent when due, from the kill to the start-again."""
    if run.fault is None or run.windows.fault is None:
        return unknown(promise, "the run has no whole fault window")
    attempted, scheduled = attempted_writes(history, run, run.fault, run.windows.fault)
    return _share(promise, attempted, scheduled, "write")


def load_kept_schedule(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Share of all scheduled operations that were sent when due, from the baseline to the end of the recovery.

    The worst stream counts: a silent writer must not hide behind many predictions.
    """
    whole = run.windows.whole
    if whole is None:
        return unknown(promise, "the run has no window at all")
    if history.torn:
        names = ", ".join(part.name for part in history.torn)
        return unknown(promise, f"{names} is cut off: operations since its last flush are not in the history")
    streams = list(_streams(history, run, whole))
    if not streams:
        return unknown(promise, "the run has no scheduled load")
    name, attempted, scheduled = min(streams, key=lambda stream: stream[1] / max(stream[2], 1.0))
    total, total_due = sum(s[1] for s in streams), sum(s[2] for s in streams)
    finding = _share(promise, attempted, scheduled, "operation")
    reason = f"{finding.reason} in the worst stream, {name}; {total:,} of {total_due:,.0f} in all"
    out_of = count(round(total_due), "operation")
    return Finding(finding.value, finding.target, finding.verdict, total, out_of, reason)


def _streams(history: History, run: RunRecord, window: Window) -> Iterator[tuple[str, int, float]]:
    """Name, operations sent when due, and operations due of each stream of arrivals."""
    rates = {
        Kind.WRITE: (run.rates.write, 0.0),
        Kind.WRITE_API: (run.rates.write_api, 0.0),
        Kind.READ: (run.rates.read, COUNT_NOISE),
        Kind.READ_API: (run.rates.read_api, COUNT_NOISE),
    }
    inside = history.within(window)
    on_time = attempted_on_time(inside)
    if run.rates.predict:
        chosen = inside.of(Kind.PREDICT)
        scheduled = due(int(chosen.sum()), run.scheduled(run.rates.predict, window), noise=COUNT_NOISE)
        yield "predict", int((chosen & on_time).sum()), scheduled
    for kind, (rate, noise) in rates.items():
        of_kind = inside.of(kind)
        for entry in run.shards:
            if rate:
                chosen = of_kind & (inside.shard == entry.shard)
                scheduled = due(int(chosen.sum()), run.scheduled(rate, window), noise=noise)
                yield f"{kind.value} on shard {entry.shard}", int((chosen & on_time).sum()), scheduled


def _share(promise: Promise, attempted: int, scheduled: float, noun: str) -> Finding:
    out_of = count(round(scheduled), noun)
    if scheduled < 1:
        return unknown(promise, f"no {noun} was scheduled", out_of=out_of)
    share = min(100.0, 100.0 * attempted / scheduled)
    reason = f"{attempted:,} of {scheduled:,.0f} {noun}s were sent when due"
    if not promise.kept(share):
        return unknown(promise, reason, value=share, n=attempted, out_of=out_of)
    return measured(promise, share, n=attempted, out_of=out_of, reason=reason)


def baseline_healthy(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Largest ratio between the noise of the baseline's two halves, over all kinds; nothing before the fault is bad."""
    window = run.windows.baseline
    if window is None:
        return unknown(promise, "the run has no baseline window")
    before = run.windows.undisturbed or window
    # What was still under way at the end may have met the fault.
    rows = history.where(history.scheduled_in(before) & (history.end_ns < before[1]) & attempted_on_time(history))
    out_of = count(len(rows), "operation")
    bad = int((~rows.available).sum())
    if bad:
        reason = f"{count(bad, 'bad operation')} of {len(rows):,} before the fault"
        return unknown(promise, reason, n=len(rows), out_of=out_of)
    worst = unlike_halves(rows, window)
    if worst is None:
        reason = f"no kind has {MIN_SECONDS} seconds with {MIN_A_SECOND} operations in each half of the baseline"
        return unknown(promise, reason, n=len(rows), out_of=out_of)
    ratio, words = worst
    reason = f"no bad operation; least alike: {words} in its halves"
    if not promise.kept(ratio):
        return unknown(promise, reason, value=ratio, n=len(rows), out_of=out_of)
    return measured(promise, ratio, n=len(rows), out_of=out_of, reason=reason)


def journal_clean(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Chaos Toolkit's own account, judged by its parts: its overall status and exit code say less than they seem to.

    `false` when the platform was not in its steady state afterwards or a rollback failed; everything else that went
    wrong is `unknown`, for then the experiment was not the one that the scenario describes.
    """
    journal = evidence.journal
    if journal is None:
        why = next((text for text in evidence.missing if "journal" in text), "there is no journal")
        return unknown(promise, why)
    method, rollbacks = _activities(journal, "run"), _activities(journal, "rollbacks")
    n = len(method) + len(rollbacks)
    out_of = f"{n} activities"
    broken = [f"rollback {_name(a)}: {a.get('status')}" for a in rollbacks if a.get("status") != "succeeded"]
    if _steady(journal, "after") is False:
        broken.append("the steady state was not met afterwards")
    invalid = [f"{_name(a)}: {a.get('status')}" for a in method if a.get("status") != "succeeded"]
    if _steady(journal, "before") is not True:
        invalid.append("the steady state was not met before")
    if _steady(journal, "after") is None:
        invalid.append("the steady state was not looked at afterwards")
    if journal.get("status") != "completed" and not broken:
        invalid.append(f"the experiment ended as {journal.get('status')}")
    if not method:
        invalid.append("no activity ran")
    problems = broken + invalid
    if not problems:
        return measured(
            promise, 0, n=n, out_of=out_of, reason=f"all {n} activities succeeded, steady state met before and after"
        )
    exhibit = Exhibit("what did not go as written", ("what",), tuple((text,) for text in problems), len(problems))
    verdict = Verdict.FALSE if broken else Verdict.UNKNOWN
    return Finding(len(problems), promise.target, verdict, n, out_of, "; ".join(problems), (exhibit,))


def _activities(journal: dict[str, Any], part: str) -> list[dict[str, Any]]:
    return [activity for activity in journal.get(part) or [] if isinstance(activity, dict)]


def _name(activity: dict[str, Any]) -> str:
    return str((activity.get("activity") or {}).get("name", "an activity without a name"))


def _steady(journal: dict[str, Any], when: str) -> bool | None:
    state = (journal.get("steady_states") or {}).get(when)
    return state.get("steady_state_met") if isinstance(state, dict) else None


VALIDITY: Final = frozenset(
    checker.__name__
    for checker in (fault_proven, writes_attempted, load_kept_schedule, baseline_healthy, journal_clean)
) | {"run_completed"}
"""Checkers whose `unknown` is a cause: it says why the run is no proof."""
