"""Collectors over files: sources, test results, stored runs, manifests; what is not there is Missing, never true."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.archive import archive
from experiments.checkers.finding import Verdict
from experiments.errors import ExperimentError
from experiments.gate.collect import manifests, results, sources, stored
from experiments.gate.facts import ContractUse, LoopEvidence, Missing, SourceScan, SuiteResults, Training
from experiments.probes.loops import loop_counts
from experiments.scenario import Scenario
from infra.topology import load
from services.contracts.events import Event
from services.contracts.training import SnapshotWitness, TrainingRecord
from tests.unit.experiments.judging import SHORT
from tests.unit.experiments.synthetic_run import CLOCK, SCENARIO, Synthetic

ROOT = Path(__file__).resolve().parents[4]
NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)


def found(fact: Any, kind: type) -> Any:
    assert isinstance(fact, kind), fact
    return fact


def test_the_repository_holds_no_blocking_call() -> None:
    scan = found(sources.scan(ROOT), SourceScan)
    assert scan.files > 50
    assert scan.breaches == ()
    assert len(scan.deliberate) == 1


def test_a_blocking_call_is_found_also_behind_a_noqa(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "bad.py").write_text(
        "import time\n\n\nasync def wait() -> None:\n    time.sleep(1)  # noqa: ASYNC251\n"
    )
    scan = found(sources.scan(tmp_path), SourceScan)
    assert scan.files == 1
    (breach,) = scan.breaches
    assert breach.startswith("services/bad.py:5 ASYNC251")


def test_sources_that_are_not_there_are_missing(tmp_path: Path) -> None:
    assert isinstance(sources.scan(tmp_path / "nowhere"), Missing)
    assert isinstance(sources.contract_use(tmp_path), Missing)


def test_the_repository_shares_one_contract() -> None:
    use = found(sources.contract_use(ROOT), ContractUse)
    assert use.fields == 16
    assert all(use.reach.values())
    assert use.copies == ()


def test_a_party_without_the_contract_and_a_copy_of_it_are_found(tmp_path: Path) -> None:
    for package in ("contracts", "etl", "h2o", "api"):
        (tmp_path / "services" / package).mkdir(parents=True)
    (tmp_path / "loadtests").mkdir()
    fields = "\n".join(f"    field_{n}: int" for n in range(6))
    (tmp_path / "services/contracts/flights.py").write_text(f"class FlightFeatures:\n{fields}\n")
    (tmp_path / "services/etl/a.py").write_text("from services.contracts.flights import FlightFeatures\n")
    (tmp_path / "services/h2o/a.py").write_text("import services.contracts.flights\n")
    (tmp_path / "loadtests/a.py").write_text("from services.contracts import flights\n")
    (tmp_path / "services/api/a.py").write_text(f"class Vector:\n{fields}\n")
    use = found(sources.contract_use(tmp_path), ContractUse)
    assert use.reach == {"services.etl": True, "services.h2o": True, "services.api": False, "loadtests": True}
    assert use.copies == ("services.api.a.Vector (6 fields)",)


JUNIT = """<testsuites><testsuite name="pytest"><properties><property name="commit" value="abc1234"/></properties>
<testcase classname="tests.integration.containers.test_cache" name="test_a"/>
<testcase classname="tests.integration.containers.test_cache" name="test_b"><skipped message="no engine"/></testcase>
<testcase classname="" name="tests.kubernetes.test_engine"><skipped message="no pulumi"/></testcase>
<testcase classname="tests.unit.x" name="test_c"><failure message="no"/></testcase></testsuite></testsuites>"""


def test_test_results_are_read_with_their_commit(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(JUNIT)
    (tmp_path / "b.xml").write_text("<testsuites><testsuite/></testsuites>")
    read = found(results.results(tmp_path), SuiteResults)
    assert read.commits == {"abc1234", None}
    assert [(case.name.rsplit(".", 1)[-1], case.outcome) for case in read.cases] == [
        ("test_a", "passed"),
        ("test_b", "skipped"),
        ("test_engine", "skipped"),
        ("test_c", "failed"),
    ]
    assert read.cases[2].name.startswith("tests.kubernetes.test_engine")


def test_absent_and_damaged_test_results_are_missing(tmp_path: Path) -> None:
    assert "run `make test`" in found(results.results(tmp_path), Missing).why
    (tmp_path / "a.xml").write_text(JUNIT[:100])
    assert "cut off" in found(results.results(tmp_path), Missing).why


def run_of(directory: Path, name: str, **changes: Any) -> Path:
    return Synthetic(**{**SHORT, "counts": False, **changes}).write(directory / name)


def test_the_last_run_is_judged_again_whatever_was_written(tmp_path: Path) -> None:
    run = run_of(tmp_path, "r1", lose=2)
    (run / "verdict.json").write_text('{"verdict": "true", "promises": []}')
    scenario = Scenario.read(SCENARIO)
    last = {each.variant: each for each in stored.last_runs(archive(tmp_path), "local", [scenario], NOW)}
    assert last["server-killed"].verdict is Verdict.FALSE
    assert last["server-killed"].run == "r1"
    age_days = last["server-killed"].age_days
    assert age_days is not None
    assert 0 < age_days < 1
    assert last["member-killed"].run is None
    assert stored.last_runs(archive(tmp_path), "staging", [scenario], NOW)[0].run is None


def test_a_run_of_another_method_other_promises_or_less_load_is_not_the_scenarios_own(tmp_path: Path) -> None:
    run = run_of(tmp_path, "r1")
    document = json.loads((run / "scenario.json").read_text())
    document["extensions"][0]["promises"][0]["target"] = 20.0
    document["method"].pop()
    (run / "scenario.json").write_text(json.dumps(document))
    record = json.loads((run / "run.json").read_text())
    record["rates"]["predict"] = 1.0
    (run / "run.json").write_text(json.dumps(record))
    (last, *_) = stored.last_runs(archive(tmp_path), "local", [Scenario.read(SCENARIO)], NOW)
    assert last.unlike == ("another experiment", "other promises", "lower rates")


def test_a_run_that_cannot_be_judged_any_more_is_unknown_and_says_why(tmp_path: Path) -> None:
    run = run_of(tmp_path, "r1")
    (run / "scenario.json").write_text("{}")
    (last, *_) = stored.last_runs(archive(tmp_path), "local", [Scenario.read(SCENARIO)], NOW)
    assert last.verdict is Verdict.UNKNOWN
    assert "is not a scenario" in last.unlike[0]


def note(run: Path, when: str, member: str, **counts: float) -> None:
    with (run / "events.jsonl").open("ab") as log:
        log.write(Event(1, CLOCK, "loop", member, when, counts).to_line())


def test_watchdogs_counts_are_taken_from_the_newest_whole_run(tmp_path: Path) -> None:
    run = run_of(tmp_path, "r1")
    for member, blocked, restarted in (("api-0", 1, 0), ("api-1", 0, 5)):
        note(run, "before", member, pings=100, blocked=0, started=1)
        note(run, "after", member, pings=900, blocked=blocked, started=1 + restarted)
    evidence = found(stored.loop_evidence(archive(tmp_path), "local"), LoopEvidence)
    assert [(watch.replica, watch.pings, watch.blocked) for watch in evidence.replicas] == [
        ("api-0", 800, 1),
        ("api-1", None, None),
    ]


def test_a_run_that_was_cut_off_or_struck_the_api_or_counted_nothing_is_no_evidence(tmp_path: Path) -> None:
    run_of(tmp_path, "silent")
    for name, changes in (("cut", {"completed": False}), ("nothing", {"fault": False})):
        note(run_of(tmp_path, name, **changes), "before", "api-0", pings=1, blocked=0, started=1)
    struck = run_of(tmp_path, "struck")
    note(struck, "before", "api-0", pings=1, blocked=0, started=1)
    record = json.loads((struck / "run.json").read_text())
    record["fault"]["component"] = "api"
    (struck / "run.json").write_text(json.dumps(record))
    assert isinstance(stored.loop_evidence(archive(tmp_path), "local"), Missing)


def test_loop_counts_come_from_a_replicas_own_page() -> None:
    page = (
        "breakwater_api_loop_lag_seconds_count 812.0\nprocess_start_time_seconds 1.5e9\n"
        'process_open_fds 81.0\nbreakwater_api_breaker_opened_total{dependency="cache"} 7.0\n'
        'breakwater_api_breaker_opened_total{dependency="replica"} 2.0\n'
    )
    assert loop_counts(page) == {"pings": 812, "started": 1.5e9, "blocked": 2, "descriptors": 81}
    assert loop_counts(page.splitlines()[0] + "\n") is None


def test_the_last_training_is_read(tmp_path: Path) -> None:
    path = tmp_path / "training.json"
    assert isinstance(stored.last_training(path, 2), Missing)
    witness = SnapshotWitness(shard=0, isolation="repeatable read", begin="1:1:", end="1:1:")
    TrainingRecord(version="v", commit="c", at=NOW, snapshots=(witness,)).write(path)
    assert stored.last_training(path, 2) == Training("v", "c", 2, (witness,))
    path.write_text("{}")
    with pytest.raises(ExperimentError, match="is no record of a training"):
        stored.last_training(path, 2)


def test_runs_that_cannot_be_read_are_named_and_latest_is_listed_once(tmp_path: Path) -> None:
    run_of(tmp_path, "r1")
    (tmp_path / "latest").symlink_to("r1")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{}")
    kept = archive(tmp_path)
    assert [run.name for run in kept.runs] == ["r1"]
    assert len(kept.unreadable) == 1
    assert archive(tmp_path / "nowhere").runs == ()


def test_policies_and_heaps_of_what_a_local_gate_deploys() -> None:
    deployed = manifests.deployed(ROOT, load(ROOT, "local"))
    assert [topology.environment for topology in deployed] == ["production", "staging"]
    staging = deployed[1]
    objects = manifests.rendered(staging)
    check = manifests.policy_check(staging, objects)
    assert check.breaches == ()
    assert check.objects == len(objects)
    heaps = list(manifests.rendered_heaps("staging", objects))
    assert len(heaps) == staging.h2o.nodes
    assert {(heap.heap_mb, heap.limit_mb) for heap in heaps} == {(staging.h2o.heap_mb, staging.h2o.memory_mb)}


def test_the_subject_names_images_and_topology() -> None:
    subject = manifests.subject(load(ROOT, "staging"), "abc")
    assert subject.images["api"].endswith("/api:0.1.0")
    assert manifests.subject(load(ROOT, "local"), "abc").images == {}
