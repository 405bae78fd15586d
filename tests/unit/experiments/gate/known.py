"""Facts of an environment in which every item is true, to be changed by each test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from experiments.checkers.finding import Verdict
from experiments.gate.facts import (
    Answer,
    CaseResult,
    ConsensusTrial,
    ContractUse,
    Facts,
    Handshake,
    Heap,
    LastRun,
    LoopEvidence,
    LoopWatch,
    PolicyCheck,
    SourceScan,
    SuiteResults,
    Training,
)
from experiments.gate.items import ENGINE, ITEMS, TESTCONTAINERS, Outcome
from services.contracts.training import SnapshotWitness

HERE = "3f9c2ab41d07"
OTHER = "aaaaaaaaaaaa"


def case(name: str, package: str, outcome: str = "passed", why: str = "") -> CaseResult:
    return CaseResult(f"{package}.{name}", outcome, why)


def witness(shard: int, isolation: str = "repeatable read", end: str = "10:10:") -> SnapshotWitness:
    return SnapshotWitness(shard=shard, isolation=isolation, begin="10:10:", end=end)


def trial(**changes: Any) -> ConsensusTrial:
    ready = {"h2o-0": True, "h2o-1": True, "h2o-2": True}
    usual = ConsensusTrial("h2o-2", True, "gone", ready, {"h2o-0": 0.6, "h2o-1": 1.1}, 1.2, True)
    return replace(usual, **changes)


def run(variant: str, **changes: Any) -> LastRun:
    return replace(LastRun("S-01", variant, f"run-of-{variant}", Verdict.TRUE, HERE, 0.5), **changes)


GOOD = Facts(
    commit=HERE,
    max_age_days=7,
    handshakes=(
        Handshake("127.0.0.1:24443", "1.3", Answer.ACCEPTED, "TLSv1.3"),
        Handshake("127.0.0.1:24443", "1.2", Answer.REFUSED, "tlsv1 alert protocol version"),
    ),
    scan=SourceScan(80, ()),
    loops=LoopEvidence("a-run", HERE, (LoopWatch("api-0", 1200, 0), LoopWatch("api-1", 1180, 0))),
    training=Training("20261128-1", HERE, 2, (witness(0), witness(1))),
    tests=SuiteResults(
        ("test.xml",),
        frozenset({HERE}),
        (case("cache", TESTCONTAINERS), case("up", ENGINE), CaseResult("tests.unit.a", "passed")),
    ),
    contract=ContractUse("services.contracts.flights", 16, {"services.etl": True, "services.api": True}, ()),
    heaps=(Heap("running h2o-0", True, 716, 1024), Heap("rendered staging h2o-0.json", False, 2867, 4096)),
    consensus=trial(),
    runs=(run("server-killed"), run("member-killed")),
    policies=(PolicyCheck("staging", 18, 60, ()),),
)


def outcome(item_id: str, **changes: Any) -> Outcome:
    """What the item says of the good facts with these changes."""
    item = next(item for item in ITEMS if item.id == item_id)
    return item.examine(replace(GOOD, **changes))
