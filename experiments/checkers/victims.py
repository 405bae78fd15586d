"""Faults with several victims: a promise about one of them is judged for each, and the worst finding counts."""

from __future__ import annotations

import functools

from experiments.checkers.finding import Checker, Finding, Verdict
from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import RunRecord
from experiments.scenario import Promise


def for_each_victim(checker: Checker) -> Checker:
    """The same checker; with several victims its reason says what was found of each, the worst first."""

    @functools.wraps(checker)
    def judged(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
        if not run.also:
            return checker(history, evidence, promise, run)
        found = [
            (fault.member, checker(history, evidence, promise, run.model_copy(update={"fault": fault, "also": ()})))
            for fault in run.faults
        ]
        order = list(Verdict)
        ranked = sorted(found, key=lambda entry: (order.index(entry[1].verdict), _kept_by(promise, entry[1])))
        worst = ranked[0][1]
        reason = "; ".join(f"{member}: {finding.reason}" for member, finding in ranked)
        n = sum(finding.n for _, finding in found)
        return Finding(worst.value, worst.target, worst.verdict, n, worst.out_of, reason, worst.evidence)

    return judged


def _kept_by(promise: Promise, finding: Finding) -> float:
    """How far a value is on the good side of its target; nothing measured is the worst."""
    if finding.value is None:
        return float("-inf")
    away = promise.target - finding.value
    return -away if promise.compare == ">=" else away
