"""An H2O cloud that lost nodes: when that was noticed, when the cloud was whole again, what became of its training."""

from __future__ import annotations

from typing import Final

from experiments.checkers.fault import NS_PER_S, after_fault, doubt_fault
from experiments.checkers.finding import Finding, Verdict, count, measured, unknown
from experiments.checkers.machine import stood_still_s
from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import FaultRecord, RunRecord
from experiments.scenario import Promise
from services.contracts.events import Event

UNDER_WAY: Final = (10, 90)
"""Per cent of its work: before, the job has lost hardly anything; after, it may end before the fault shows."""
UNDISTURBED: Final = "undisturbed"
DISTURBED: Final = "disturbed"


def loss_noticed(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Seconds from a kill until etcd names the next cloud, which every node then starts; the longest of all kills."""
    doubt = _doubt(evidence, run)
    if doubt or run.fault is None:
        return unknown(promise, f"{doubt}, so nothing can have noticed it")
    watched_to = after_fault(run, run.fault)[1]
    worst: float = 0.0
    worst_end = run.fault.t_ns
    parts = []
    for kill_ns, member in _kills(evidence, run.fault):
        epoch = evidence.first("h2o", "epoch", after_ns=kill_ns)
        if epoch is None:
            watched = (watched_to - kill_ns) / NS_PER_S
            verdict = Verdict.UNKNOWN if promise.kept(watched) else Verdict.FALSE
            reason = f"no new cloud was ordered in the {watched:.1f} s after {member} was killed"
            return Finding(None, promise.target, verdict, 0, "0 of 1", reason)
        took = (epoch.t_ns - kill_ns) / NS_PER_S
        parts.append(f"{member} after {took:.2f} s ({epoch.data.get('reason')})")
        if took >= worst:
            worst, worst_end = took, epoch.t_ns
    reason = f"a new cloud was ordered for {', '.join(parts)}"
    stood_s = stood_still_s(evidence, (worst_end - round(worst * NS_PER_S), worst_end))
    out_of = count(len(parts), "kill")
    if not promise.kept(worst) and promise.kept(worst - stood_s):
        return unknown(promise, f"{reason}; the machine itself stood still for {stood_s:.1f} s of it", value=worst)
    return measured(promise, worst, n=len(parts), out_of=out_of, reason=reason)


def cloud_whole_again(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Seconds from the last kill until every node said: one cloud, all nodes, in consensus, healthy."""
    doubt = _doubt(evidence, run)
    if doubt or run.fault is None:
        return unknown(promise, f"{doubt}, so no return can be measured")
    kill_ns, member = _kills(evidence, run.fault)[-1]
    broken = evidence.first("h2o", "broken", after_ns=run.fault.t_ns)
    if broken is None:
        return unknown(promise, "the cloud was never seen without a node, so it cannot come back", out_of="0 of 1")
    whole = evidence.first("h2o", "whole", after_ns=max(kill_ns, broken.t_ns))
    if whole is None:
        watched = (after_fault(run, run.fault)[1] - kill_ns) / NS_PER_S
        verdict = Verdict.UNKNOWN if promise.kept(watched) else Verdict.FALSE
        reason = f"the cloud was not seen whole in the {watched:.1f} s after {member} was killed"
        return Finding(None, promise.target, verdict, 0, "0 of 1", reason)
    value = (whole.t_ns - kill_ns) / NS_PER_S
    epoch = evidence.first("h2o", "epoch", after_ns=kill_ns)
    noticed = "" if epoch is None else f", of which {(epoch.t_ns - kill_ns) / NS_PER_S:.1f} s until it was ordered"
    reason = f"every node agreed on {whole.data.get('cloud')} {value:.1f} s after {member} was killed{noticed}"
    return measured(promise, value, n=1, out_of="1 of 1", reason=reason)


def training_finished(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Whether the training that the fault met half-way ended with a model. One that it did not meet proves nothing."""
    doubt = _doubt(evidence, run) or _missed(evidence, run)
    outcome = _trained(evidence, DISTURBED) or _told(evidence, "failed", DISTURBED)
    if doubt:
        return unknown(promise, doubt, out_of="0 of 1")
    if outcome is None:
        return unknown(promise, "the training had neither ended nor failed when the run ended", out_of="0 of 1")
    if outcome.kind == "failed":
        reason = f"the training failed: {outcome.data.get('error')}"
        return measured(promise, 0, n=1, out_of="0 of 1", reason=reason)
    clouds = int(outcome.data["clouds"])
    if clouds < 2:  # noqa: PLR2004 - the one it began on, and another
        return unknown(promise, "the training ended on the cloud on which it began: the fault missed it", value=1)
    reason = f"{_progress(evidence, run)} % done at the kill; it ended on the {_ordinal(clouds)} cloud that it ran on"
    return measured(promise, 1, n=1, out_of="1 of 1", reason=reason)


def same_model(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Largest difference to the undisturbed model, in any metric on the test rows and any golden probability."""
    doubt = _doubt(evidence, run)
    disturbed, undisturbed = _trained(evidence, DISTURBED), _trained(evidence, UNDISTURBED)
    if doubt or disturbed is None or undisturbed is None:
        name = DISTURBED if disturbed is None else UNDISTURBED
        return unknown(promise, doubt or f"there is no {name} model to compare", out_of="0 of 1")
    if int(disturbed.data["clouds"]) < 2:  # noqa: PLR2004 - the one it began on, and another
        return unknown(promise, "the fault missed the training, so its model had no reason to differ", out_of="0 of 1")
    metrics, others = disturbed.data["metrics"], undisturbed.data["metrics"]
    golden, expected = disturbed.data["golden"], undisturbed.data["golden"]
    if metrics.keys() != others.keys() or len(golden) != len(expected) or not golden:
        return unknown(promise, "the two models were not measured alike", out_of="0 of 1")
    differences = {name: abs(metrics[name] - others[name]) for name in metrics}
    rows = max(abs(one - other) for one, other in zip(golden, expected, strict=True))
    worst = max(*differences.values(), rows)
    parts = ", ".join(f"{name} {metrics[name]:.6f} and {others[name]:.6f}" for name in sorted(metrics))
    reason = f"{parts}; {count(len(golden), 'golden row')} differ by {rows:.1e} at most"
    compared = len(metrics) + len(golden)
    return measured(promise, worst, n=compared, out_of=count(compared, "number"), reason=reason)


def _doubt(evidence: Evidence, run: RunRecord) -> str | None:
    doubt = doubt_fault(evidence, run)
    if doubt or run.fault is None:
        return doubt or "no fault was recorded"
    before = [e for e in evidence.events if e.source == "h2o" and e.kind != "epoch" and e.t_ns < run.fault.t_ns]
    if not before:
        return "nobody watched the cloud before the fault"
    return None if before[-1].kind == "whole" else f"the cloud was broken before the fault ({before[-1].data['why']})"


def _missed(evidence: Evidence, run: RunRecord) -> str | None:
    done = _progress(evidence, run)
    if done is None:
        return "no training was under way at the kill"
    low, high = UNDER_WAY
    return None if low <= done <= high else f"the training was {done} % done at the kill, not {low} to {high} %"


def _progress(evidence: Evidence, run: RunRecord) -> int | None:
    killed = evidence.first("fault", "killed", after_ns=run.fault.t_ns) if run.fault is not None else None
    return None if killed is None else killed.data.get("progress")


def _kills(evidence: Evidence, fault: FaultRecord) -> list[tuple[int, str]]:
    """When whom, in order; the first is the fault itself."""
    again = [e for e in evidence.events if (e.source, e.kind) == ("fault", "killed_another") and e.t_ns >= fault.t_ns]
    return [(fault.t_ns, fault.member), *((event.t_ns, str(event.member)) for event in again)]


def _trained(evidence: Evidence, name: str) -> Event | None:
    return _told(evidence, "trained", name)


def _told(evidence: Evidence, kind: str, name: str) -> Event | None:
    return evidence.first("training", kind, after_ns=0, test=lambda event: event.member == name)


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third", 4: "fourth"}.get(number, f"{number}th")
