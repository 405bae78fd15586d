"""S-04: its checkers say true, false and unknown where they must, and its report tells of a replica, not of a shard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.checkers.finding import Finding, Verdict
from experiments.report import render
from experiments.scenario import Scenario
from experiments.verdict import judge_run
from tests.unit.experiments.synthetic_block import BLOCKED, Block

TRUE, FALSE, UNKNOWN = Verdict.TRUE, Verdict.FALSE, Verdict.UNKNOWN
UNPROVEN: dict[str, Any] = {"proven": False}

CASES: list[tuple[str, Verdict, dict[str, Any]]] = [
    ("breaker-open", TRUE, {}),
    ("breaker-open", FALSE, {"breaker_s": 1.2}),
    ("breaker-open", FALSE, {"breaker_s": None}),
    ("breaker-open", UNKNOWN, {"breaker_s": 1.2, "machine_stalled_s": 0.5}),
    ("breaker-open", FALSE, {"breaker_s": 1.9, "machine_stalled_s": 0.5}),
    ("breaker-open", UNKNOWN, UNPROVEN),
    ("breaker-open", UNKNOWN, {"watched": False}),
    ("breaker-open", UNKNOWN, {"was_out": True}),
    ("breaker-open", UNKNOWN, {"breaker_s": None, "block_s": 0.9}),
    ("breaker-open", UNKNOWN, {"foreign_clock": True}),
    ("breaker-open", UNKNOWN, {"lifted": False}),
    ("out-of-rotation", TRUE, {}),
    ("out-of-rotation", FALSE, {"out_s": 1.01}),
    ("out-of-rotation", FALSE, {"out_s": None}),
    ("out-of-rotation", UNKNOWN, {"watched": False}),
    ("frozen-out-of-rotation", TRUE, {"variant": "replica-frozen", "out_s": 1.1}),
    ("frozen-out-of-rotation", FALSE, {"variant": "replica-frozen", "out_s": None}),
    ("frozen-out-of-rotation", UNKNOWN, {"variant": "replica-frozen", "watched": False}),
    ("back", TRUE, {}),
    ("back", FALSE, {"back_s": 5.5}),
    ("back", FALSE, {"back_s": None}),
    ("back", UNKNOWN, {"back_s": None, "recovery_s": 4.0}),
    ("back", UNKNOWN, {"out_s": None}),
    ("back", UNKNOWN, UNPROVEN),
    ("bad-predictions", TRUE, {}),
    ("bad-predictions", TRUE, {"bad": 2}),
    ("bad-predictions", FALSE, {"bad": 3}),
    ("bad-predictions", FALSE, {"bad": 3, **UNPROVEN}),
    ("bad-predictions", UNKNOWN, UNPROVEN),
    ("bad-predictions", UNKNOWN, {"rate": 50.0}),
    ("bad-predictions", UNKNOWN, {"lifted": False}),
    ("p99-of-the-rest", TRUE, {}),
    ("p99-of-the-rest", TRUE, {"slow_ms": 20.0}),
    ("p99-of-the-rest", FALSE, {"slow_ms": 40.0}),
    ("p99-of-the-rest", FALSE, {"out_s": None, "slow_ms": 700.0}),
    ("p99-of-the-rest", UNKNOWN, {"rate": 50.0}),
    ("p99-of-the-rest", UNKNOWN, UNPROVEN),
    ("fault-proven", TRUE, {}),
    ("fault-proven", UNKNOWN, UNPROVEN),
]


def found(directory: Path, promise: str, **defects: Any) -> Finding:
    judgement = judge_run(Block(**defects).write(directory / "run"))
    return next(entry.finding for entry in judgement.judged if entry.promise.id == promise)


@pytest.mark.parametrize(("promise", "verdict", "defects"), CASES)
def test_verdict(tmp_path: Path, promise: str, verdict: Verdict, defects: dict[str, Any]) -> None:
    finding = found(tmp_path, promise, **defects)
    assert finding.verdict is verdict, finding.reason


def test_every_promise_of_its_own_is_seen_true_false_and_unknown() -> None:
    judged_elsewhere = {"fault-proven", "load-kept", "baseline", "journal"}
    for promise in Scenario.read(BLOCKED).breakwater.promises:
        if promise.id not in judged_elsewhere:
            assert {verdict for name, verdict, _ in CASES if name == promise.id} == {TRUE, FALSE, UNKNOWN}, promise.id


def test_a_sound_run_keeps_every_promise(tmp_path: Path) -> None:
    judgement = judge_run(Block().write(tmp_path / "run"))
    assert judgement.verdict is TRUE, [e.finding.reason for e in judgement.judged if e.finding.verdict is not TRUE]


def test_what_the_blocked_replica_caught_is_not_the_rest(tmp_path: Path) -> None:
    finding = found(tmp_path, "p99-of-the-rest")
    assert finding.n == pytest.approx(200 * (5.0 - 0.45), abs=2)
    assert finding.value is not None
    assert finding.value < 0.5


def test_the_times_are_of_the_struck_replica_and_from_block_and_release(tmp_path: Path) -> None:
    assert found(tmp_path / "a", "breaker-open").value == pytest.approx(0.31)
    assert found(tmp_path / "b", "out-of-rotation").value == pytest.approx(0.45)
    assert found(tmp_path / "c", "back").value == pytest.approx(0.4)


def test_what_comes_after_the_fault_is_no_answer_to_it(tmp_path: Path) -> None:
    finding = found(tmp_path, "breaker-open", breaker_s=9.0)
    assert (finding.verdict, finding.value) == (FALSE, None)


def test_the_report_tells_of_the_replica(tmp_path: Path) -> None:
    run_dir = Block().write(tmp_path / "run")
    page = render(run_dir, judge_run(run_dir)).read_text()
    assert "api-1 had its event loop blocked while 200 predictions a second were running." in page
    assert "The edge took it out of rotation 0.450 s later." in page
    assert "the watchdog of api-1 opened its breaker" in page
    assert "out of rotation" in page
    for word in ("primary", "writes, shard", "write p99", "direct writes", "rows read from"):
        assert word not in page, word
