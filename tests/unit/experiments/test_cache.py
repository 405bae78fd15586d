"""S-02: its checkers say true, false and unknown where they must, from counts and latencies made by arithmetic."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from experiments.checkers import checker_named
from experiments.checkers.finding import Finding, Verdict
from experiments.evidence import Evidence
from experiments.probes.replica_metrics import parsed
from experiments.record import FaultRecord, ProcessId, Rates, RunRecord, ShardRecord, WallAnchor, Windows
from experiments.scenario import Scenario
from loadtests.record import NO_SHARD, Durability, Kind
from services.contracts.events import Event
from tests.unit.experiments.judging import history_of
from tests.unit.experiments.synthetic_run import CLOCK, MS, ORIGIN, SCENARIO, S

TRUE, FALSE, UNKNOWN = Verdict.TRUE, Verdict.FALSE, Verdict.UNKNOWN
STAMPEDE = Scenario.read(SCENARIO.with_name("s02.yaml"))
STRUCK = ORIGIN + 10 * S
BAND_S = 8
MIB = 1024 * 1024


def found(promise: str, **given: Any) -> Finding:
    """Judge one promise of a run of these facts; the defaults keep every promise."""
    facts: dict[str, Any] = {
        "proven": True, "keys": 20, "computed": (11, 10), "slow_ms": 0.0, "slow_s": 1.0, "rate": 300, "grown": (2, 3),
        "counted": ("api-0", "api-1"), "lifted": True, "died": (0, 0), "left_ms": 4000, "flights": 20, "band_s": BAND_S,
    } | given  # fmt: skip
    judged = next(entry for entry in STAMPEDE.breakwater.promises if entry.id == promise)
    rows = history_of(_rows(facts) if promise.startswith(("p99", "hard")) else [])
    return checker_named(judged.checker)(rows, Evidence(tuple(_events(facts))), judged, _run(facts))


def _rows(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    chance = random.Random(7)  # noqa: S311 - a repeatable run, not a secret
    rows = []
    for number in range(int(facts["rate"] * 16)):
        due = ORIGIN + 2 * S + number * S // facts["rate"]
        slow = facts["slow_ms"] if 0 <= due - STRUCK < facts["slow_s"] * S else 0.0
        end = due + int((4 * chance.lognormvariate(0, 0.3) + slow) * MS)
        times = {"sched_ns": due, "start_ns": due, "end_ns": end}
        asked = {"kind": Kind.PREDICT, "shard": NO_SHARD, "key": number % facts["flights"]}
        rows.append({**asked, "durability": Durability.NONE, **times})
    return rows


def _events(facts: Mapping[str, Any]) -> list[Event]:
    left = {"left_ms": facts["left_ms"]} if facts["left_ms"] else {}
    kind, data = "expired" if left else "deleted", {"keys": facts["keys"], **left}
    events = [Event(STRUCK, CLOCK, "fault", "redis-0", kind, data)] if facts["keys"] else []
    for at, member in enumerate(facts["counted"]):
        before = {"computations": 100.0, "hard_expiries": 50.0, "memory_bytes": 200.0 * MIB}
        computations, memory = 100.0 + facts["computed"][at], (200.0 + facts["grown"][at]) * MIB
        after = {"computations": computations, "hard_expiries": 50.0 + facts["died"][at], "memory_bytes": memory}
        events.append(Event(STRUCK - MS, CLOCK, "metrics", member, "before", before))
        events.append(Event(STRUCK + BAND_S * S, CLOCK, "metrics", member, "after", after))
    return events


def _run(facts: Mapping[str, Any]) -> RunRecord:
    fault = FaultRecord(
        component="redis",
        shard=None,
        member="redis-0",
        scope="keys",
        method="DEL",
        hold=False,
        t_ns=STRUCK,
        pids=(ProcessId(pid=4000, start_ticks=99000, name="redis-server"),),
        proven=facts["proven"],
        evidence="20 of 20 hot keys deleted in one step",
        old_timeline=None,
    )
    band = (STRUCK, STRUCK + facts["band_s"] * S)
    return RunRecord(
        run_id="1f",
        environment="local",
        scenario="S-02",
        variant="keys-deleted",
        seed=7,
        clock_id=CLOCK,
        wall_anchor=WallAnchor(monotonic_ns=ORIGIN, unix_ns=1_795_257_067 * S),
        commit=None,
        members=("redis-0", "api-0", "api-1", "edge-0"),
        shards=(ShardRecord(shard=0, members=()),),
        rates=Rates(predict=300, write=0, write_api=0, read=0),
        windows=Windows(baseline=(ORIGIN + 2 * S, STRUCK), fault=band if facts["lifted"] else None),
        fault=fault,
        completed=True,
    )


CASES: list[tuple[str, Verdict, dict[str, Any]]] = [
    ("computations", TRUE, {}),
    ("computations", TRUE, {"computed": (15, 10)}),
    ("computations", TRUE, {"left_ms": 0}),
    ("computations", FALSE, {"computed": (16, 10)}),
    ("computations", FALSE, {"computed": (900, 1400)}),
    ("computations", UNKNOWN, {"proven": False}),
    ("computations", UNKNOWN, {"keys": 0}),
    ("computations", UNKNOWN, {"computed": (0, 0)}),
    ("computations", UNKNOWN, {"computed": (-100, 60)}),
    ("computations", UNKNOWN, {"counted": ("api-0",)}),
    ("hard-expiries", TRUE, {}),
    ("hard-expiries", TRUE, {"keys": 19, "flights": 19}),
    ("hard-expiries", FALSE, {"died": (1, 0)}),
    ("hard-expiries", FALSE, {"died": (11, 9)}),
    ("hard-expiries", UNKNOWN, {"proven": False}),
    ("hard-expiries", UNKNOWN, {"lifted": False}),
    ("hard-expiries", UNKNOWN, {"keys": 0}),
    ("hard-expiries", UNKNOWN, {"left_ms": 0}),
    ("hard-expiries", UNKNOWN, {"counted": ("api-0",)}),
    ("hard-expiries", UNKNOWN, {"died": (-50, 0)}),
    ("hard-expiries", UNKNOWN, {"band_s": 4}),
    ("hard-expiries", UNKNOWN, {"flights": 19}),
    ("hard-expiries", UNKNOWN, {"flights": 19, "died": (1, 0)}),
    ("hard-expiries", UNKNOWN, {"left_ms": 50}),
    ("p99-after-expiry", TRUE, {}),
    ("p99-after-expiry", TRUE, {"slow_ms": 15.0}),
    ("p99-after-expiry", FALSE, {"slow_ms": 60.0}),
    ("p99-after-expiry", UNKNOWN, {"rate": 100}),
    ("p99-after-expiry", UNKNOWN, {"lifted": False}),
    ("p99-after-expiry", UNKNOWN, {"proven": False}),
    ("p99-without-cache", TRUE, {"slow_ms": 60.0, "slow_s": 0.06}),
    ("p99-without-cache", FALSE, {"slow_ms": 60.0}),
    ("memory", TRUE, {}),
    ("memory", TRUE, {"grown": (-5, -1)}),
    ("memory", FALSE, {"grown": (2, 33)}),
    ("memory", UNKNOWN, {"counted": ("api-1",)}),
    ("memory", UNKNOWN, {"proven": False}),
]


@pytest.mark.parametrize(("promise", "verdict", "facts"), CASES)
def test_verdict(promise: str, verdict: Verdict, facts: dict[str, Any]) -> None:
    finding = found(promise, **facts)
    assert finding.verdict is verdict, finding.reason


def test_computations_are_summed_over_all_replicas() -> None:
    finding = found("computations", computed=(30, 50))
    assert finding.value == pytest.approx(4.0)
    assert "api-0 30, api-1 50" in finding.reason


def test_a_replicas_counts_are_read_from_its_own_page() -> None:
    page = (
        "# TYPE breakwater_api_computations counter\n"
        'breakwater_api_computations_total{reason="miss"} 7.0\n'
        'breakwater_api_computations_total{reason="no_cache"} 4.0\n'
        "# TYPE breakwater_api_cache_expiries counter\n"
        'breakwater_api_cache_expiries_total{kind="soft"} 9.0\n'
        'breakwater_api_cache_expiries_total{kind="hard"} 5.0\n'
        "# TYPE process_resident_memory_bytes gauge\n"
        "process_resident_memory_bytes 3.0e+08\n"
    )
    assert parsed(page) == {"computations": 11.0, "hard_expiries": 5.0, "memory_bytes": 3e8}
    for lacking in ("process_resident", "api_computations", "hard"):
        assert parsed(page.replace(lacking, "some")) is None
    assert parsed("") is None
