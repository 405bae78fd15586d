"""Checkers by the name that a scenario's promise gives. Each is a pure function over a stored run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from experiments.checkers.availability import bad_predictions, other_shards_bad
from experiments.checkers.budget import error_budget
from experiments.checkers.cache import computations_per_key, hard_expiries, latency_after_fault, memory_grown
from experiments.checkers.cloud import cloud_whole_again, loss_noticed, same_model, training_finished
from experiments.checkers.consistency import duplicated_writes, timelines_grow
from experiments.checkers.durability import failed_present, lost_writes, unexpected_rows
from experiments.checkers.finding import Checker
from experiments.checkers.load import answered_in_time, lost_under_load
from experiments.checkers.machine import unless_starved
from experiments.checkers.recovery import (
    leadership_ended,
    next_ack,
    old_primary_streaming,
    reads_resume,
    recovery_layers,
)
from experiments.checkers.redundancy import descriptors_grown, pools_back, redundancy_restored
from experiments.checkers.reload import (
    flawed_accepted,
    generations_back,
    latency_while_reloading,
    not_golden,
    not_rehearsed,
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
from experiments.checkers.rolling import bad_operations, left_unanswered, not_restarted
from experiments.checkers.silence import longest_silence
from experiments.checkers.staleness import stale_reads
from experiments.checkers.validity import (
    baseline_healthy,
    fault_proven,
    journal_clean,
    load_kept_schedule,
    writes_attempted,
)
from experiments.errors import ScenarioError

LATENCIES: Final = (latency_after_fault, latency_of_the_rest, latency_while_reloading)
"""They compare one p99 with another, each the work of a dozen slow operations: on a shared machine that is weather."""

TIMED: Final = (
    *LATENCIES,
    answered_in_time,
    back_in_rotation,
    bad_operations,
    bad_predictions,
    bad_share,
    breaker_opens,
    cloud_whole_again,
    error_budget,
    leadership_ended,
    left_unanswered,
    longest_silence,
    loss_noticed,
    next_ack,
    old_primary_streaming,
    other_shards_bad,
    out_of_rotation,
    pools_back,
    reads_resume,
    redundancy_restored,
    replicas_converged,
)
"""What they judge depends on time, and so on the machine."""

TIMELESS: Final = (
    baseline_healthy,
    computations_per_key,
    descriptors_grown,
    duplicated_writes,
    failed_present,
    fault_proven,
    flawed_accepted,
    generations_back,
    hard_expiries,
    journal_clean,
    load_kept_schedule,
    lost_under_load,
    lost_writes,
    memory_grown,
    not_golden,
    not_rehearsed,
    not_restarted,
    recovery_layers,
    reloads_under_load,
    same_model,
    stale_reads,
    timelines_grow,
    training_finished,
    unexpected_rows,
    writes_attempted,
)
"""What they judge holds on any machine, however slow: rows, versions, counts, and whether a run is a proof at all."""

CHECKERS: Final[Mapping[str, Checker]] = {
    checker.__name__: checker for checker in (*map(unless_starved, TIMED), *TIMELESS)
}


def checker_named(name: str) -> Checker:
    """ScenarioError naming all checkers when there is none of this name."""
    try:
        return CHECKERS[name]
    except KeyError:
        raise ScenarioError(f"there is no checker {name!r}; there are {', '.join(sorted(CHECKERS))}") from None


__all__ = ["CHECKERS", "checker_named"]
