"""The longest silence: an outage counts whenever it comes, unless the writers or the machine were silent themselves."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.checkers.finding import Finding, Verdict
from experiments.checkers.silence import longest_silence
from experiments.evidence import Evidence
from experiments.record import Rates, RunRecord
from experiments.scenario import Promise
from loadtests.record import Durability, Error
from services.contracts.events import Event
from tests.unit.experiments.judging import history_of
from tests.unit.experiments.synthetic_run import CLOCK, KILL, MS, S, Synthetic

PROMISE = Promise(id="longest-silence", title="silence", checker="longest_silence", target=2, unit="s", compare="<")
FAULT_S, RECOVERY_S = 10.0, 5.0
EVERY_MS = 20


def record(**changes: Any) -> RunRecord:
    made = Synthetic(fault_s=FAULT_S, recovery_s=RECOVERY_S).record()
    return made.model_copy(update={"rates": Rates(predict=0, write=50, write_api=0, read=0), **changes})


def judged(
    run: RunRecord,
    *,
    silent_s: tuple[float, float] = (4.0, 4.1),
    sent: bool = True,
    stalled_s: float = 0.0,
    shard: int = 1,
) -> Finding:
    """Writes every 20 ms on both shards, none acknowledged on one of them while it is silent."""
    rows = []
    for number in range(int((FAULT_S + RECOVERY_S) * 1000 / EVERY_MS)):
        at = KILL + number * EVERY_MS * MS
        for of in (0, 1):
            row: dict[str, Any] = {"shard": of, "sched_ns": at, "start_ns": at, "end_ns": at + MS}
            if of == shard and silent_s[0] * S <= at - KILL < silent_s[1] * S:
                error = Error.TIMEOUT if sent else Error.NOT_SENT
                row |= {"durability": Durability.UNKNOWN, "available": False, "error": error}
            rows.append(row)
    events = (
        Event(
            KILL + int(silent_s[0] * S), CLOCK, "machine", None, "stalled", {"what": "disk", "ns": int(stalled_s * S)}
        ),
    )
    return longest_silence(history_of(rows), Evidence(events if stalled_s else ()), PROMISE, run)


def test_short_gaps_keep_the_promise() -> None:
    finding = judged(record())
    assert finding.verdict is Verdict.TRUE
    assert finding.value == pytest.approx(0.12, abs=0.01)


def test_an_outage_long_after_its_cause_breaks_it() -> None:
    finding = judged(record(), silent_s=(6.0, 9.0))
    assert finding.verdict is Verdict.FALSE
    assert finding.value == pytest.approx(3.02, abs=0.01)
    assert "from 5.981 s after the fault on" in finding.reason
    assert len(finding.evidence[0].rows) >= 10


def test_an_outage_to_the_very_end_counts() -> None:
    assert judged(record(), silent_s=(12.0, 15.0)).verdict is Verdict.FALSE


def test_another_shards_silence_is_another_promises() -> None:
    assert judged(record(), silent_s=(6.0, 9.0), shard=0).verdict is Verdict.TRUE


def test_what_struck_no_shard_is_judged_on_all_of_them() -> None:
    run = record()
    assert run.fault is not None
    etcd = run.fault.model_copy(update={"shard": None, "component": "etcd", "old_timeline": None})
    finding = judged(record(fault=etcd), silent_s=(6.0, 9.0), shard=0)
    assert finding.verdict is Verdict.FALSE
    assert finding.reason.startswith("shard 0")


def test_silent_writers_prove_nothing() -> None:
    finding = judged(record(), silent_s=(6.0, 9.0), sent=False)
    assert finding.verdict is Verdict.UNKNOWN
    assert "1 of 151 scheduled writes were attempted" in finding.reason


def test_a_machine_that_stood_still_proves_nothing() -> None:
    assert judged(record(), silent_s=(6.0, 9.0), stalled_s=2.0).verdict is Verdict.UNKNOWN
    assert judged(record(), silent_s=(6.0, 9.0), stalled_s=0.5).verdict is Verdict.FALSE


def test_without_a_proven_fault_or_the_load_after_it_nothing_is_known() -> None:
    assert judged(record(fault=None)).verdict is Verdict.UNKNOWN
    windows = record().windows.model_copy(update={"recovery": None})
    assert judged(record(windows=windows)).verdict is Verdict.UNKNOWN
