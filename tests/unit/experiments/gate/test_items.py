"""Each item of the gate says true, false and unknown, and why."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.checkers.finding import Verdict
from experiments.gate.facts import (
    Answer,
    CaseResult,
    ContractUse,
    Facts,
    Handshake,
    Heap,
    LoopEvidence,
    LoopWatch,
    Missing,
    PolicyCheck,
    SourceScan,
    SuiteResults,
    Training,
)
from experiments.gate.items import ENGINE, ITEMS, TESTCONTAINERS
from tests.unit.experiments.gate.known import GOOD, HERE, OTHER, case, outcome, run, trial, witness

REFUSED = Handshake("e:1", "1.2", Answer.REFUSED, "alert")
ACCEPTED = Handshake("e:1", "1.3", Answer.ACCEPTED, "TLSv1.3")
RAN = (LoopWatch("api-0", 900, 0),)


def results(*cases: CaseResult, commit: str | None = HERE) -> SuiteResults:
    return SuiteResults(("test.xml",), frozenset({commit}), cases)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.id)
def test_every_item_is_true_of_what_is_as_it_should_be(item: Any) -> None:
    said = item.examine(GOOD)
    assert said.verdict is Verdict.TRUE, said.seen
    assert said.seen


@pytest.mark.parametrize(
    ("item", "changes", "seen"),
    [
        (
            "tls",
            {"handshakes": (ACCEPTED, replace(REFUSED, answer=Answer.ACCEPTED, said="TLSv1.2"))},
            "1.2 at e:1: accepted",
        ),
        (
            "tls",
            {"handshakes": (replace(ACCEPTED, answer=Answer.REFUSED, said="no"), REFUSED)},
            "TLS 1.3 at e:1: refused",
        ),
        ("blocking-calls", {"scan": SourceScan(80, ("a.py:3 ASYNC251 sleep",))}, "a.py:3 ASYNC251"),
        ("blocking-calls", {"loops": LoopEvidence("r", HERE, (LoopWatch("api-1", 900, 2),))}, "api-1 2 times"),
        (
            "snapshot-isolation",
            {"training": Training("v", HERE, 2, (witness(0), witness(1, "read committed")))},
            "shard 1 read under read committed",
        ),
        (
            "snapshot-isolation",
            {"training": Training("v", HERE, 2, (witness(0), witness(1, end="10:12:")))},
            "moved from 10:10: to 10:12:",
        ),
        (
            "testcontainers",
            {"tests": results(case("cache", TESTCONTAINERS, "failed"))},
            "1 of 1 Testcontainers tests failed: tests.integration.containers.cache",
        ),
        ("pulumi-engine", {"tests": results(case("up", ENGINE, "failed"))}, "failed: tests.kubernetes.test_engine.up"),
        (
            "shared-contract",
            {"contract": ContractUse("c", 16, {"services.etl": False, "services.api": True}, ())},
            "services.etl does not import it",
        ),
        (
            "shared-contract",
            {"contract": ContractUse("c", 16, {"a": True}, ("x.Y (9 fields)",))},
            "x.Y (9 fields) declares",
        ),
        (
            "memory-split",
            {"heaps": (Heap("running h2o-0", True, 900, 1024),)},
            "running h2o-0: heap 900 + native 124 of 1024",
        ),
        (
            "readiness",
            {"consensus": trial(false_after_s={"h2o-0": 0.6, "h2o-1": None}, watched_s=10.0)},
            "h2o-1 called itself",
        ),
        (
            "readiness",
            {"consensus": trial(false_after_s={"h2o-0": 0.6, "h2o-1": 5.4}, watched_s=5.5)},
            "h2o-1 called itself",
        ),
        ("readiness", {"consensus": trial(ready_again=False)}, "did not become ready again"),
        (
            "verified",
            {"runs": (run("a"), run("b", verdict=Verdict.FALSE))},
            "1 of 2 variants true; S-01 b: run-of-b is false",
        ),
        ("policies", {"policies": (PolicyCheck("staging", 18, 60, ("Pod/x: latest",)),)}, "staging: Pod/x: latest"),
    ],
)
def test_what_is_wrong_is_false_and_named(item: str, changes: dict[str, Any], seen: str) -> None:
    said = outcome(item, **changes)
    assert said.verdict is Verdict.FALSE, said.seen
    assert seen in said.seen


@pytest.mark.parametrize(
    ("item", "changes", "seen"),
    [
        (
            "tls",
            {"handshakes": (ACCEPTED, replace(REFUSED, answer=Answer.NONE, said="timed out"))},
            "no answer (timed out)",
        ),
        ("tls", {"handshakes": (ACCEPTED,)}, "nobody offered TLS 1.2"),
        ("blocking-calls", {"scan": SourceScan(0, ())}, "no source file"),
        ("blocking-calls", {"loops": LoopEvidence("r", OTHER, RAN)}, f"r is of {OTHER}, not of {HERE}"),
        (
            "blocking-calls",
            {"loops": LoopEvidence("r", HERE, (LoopWatch("api-0", 20, 0),))},
            "api-0 without 400 answers",
        ),
        ("blocking-calls", {"loops": LoopEvidence("r", HERE, (LoopWatch("api-0", None, None),))}, "api-0 without"),
        ("blocking-calls", {"loops": LoopEvidence("r", HERE, ())}, "no replica without"),
        ("snapshot-isolation", {"training": Training("v", HERE, 2, (witness(0),))}, "the word of 1 of 2 shards"),
        ("snapshot-isolation", {"training": Training("v", OTHER, 1, (witness(0),))}, f"is of {OTHER}"),
        (
            "testcontainers",
            {"tests": results(case("c", TESTCONTAINERS, "skipped", "no docker"))},
            "1 of 1 skipped (no docker)",
        ),
        ("testcontainers", {"tests": results()}, "Testcontainers tests: not run"),
        ("testcontainers", {"tests": results(case("c", TESTCONTAINERS), commit=OTHER)}, f"test results are of {OTHER}"),
        ("testcontainers", {"tests": results(case("c", TESTCONTAINERS), commit=None)}, "are of an unknown commit"),
        ("pulumi-engine", {"tests": results(case("c", TESTCONTAINERS))}, "Pulumi engine tests: not run"),
        ("shared-contract", {"contract": ContractUse("c", 0, {"a": True}, ())}, "was not found"),
        ("memory-split", {"heaps": (Heap("running h2o-0", True, None, 1024),)}, "no heap known of running h2o-0"),
        ("memory-split", {"heaps": (Heap("rendered", False, 716, 1024),)}, "no running JVM"),
        ("readiness", {"consensus": trial(proven=False, evidence="it lives")}, "not proven dead: it lives"),
        ("readiness", {"consensus": trial(ready_before={"h2o-0": False})}, "not ready before: h2o-0"),
        ("readiness", {"consensus": trial(false_after_s={})}, "no other node"),
        ("readiness", {"consensus": trial(false_after_s={"h2o-0": None}, watched_s=1.0)}, "watched for 1.0 s"),
        ("verified", {"runs": ()}, "no scenario"),
        ("verified", {"runs": (run("a", run=None, verdict=None),)}, "S-01 a: never run"),
        ("verified", {"runs": (run("a", verdict=Verdict.UNKNOWN),)}, "run-of-a is unknown"),
        ("verified", {"runs": (run("a", commit=f"{HERE}+"),)}, f"is of {HERE}+"),
        ("verified", {"runs": (run("a", age_days=8.0),)}, "older than 7 days"),
        ("verified", {"runs": (run("a", unlike=("lower rates",)),)}, "lower rates"),
        ("policies", {"policies": ()}, "nothing was rendered"),
        ("policies", {"policies": (PolicyCheck("staging", 18, 0, ()),)}, "nothing was rendered"),
    ],
)
def test_what_proves_nothing_is_unknown_and_says_why(item: str, changes: dict[str, Any], seen: str) -> None:
    said = outcome(item, **changes)
    assert said.verdict is Verdict.UNKNOWN, said.seen
    assert seen in said.seen


COLLECTED = [field.name for field in fields(Facts) if field.name not in {"commit", "max_age_days"}]


@given(st.sets(st.sampled_from(COLLECTED), min_size=1))
def test_a_missing_fact_makes_the_items_that_need_it_unknown_and_no_other(gone: set[str]) -> None:
    lost: dict[str, Any] = {name: Missing(f"no {name}") for name in gone}
    facts = replace(GOOD, **lost)
    needs = {
        "tls": {"handshakes"}, "blocking-calls": {"scan", "loops"}, "snapshot-isolation": {"training"},
        "testcontainers": {"tests"}, "pulumi-engine": {"tests"}, "shared-contract": {"contract"},
        "memory-split": {"heaps"}, "readiness": {"consensus"}, "verified": {"runs"}, "policies": {"policies"},
    }  # fmt: skip
    for item in ITEMS:
        said = item.examine(facts)
        lacking = needs[item.id] & gone
        assert said.verdict is (Verdict.UNKNOWN if lacking else Verdict.TRUE)
        assert not lacking or any(f"no {name}" in said.seen for name in lacking)


def test_what_is_broken_outweighs_what_is_not_known() -> None:
    said = outcome("blocking-calls", scan=SourceScan(9, ("a.py:1 ASYNC210",)), loops=Missing("no run"))
    assert said.verdict is Verdict.FALSE


def test_without_a_commit_nothing_stored_counts() -> None:
    for item in ("blocking-calls", "snapshot-isolation", "testcontainers", "verified"):
        assert outcome(item, commit=None).verdict is Verdict.UNKNOWN
        assert outcome(item, commit=f"{HERE}+").verdict is Verdict.UNKNOWN


def test_what_one_command_skipped_and_another_ran_was_run() -> None:
    skipped, ran = case("c", TESTCONTAINERS, "skipped", "no docker"), case("c", TESTCONTAINERS)
    assert outcome("testcontainers", tests=results(skipped, ran)).verdict is Verdict.TRUE
    failed = case("c", TESTCONTAINERS, "failed")
    assert outcome("testcontainers", tests=results(skipped, failed)).verdict is Verdict.FALSE
    other = case("d", TESTCONTAINERS, "skipped", "no docker")
    said = outcome("testcontainers", tests=results(ran, other))
    assert (said.verdict, said.seen) == (Verdict.UNKNOWN, "Testcontainers tests: 1 of 2 skipped (no docker)")
