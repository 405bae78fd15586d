"""A reload under load: which model answered each prediction, whether it said what that model says, and since when.

A prediction's row holds the flight (`key`), the probability's bits (`value`), the generation that the answer named
(`timeline`) and the replica (`server`). What each version must say was worked out before the first reload.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from experiments.checkers.availability import MIN_OPERATIONS
from experiments.checkers.fault import NS_PER_S, after_fault, doubt_fault
from experiments.checkers.finding import EXHIBIT_ROWS, Exhibit, Finding, Verdict, count, measured, unknown
from experiments.checkers.latency import against_baseline
from experiments.checkers.machine import stood_still_s
from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import RunRecord
from experiments.scenario import Promise
from loadtests.outcome import bits
from loadtests.record import NO_SERVER, NO_TIMELINE, Error, Kind
from services.contracts.events import Event

MIN_UNDER_RELOAD: Final = 1000
"""Predictions that a run needs while it reloads (the design's figure)."""


def reloads_under_load(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """How many reloads brought another model into production while enough predictions were sent."""
    doubt = doubt_fault(evidence, run)
    if doubt or run.windows.fault is None:
        return unknown(promise, doubt or "the fault window has no end")
    moves = [event for event in _moves(evidence, run) if event.t_ns < run.windows.fault[1]]
    sent = int((history.of(Kind.PREDICT) & history.scheduled_in(run.windows.fault)).sum())
    refused = sum((e.source, e.kind) == ("fault", "not_reloaded") for e in evidence.events)
    reason = f"{count(len(moves), 'reload')} during {count(sent, 'prediction')}, {refused} orders not carried out"
    out_of = count(sent, "prediction")
    if not promise.kept(len(moves)) or sent < MIN_UNDER_RELOAD:
        needed = f"{reason}; {promise.target:g} and {MIN_UNDER_RELOAD:,} are needed"
        return unknown(promise, needed, value=len(moves), n=sent, out_of=out_of)
    return measured(promise, len(moves), n=sent, out_of=out_of, reason=reason)


def not_golden(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Predictions over the whole run that differ in any bit from what the version that they name says of the flight."""
    rows = _named(history, run)
    golden = _golden(evidence)
    versions = _versions(evidence)
    out_of = count(len(rows), "prediction")
    wrong: list[tuple[int, int, str, str]] = []
    seen: list[str] = []
    for generation in np.unique(rows.timeline).tolist():
        names = versions.get(generation, set())
        if len(names) != 1:
            called = ", ".join(sorted(names)) or "no version"
            reason = f"generation {generation} was called {called}"
            verdict = Verdict.FALSE if names else Verdict.UNKNOWN
            return Finding(None, promise.target, verdict, len(rows), out_of, reason)
        (name,) = names
        expected = golden.get(name)
        if expected is None:
            return unknown(promise, f"it is not known what {name} must say", n=len(rows), out_of=out_of)
        of_it = rows.where(rows.timeline == generation)
        differs = of_it.value != expected[of_it.key.astype(np.int64)]
        seen.append(f"{name} {len(of_it):,}")
        wrong += [
            (int(of_it.key[at]), generation, _shown(int(of_it.value[at])), _shown(int(expected[int(of_it.key[at])])))
            for at in differs.nonzero()[0].tolist()
        ]
    reason = f"{len(wrong):,} of {len(rows):,} differ ({', '.join(seen) or 'none named a model'})"
    if not wrong and (len(rows) < MIN_OPERATIONS or _alike(golden)):
        why = f"only {out_of} seen" if len(rows) < MIN_OPERATIONS else "all versions say the same, so none can be told"
        return unknown(promise, f"{reason}, but {why}", n=len(rows), out_of=out_of)
    exhibit = Exhibit(
        "predictions of another model than they name",
        ("flight", "generation", "said", "its version says"),
        tuple(wrong[:EXHIBIT_ROWS]),
        len(wrong),
    )
    evidence_of = (exhibit,) if wrong else ()
    return measured(promise, len(wrong), n=len(rows), out_of=out_of, reason=reason, evidence=evidence_of)


def generations_back(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Answers that name an older generation than the same replica had already named before they were asked for."""
    rows = _named(history, run)
    rows = rows.where(rows.server != NO_SERVER)
    out_of = count(len(rows), "prediction")
    back, replicas = 0, np.unique(rows.server).tolist()
    for replica in replicas:
        own = rows.where(rows.server == replica)
        order = np.argsort(own.end_ns, kind="stable")
        ends, newest = own.end_ns[order], np.maximum.accumulate(own.timeline[order])
        at = np.searchsorted(ends, own.start_ns, side="left") - 1
        back += int(((at >= 0) & (own.timeline < newest[np.maximum(at, 0)])).sum())
    generations = len(np.unique(rows.timeline))
    seen = f"{count(generations, 'generation')} of {count(len(replicas), 'replica')}"
    reason = f"{back:,} of {len(rows):,} went back; {seen}"
    if promise.kept(back) and (len(rows) < MIN_OPERATIONS or generations < 2):  # noqa: PLR2004 - one cannot go back
        return unknown(promise, f"{reason}: too few to see one go back", value=back, n=len(rows), out_of=out_of)
    return measured(promise, back, n=len(rows), out_of=out_of, reason=reason)


def replicas_converged(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Seconds from a pointer's move until the last question that was still answered by an older model; the longest."""
    doubt = doubt_fault(evidence, run)
    moves = _moves(evidence, run)
    if doubt or run.fault is None or not moves:
        return unknown(promise, doubt or "the pointer never moved", out_of="no reload")
    rows = _named(history, run)
    rows = rows.where(rows.server != NO_SERVER)
    ends = [event.t_ns for event in moves[1:]] + [after_fault(run, run.fault)[1]]
    worst, worst_at, parts = 0.0, moves[0].t_ns, []
    for event, end in zip(moves, ends, strict=True):
        generation = int(event.data["generation"])
        after = rows.where((rows.start_ns >= event.t_ns) & (rows.start_ns < end))
        if not (after.timeline >= generation).any():
            watched = (end - event.t_ns) / NS_PER_S
            verdict = Verdict.UNKNOWN if promise.kept(watched) else Verdict.FALSE
            reason = f"generation {generation} never answered in the {watched:.1f} s after the pointer moved to it"
            return Finding(None, promise.target, verdict, len(moves), count(len(moves), "reload"), reason)
        old = after.start_ns[after.timeline < generation]
        took = (int(old.max()) - event.t_ns) / NS_PER_S if len(old) else 0.0
        parts.append(f"{took:.3f}")
        if took >= worst:
            worst, worst_at = took, event.t_ns
    reason = f"the last answer of an older model was asked for {', '.join(parts)} s after the pointer's move"
    out_of = count(len(moves), "reload")
    stood_s = stood_still_s(evidence, (worst_at, worst_at + round(worst * NS_PER_S)))
    if not promise.kept(worst) and promise.kept(worst - stood_s):
        return unknown(promise, f"{reason}; the machine itself stood still for {stood_s:.1f} s", value=worst)
    return measured(promise, worst, n=len(moves), out_of=out_of, reason=reason)


def not_rehearsed(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Fewest calls that a model had answered on a replica before it served there, over all reloads and replicas."""
    doubt = doubt_fault(evidence, run)
    seen = [e for e in evidence.events if (e.source, e.kind) == ("metrics", "serving") and e.member is not None]
    replicas = set(run.replicas)
    silent = sorted(replicas - {str(event.member) for event in seen})
    out_of = f"{count(len(seen), 'model')} that came to serve"
    if not seen:
        return unknown(promise, doubt or "no replica told of a model that it serves")
    least = min(seen, key=lambda event: float(event.data["rehearsals"]))
    value = float(least.data["rehearsals"])
    reason = f"least {value:,.0f} calls, of generation {least.data['generation']} on {least.member}"
    if promise.kept(value) and (doubt or silent):
        why = doubt or f"{', '.join(silent)} told nothing"
        return unknown(promise, f"{reason}, but {why}", value=value, n=len(seen), out_of=out_of)
    return measured(promise, value, n=len(seen), out_of=out_of, reason=reason)


def latency_while_reloading(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """p99 of the predictions due from the first reload's order to the last one's end, against the baseline."""
    doubt = doubt_fault(evidence, run)
    if doubt or run.windows.fault is None:
        return unknown(promise, f"{doubt or 'the fault window has no end'}: nothing to compare")
    return against_baseline(history, evidence, promise, run, run.windows.fault)


def flawed_accepted(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Orders to bring the flawed version into production that were carried out; asked before and after a restart."""
    doubt = doubt_fault(evidence, run)
    tried = [e for e in evidence.events if e.source == "fault" and e.kind in {"reloaded", "not_reloaded"}]
    restarted = evidence.first("fault", "restarted", after_ns=0)
    accepted = [event for event in tried if event.kind == "reloaded"]
    moved = [] if run.fault is None else _moves(evidence, run)
    out_of = count(len(tried), "order")
    if accepted or moved:
        reason = f"{len(accepted)} of {out_of} were carried out, and the pointer moved {count(len(moved), 'time')}"
        return measured(promise, max(len(accepted), len(moved)), n=len(tried), out_of=out_of, reason=reason)
    asked_again = restarted is not None and any(event.t_ns > restarted.t_ns for event in tried)
    if doubt or not asked_again:
        return unknown(promise, doubt or "it was not asked again after a restart", n=len(tried), out_of=out_of)
    codes = ", ".join(sorted({str(event.data.get("code")) for event in tried}))
    return measured(promise, 0, n=len(tried), out_of=out_of, reason=f"each of {out_of} was refused ({codes})")


def _moves(evidence: Evidence, run: RunRecord) -> list[Event]:
    """The pointer's moves since the fault began."""
    since = run.fault.t_ns if run.fault is not None else 0
    return [event for event in evidence.events if event.source == "models" and event.t_ns >= since]


def _named(history: History, run: RunRecord) -> History:
    """Good predictions that name a generation."""
    whole = run.windows.whole or (0, 0)
    chosen = history.of(Kind.PREDICT) & (history.error == int(Error.NONE)) & (history.timeline != NO_TIMELINE)
    return history.where(chosen & history.scheduled_in(whole))


def _versions(evidence: Evidence) -> Mapping[int, set[str]]:
    """What clients were told that each generation is called."""
    found: dict[int, set[str]] = {}
    for event in evidence.events:
        if (event.source, event.kind) == ("load", "model_named"):
            found.setdefault(int(event.data["generation"]), set()).add(str(event.data["version"]))
    return found


def _golden(evidence: Evidence) -> dict[str, npt.NDArray[np.uint64]]:
    """Bits of each version's probabilities, by the number of the flight."""
    return {
        str(event.data["version"]): np.array([bits(p) for p in event.data["probabilities"]], dtype=np.uint64)
        for event in evidence.events
        if (event.source, event.kind) == ("golden", "scored")
    }


def _alike(golden: Mapping[str, npt.NDArray[np.uint64]]) -> bool:
    """Whether no two versions differ: then a prediction of one would pass as the other's."""
    return len({tuple(each.tolist()) for each in golden.values()}) < 2  # noqa: PLR2004 - two of them


def _shown(number: int) -> str:
    (probability,) = np.array([number], dtype=np.uint64).view(np.float64).tolist()
    return repr(probability)
