"""Checkers by the name that a scenario's promise gives. Each is a pure function over a stored run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from experiments.checkers.availability import bad_predictions, other_shards_bad
from experiments.checkers.budget import error_budget
from experiments.checkers.cache import computations_per_key, latency_after_fault, memory_grown
from experiments.checkers.cloud import cloud_whole_again, loss_noticed, same_model, training_finished
from experiments.checkers.consistency import duplicated_writes, timelines_grow
from experiments.checkers.durability import failed_present, lost_writes, unexpected_rows
from experiments.checkers.finding import Checker
from experiments.checkers.load import answered_in_time, lost_under_load
from experiments.checkers.recovery import (
    leadership_ended,
    next_ack,
    old_primary_streaming,
    reads_resume,
    recovery_layers,
)
from experiments.checkers.redundancy import descriptors_grown, redundancy_restored
from experiments.checkers.reload import (
    flawed_accepted,
    generations_back,
    latency_while_reloading,
    not_golden,
    reloads_under_load,
    replicas_converged,
)
from experiments.checkers.replica import (
    back_in_rotation,
    bad_share,
    breaker_opens,
    latency_of_the_rest,
    out_of_rotation,
)
from experiments.checkers.rolling import bad_operations, not_restarted
from experiments.checkers.silence import longest_silence
from experiments.checkers.validity import (
    baseline_healthy,
    fault_proven,
    journal_clean,
    load_kept_schedule,
    writes_attempted,
)
from experiments.errors import ScenarioError

CHECKERS: Final[Mapping[str, Checker]] = {
    checker.__name__: checker
    for checker in (
        answered_in_time,
        back_in_rotation,
        bad_operations,
        bad_predictions,
        bad_share,
        baseline_healthy,
        breaker_opens,
        cloud_whole_again,
        computations_per_key,
        descriptors_grown,
        duplicated_writes,
        error_budget,
        failed_present,
        fault_proven,
        flawed_accepted,
        generations_back,
        journal_clean,
        latency_after_fault,
        latency_of_the_rest,
        latency_while_reloading,
        leadership_ended,
        load_kept_schedule,
        longest_silence,
        loss_noticed,
        lost_under_load,
        lost_writes,
        memory_grown,
        next_ack,
        not_golden,
        not_restarted,
        old_primary_streaming,
        other_shards_bad,
        out_of_rotation,
        reads_resume,
        recovery_layers,
        redundancy_restored,
        reloads_under_load,
        replicas_converged,
        same_model,
        timelines_grow,
        training_finished,
        unexpected_rows,
        writes_attempted,
    )
}


def checker_named(name: str) -> Checker:
    """ScenarioError naming all checkers when there is none of this name."""
    try:
        return CHECKERS[name]
    except KeyError:
        raise ScenarioError(f"there is no checker {name!r}; there are {', '.join(sorted(CHECKERS))}") from None


__all__ = ["CHECKERS", "checker_named"]
