"""The table of latencies by phase: quantiles with their count, beside the run's own baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.record import Windows
from experiments.report.page import page_of
from experiments.report.phases import PhaseLatency, phase_latencies
from experiments.verdict import judge_run
from loadtests.record import Error, Kind
from tests.unit.experiments.direct import at, run
from tests.unit.experiments.judging import SHORT, history_of
from tests.unit.experiments.synthetic_run import MS, Synthetic

RUN = run(fault_s=30, recovery_s=5)


def took(second: float, ms: float, kind: Kind = Kind.PREDICT, **more: Any) -> dict[str, Any]:
    """An operation due at that second after the fault, sent 1 ms late."""
    due = at(second)
    return {"kind": kind, "sched_ns": due, "start_ns": due + MS, "end_ns": due + round(ms * MS), **more}


def test_quantiles_stand_beside_the_baselines_and_an_empty_phase_has_none() -> None:
    rows = [
        *(took(-20 + number / 10, number) for number in range(1, 101)),
        *(took(number, 198.02) for number in range(10)),
        took(-31, 5000),
        took(36, 5000),
    ]
    baseline, fault, recovery = phase_latencies(history_of(rows), RUN)
    assert (baseline.kind, baseline.phase, baseline.n, baseline.ratio) == (Kind.PREDICT, "baseline", 100, None)
    assert (baseline.p50_ms, baseline.p95_ms, baseline.p99_ms) == pytest.approx((50.5, 95.05, 99.01))
    assert (fault.phase, fault.n) == ("fault", 10)
    assert fault.p50_ms == pytest.approx(198.02)
    assert fault.ratio == pytest.approx(2.0)
    assert recovery == PhaseLatency(Kind.PREDICT, "recovery", 0, None, None, None, None)


def test_what_was_given_up_counts_and_what_was_not_sent_does_not() -> None:
    rows = [took(-5, 4), took(1, 1000, error=Error.TIMEOUT, available=False), took(2, 0, error=Error.NOT_SENT)]
    _, fault, _ = phase_latencies(history_of(rows), RUN)
    assert (fault.n, fault.p99_ms, fault.ratio) == (1, 1000, 250)


def test_each_kind_is_compared_with_itself_and_one_without_a_baseline_with_nothing() -> None:
    rows = [took(-5, 4), took(1, 8), took(1, 30, Kind.WRITE), took(31, 60, Kind.WRITE)]
    listed = phase_latencies(history_of(rows), RUN)
    assert [(row.kind, row.phase, row.n, row.ratio) for row in listed] == [
        (Kind.PREDICT, "baseline", 1, None),
        (Kind.PREDICT, "fault", 1, 2.0),
        (Kind.PREDICT, "recovery", 0, None),
        (Kind.WRITE, "baseline", 0, None),
        (Kind.WRITE, "fault", 1, None),
        (Kind.WRITE, "recovery", 1, None),
    ]


def test_a_load_test_is_one_phase_and_a_run_that_was_cut_off_before_its_phases_has_none() -> None:
    rows = [took(-5, 4), took(1, 8)]
    tested = RUN.model_copy(update={"load": (at(-30), at(30)), "windows": Windows(undisturbed=(at(-30), at(30)))})
    (row,) = phase_latencies(history_of(rows), tested)
    assert (row.phase, row.n, row.ratio) == ("load", 2, None)
    assert phase_latencies(history_of(rows), RUN.model_copy(update={"windows": Windows()})) == []
    assert phase_latencies(history_of([]), RUN) == []


def test_the_report_shows_every_kind_in_every_phase(tmp_path: Path) -> None:
    run_dir = Synthetic(**SHORT).write(tmp_path / "run")
    text = page_of(run_dir, judge_run(run_dir))
    for kind in Kind:
        for phase in ("baseline", "fault", "recovery"):
            assert f"<td>{kind.value}</td><td>{phase}</td>" in text
    assert text.count("<td>baseline</td>") == len(Kind)
