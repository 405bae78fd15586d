"""Every checker says true, false and unknown where it must; those that judge the run itself never say false."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.checkers.finding import Verdict
from experiments.checkers.validity import VALIDITY
from experiments.scenario import Scenario
from tests.unit.experiments.judging import finding, judge_synthetic
from tests.unit.experiments.synthetic_run import SCENARIO

TRUE, FALSE, UNKNOWN = Verdict.TRUE, Verdict.FALSE, Verdict.UNKNOWN

SLOW: dict[str, Any] = {"outage_s": 3.5, "detect_s": 2.0, "promote_s": 3.2, "route_s": 3.4}
UNPROVEN: dict[str, Any] = {"proven": False, "outage_s": 0, "read_outage_s": 0}
NO_FAULT: dict[str, Any] = {"fault": False}

CASES: list[tuple[str, Verdict, dict[str, Any]]] = [
    # next acknowledged write
    ("next-ack-certain", TRUE, {}),
    ("next-ack-certain", FALSE, SLOW),
    ("next-ack-certain", FALSE, {"outage_s": 99}),
    ("next-ack-certain", FALSE, {**SLOW, "machine_stalled_s": (0.5, 1.5)}),
    ("next-ack-certain", FALSE, {**SLOW, "machine_stalled_s": (4.0, 7.0)}),
    ("next-ack-certain", UNKNOWN, {**SLOW, "machine_stalled_s": (0.5, 3.0)}),
    ("next-ack-certain", TRUE, {"machine_stalled_s": (0.0, 3.0)}),
    ("next-ack-certain", UNKNOWN, UNPROVEN),
    ("next-ack-certain", UNKNOWN, NO_FAULT),
    ("next-ack-certain", UNKNOWN, {"stalled_s": (0, 3)}),
    ("next-ack-certain", UNKNOWN, {"write_rate": 10, "write_api_rate": 10}),
    ("next-ack-certain", UNKNOWN, {"foreign_clock": True}),
    ("next-ack-certain", UNKNOWN, {**SLOW, "elected_s": 2.0}),
    ("next-ack-certain", UNKNOWN, {**SLOW, "elected_s": 3.9}),  # it may have been before the first write
    ("next-ack-certain", FALSE, {**SLOW, "elected_s": 4.1}),
    ("next-ack-certain", FALSE, {**SLOW, "elected_s": 1.0}),
    ("next-ack-certain", FALSE, {**SLOW, "elected_s": -0.1}),
    ("next-ack-certain", TRUE, {"elected_s": 0.1}),
    ("next-ack", TRUE, SLOW),
    ("next-ack", UNKNOWN, {"outage_s": 99}),
    ("next-ack", FALSE, {"variant": "member-killed", "outage_s": 99, "fault_s": 31.0}),
    ("next-ack", UNKNOWN, {"variant": "member-killed", "outage_s": 99, "fault_s": 31.0, "elected_s": 15.0}),
    ("next-ack", FALSE, {"variant": "member-killed", "outage_s": 99, "fault_s": 31.0, "elected_s": 5.0}),
    # what the primaries hold
    ("lost-writes", TRUE, {}),
    ("lost-writes", FALSE, {"lose": 1}),
    ("lost-writes", FALSE, {"lose": 1, **UNPROVEN}),
    ("lost-writes", FALSE, {"lose": 1, **SLOW, "elected_s": 2.0}),
    ("lost-writes", FALSE, {"wrong_value": 1}),
    ("lost-writes", UNKNOWN, {"final": False}),
    ("lost-writes", UNKNOWN, {"final_shards": (0,)}),
    ("lost-writes", UNKNOWN, UNPROVEN),
    ("lost-writes", UNKNOWN, {"write_rate": 2, "write_api_rate": 2}),
    ("lost-writes", UNKNOWN, {"write_rate": 0, "write_api_rate": 0}),
    ("unexpected-rows", TRUE, {}),
    ("unexpected-rows", FALSE, {"stray": 1}),
    ("unexpected-rows", FALSE, {"failed_present": 1, "outage_s": 2}),
    ("unexpected-rows", UNKNOWN, {"final": False}),
    ("unexpected-rows", UNKNOWN, {"write_rate": 0, "write_api_rate": 0}),
    ("unexpected-rows", UNKNOWN, {"stray": 1, "torn": True}),
    ("unexpected-rows", UNKNOWN, {"stray": 1, "write_rate": 0, "write_api_rate": 0}),
    ("failed-present", TRUE, {}),
    ("failed-present", TRUE, {"outage_s": 2}),
    ("failed-present", FALSE, {"failed_present": 1, "outage_s": 2}),
    ("failed-present", UNKNOWN, {"final": False}),
    ("failed-present", UNKNOWN, {"write_rate": 0, "write_api_rate": 0}),
    # who else noticed
    ("reads-resume", TRUE, {}),
    ("reads-resume", TRUE, {"read_outage_s": 1.0}),
    ("reads-resume", FALSE, {"read_outage_s": 2.5}),
    ("reads-resume", FALSE, {"read_outage_s": 99}),
    ("reads-resume", FALSE, {"read_outage_s": 2.5, "elected_s": 2.0}),  # a standby answers them without any leader
    ("reads-resume", UNKNOWN, {"read_outage_s": 2.5, "machine_stalled_s": (1.0, 2.0)}),
    ("reads-resume", UNKNOWN, UNPROVEN),
    ("reads-resume", UNKNOWN, {"read_rate": 0, "predict_rate": 0}),
    ("other-shards", TRUE, {}),
    ("other-shards", FALSE, {"frozen_s": (1, 2)}),
    ("other-shards", FALSE, {"frozen_s": (1, 2), **UNPROVEN}),
    ("other-shards", FALSE, {"frozen_s": (1, 2), "machine_stalled_s": (1.4, 1.6)}),
    ("other-shards", UNKNOWN, {"frozen_s": (1, 2), "machine_stalled_s": (1.0, 2.0)}),
    ("other-shards", FALSE, {"frozen_s": (1, 2), "stalled_s": (5.0, 5.1)}),
    ("other-shards", UNKNOWN, {"frozen_s": (1, 2), "stalled_s": (5, 7)}),
    ("other-shards", UNKNOWN, UNPROVEN),
    ("other-shards", UNKNOWN, NO_FAULT),
    (
        "other-shards",
        UNKNOWN,
        {"predict_rate": 1, "write_rate": 1, "write_api_rate": 1, "read_rate": 1, "read_api_rate": 1},
    ),
    ("predictions", TRUE, {}),
    ("predictions", TRUE, {"read_outage_s": 1.5}),
    ("predictions", FALSE, {"read_outage_s": 3.0}),
    ("predictions", FALSE, {"frozen_s": (1, 2)}),
    ("predictions", UNKNOWN, {"frozen_s": (1, 2), "machine_stalled_s": (1.0, 2.0)}),
    ("predictions", UNKNOWN, {"frozen_s": (1, 2), "stalled_s": (5, 7)}),
    ("predictions", FALSE, {"baseline_bad": 1}),
    ("predictions", UNKNOWN, UNPROVEN),
    ("predictions", UNKNOWN, {"predict_rate": 0}),
    ("old-primary", TRUE, {}),
    ("old-primary", FALSE, {"streaming_s": 61, "recovery_s": 65.0}),
    ("old-primary", FALSE, {"streaming_s": None, "recovery_s": 61.0}),
    ("old-primary", UNKNOWN, {"streaming_s": None}),
    ("old-primary", UNKNOWN, {"started": False}),
    ("old-primary", UNKNOWN, UNPROVEN),
    # as strong as before
    ("duplicated-writes", TRUE, {}),
    ("duplicated-writes", FALSE, {"duplicates": 2}),
    ("duplicated-writes", UNKNOWN, {"final": False}),
    ("duplicated-writes", UNKNOWN, {"final_shards": (1,)}),
    ("timelines", TRUE, {}),
    ("timelines", FALSE, {"outdated": 3}),
    ("timelines", UNKNOWN, UNPROVEN),
    ("timelines", UNKNOWN, NO_FAULT),
    ("stale-reads", TRUE, {}),
    ("stale-reads", FALSE, {"stale": 1}),
    ("stale-reads", FALSE, {"stale": 1, **UNPROVEN}),
    ("stale-reads", UNKNOWN, {"stale": 9, "stated_us": 700_000}),
    ("stale-reads", UNKNOWN, {"stated_us": 2**32 - 1}),
    ("stale-reads", UNKNOWN, {"read_api_rate": 1}),
    ("stale-reads", UNKNOWN, {"write_api_rate": 0}),
    ("stale-reads", UNKNOWN, UNPROVEN),
    ("stale-reads", UNKNOWN, NO_FAULT),
    ("redundancy", TRUE, {}),
    ("redundancy", FALSE, {"streaming_s": None, "recovery_s": 61.0}),
    ("redundancy", FALSE, {"third_streams_s": None, "recovery_s": 61.0}),
    ("redundancy", UNKNOWN, {"third_streams_s": None}),
    ("redundancy", UNKNOWN, {"promote_s": None}),
    ("pools", TRUE, {"pools_back_s": 4.0}),
    ("pools", TRUE, {"pools_back_s": -1.0}),
    ("pools", FALSE, {"pools_back_s": 61.0, "recovery_s": 65.0}),
    ("pools", FALSE, {"pools_back_s": None, "recovery_s": 61.0}),
    ("pools", UNKNOWN, {"pools_back_s": None}),
    ("pools", UNKNOWN, {"pools_seen": False}),
    ("pools", UNKNOWN, UNPROVEN),
    ("error-budget", TRUE, {}),
    ("error-budget", FALSE, {"outage_s": 99, "read_outage_s": 99, "recovery_s": 65.0, "frozen_s": (0, 71)}),
    ("error-budget", UNKNOWN, UNPROVEN),
    ("error-budget", UNKNOWN, {"torn": True}),
    ("descriptors", TRUE, {}),
    ("descriptors", TRUE, {"descriptors_grown": -9}),
    ("descriptors", FALSE, {"descriptors_grown": 140}),
    ("descriptors", UNKNOWN, {"restarted": True}),
    ("descriptors", UNKNOWN, {"counts": False}),
    # is it a proof
    ("recovery-layers", TRUE, {}),
    ("recovery-layers", UNKNOWN, {"route_s": None}),
    ("recovery-layers", UNKNOWN, {"outage_s": 99}),
    ("recovery-layers", UNKNOWN, UNPROVEN),
    ("recovery-layers", UNKNOWN, {"stalled_s": (0, 3)}),
    ("fault-proven", TRUE, {}),
    ("fault-proven", UNKNOWN, UNPROVEN),
    ("fault-proven", UNKNOWN, NO_FAULT),
    ("fault-proven", UNKNOWN, {"foreign_clock": True}),
    ("writes-attempted", TRUE, {}),
    ("writes-attempted", TRUE, {"outage_s": 99}),
    ("writes-attempted", UNKNOWN, {"stalled_s": (2, 3)}),
    ("writes-attempted", UNKNOWN, {"stalled_s": (2, 3), "stalled_silently": True}),
    ("writes-attempted", UNKNOWN, {"write_rate": 0, "write_api_rate": 0}),
    ("writes-attempted", UNKNOWN, NO_FAULT),
    ("load-kept", TRUE, {}),
    ("load-kept", UNKNOWN, {"stalled_s": (2, 3)}),
    ("load-kept", UNKNOWN, {"stalled_s": (2, 5), "stalled_silently": True}),
    ("load-kept", UNKNOWN, {"torn": True}),
    (
        "load-kept",
        UNKNOWN,
        dict.fromkeys(("predict_rate", "write_rate", "write_api_rate", "read_rate", "read_api_rate"), 0),
    ),
    ("baseline", TRUE, {}),
    ("baseline", TRUE, {"baseline_noise": 3.0}),
    ("baseline", UNKNOWN, {"baseline_noise": 20.0}),
    ("baseline", TRUE, {"held_up_s": (-2.0, -1.6)}),
    ("baseline", UNKNOWN, {"held_up_s": (-4.0, 0.0)}),
    ("baseline", UNKNOWN, {"baseline_bad": 1}),
    ("baseline", UNKNOWN, {"baseline_bad": 1, "baseline_s": 12.0, "settling_s": 4.0}),
    ("baseline", TRUE, {"baseline_s": 12.0, "settling_s": 4.0, "held_up_s": (-11.0, -8.5)}),
    ("baseline", UNKNOWN, {"baseline_s": 0.5}),
    ("journal", TRUE, {}),
    ("journal", FALSE, {"steady_after": False}),
    ("journal", FALSE, {"failed_rollback": True}),
    ("journal", UNKNOWN, {"steady_before": False}),
    ("journal", UNKNOWN, {"failed_action": True}),
    ("journal", UNKNOWN, {"journal": False}),
    ("journal", UNKNOWN, {"torn_journal": True}),
    ("run-completed", TRUE, {}),
    ("run-completed", UNKNOWN, {"completed": False}),
    ("run-completed", UNKNOWN, {"torn": True}),
    ("run-completed", UNKNOWN, {"final": False}),
]


@pytest.mark.parametrize(
    ("promise", "verdict", "defects"),
    CASES,
    ids=[f"{promise}-{verdict}-{'-'.join(defects) or 'sound'}" for promise, verdict, defects in CASES],
)
def test_verdict(promise: str, verdict: Verdict, defects: dict[str, Any]) -> None:
    found = finding(promise, **defects)
    assert found.verdict is verdict, found.reason
    assert found.reason


def test_every_checker_is_seen_to_say_true_and_unknown_and_every_promise_false() -> None:
    by_id = {promise.id: promise.checker for promise in Scenario.read(SCENARIO).breakwater.promises}
    seen: dict[str, set[Verdict]] = {name: set() for name in by_id.values()}
    for promise, verdict, _ in CASES:
        if promise in by_id:
            seen[by_id[promise]].add(verdict)
    judge_the_run = (VALIDITY - {"run_completed", "journal_clean"}) | {"recovery_layers"}
    for checker, verdicts in seen.items():
        assert verdicts == ({TRUE, UNKNOWN} if checker in judge_the_run else {TRUE, FALSE, UNKNOWN}), checker


def test_the_recovery_is_measured_to_the_end_of_the_first_acknowledged_write() -> None:
    found = finding("next-ack-certain", outage_s=0.4)
    assert found.value == pytest.approx(0.4, abs=0.025)
    assert "direct 0.4" in found.reason
    assert "through the API 0.4" in found.reason
    assert "timeline 2" in found.reason


def test_lost_writes_are_counted_and_named() -> None:
    found = finding("lost-writes", lose=3)
    assert found.value == 3
    (exhibit,) = found.evidence
    assert exhibit.total == 3
    assert len({row[0] for row in exhibit.rows}) == 3
    assert all(row[4] == "missing" for row in exhibit.rows)


def test_the_operations_in_the_gap_are_shown() -> None:
    found = finding("next-ack-certain", **SLOW)
    (exhibit,) = found.evidence
    assert exhibit.total > len(exhibit.rows) == 10
    assert {row[4] for row in exhibit.rows} == {"timeout"}


def test_bad_predictions_are_split_by_vector_and_by_entity() -> None:
    found = finding("predictions", frozen_s=(1, 2))
    assert "predict by vector" in found.reason
    assert "predict by entity" in found.reason
    groups, first = found.evidence
    assert found.value == first.total == sum(int(row[3] or 0) for row in groups.rows)
    assert {row[2] for row in groups.rows} == {"timeout"}


def test_layers_sum_to_the_total_and_a_missing_one_is_not_invented() -> None:
    recovery = judge_synthetic().recovery
    assert recovery is not None
    assert [layer.name for layer in recovery.layers] == ["detect", "promote", "route", "client"]
    assert sum(layer.end_ns - layer.start_ns for layer in recovery.layers) == recovery.total_ns
    assert recovery.layers[0].end_ns == 41_000_000

    partial = judge_synthetic(promote_s=None).recovery
    assert partial is not None
    promote, route = partial.layers[1:3]
    assert promote.seen is None
    assert promote.start_ns == promote.end_ns == 41_000_000
    assert (route.start_ns, route.end_ns) == (41_000_000, 226_000_000)


def test_an_observer_that_was_late_is_corrected_by_the_one_after_it() -> None:
    recovery = judge_synthetic(promote_s=0.260, route_s=0.226).recovery
    assert recovery is not None
    ends = [layer.end_ns for layer in recovery.layers]
    assert ends == sorted(ends)
    assert recovery.layers[1].end_ns == 226_000_000


def test_operations_that_the_load_did_not_send_are_nobodys_failure() -> None:
    found = finding("other-shards", stalled_s=(1, 2))
    assert found.verdict is TRUE
    assert "more were delayed by their own client" in found.reason


def test_a_target_within_the_gap_between_attempts_is_neither_met_nor_missed() -> None:
    found = finding("reads-resume", read_outage_s=1.0, reads_stalled_s=(1.0, 2.4))
    assert found.verdict is UNKNOWN
    assert "nothing was attempted" in found.reason
