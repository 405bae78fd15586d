"""What earlier work left on disk: the last run of each variant, the watchdogs' counts in one, the last training."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from experiments.archive import Archive, StoredRun
from experiments.checkers.finding import Verdict
from experiments.errors import ExperimentError
from experiments.evidence import load_evidence
from experiments.gate.facts import Known, LastRun, LoopEvidence, LoopWatch, Missing, Training
from experiments.probes.loops import LOOP_SOURCE
from experiments.scenario import SCENARIO_FILE, Scenario
from experiments.verdict import judge_run
from services.contracts.training import TrainingRecord


def last_runs(
    archive: Archive, environment: str, scenarios: Iterable[Scenario], now: datetime.datetime
) -> tuple[LastRun, ...]:
    """The newest run of every variant, judged again: a stored verdict is only what somebody once wrote."""
    return tuple(
        _last_run(archive, environment, scenario, variant, now)
        for scenario in scenarios
        for variant in scenario.breakwater.variants
    )


def _last_run(archive: Archive, environment: str, scenario: Scenario, variant: str, now: datetime.datetime) -> LastRun:
    kind = (environment, scenario.breakwater.id, variant)
    run = next((run for run in archive.runs if run.kind == kind), None)
    if run is None:
        return LastRun(scenario.breakwater.id, variant, None, None)
    age_days = (now - run.began) / datetime.timedelta(days=1)
    try:
        verdict, unlike = judge_run(run.directory).verdict, tuple(_unlike(run, scenario))
    except ExperimentError as error:
        verdict, unlike = Verdict.UNKNOWN, (str(error),)
    return LastRun(scenario.breakwater.id, variant, run.name, verdict, run.record.commit, age_days, unlike)


def _unlike(run: StoredRun, scenario: Scenario) -> Iterable[str]:
    """How the run differed from what the scenario file demands now."""
    stored = Scenario.read(run.directory / SCENARIO_FILE)
    if any(getattr(stored, part) != getattr(scenario, part) for part in ("hypothesis", "method", "rollbacks")):
        yield "another experiment"
    then, now = stored.breakwater, scenario.breakwater
    if then.promises != now.promises:
        yield "other promises"
    if then.load != now.load:
        yield "another load"
    wanted, had = now.load.rates.model_dump(), run.record.rates.model_dump()
    if any(had[name] < wanted[name] for name in wanted):
        yield "lower rates"


def loop_evidence(archive: Archive, environment: str) -> Known[LoopEvidence]:
    """The watchdogs of the newest whole run that struck no API replica."""
    for run in archive.runs:
        record = run.record
        spared = record.fault is not None and record.fault.component.split("/")[0] != "api"
        if record.environment != environment or not record.completed or not spared:
            continue
        found = _watched(run)
        if found is not None:
            return found
    return Missing(
        f"no whole run against {environment} has the watchdogs' counts: run `breakwater verify {environment}`"
    )


def _watched(run: StoredRun) -> LoopEvidence | None:
    counts: dict[str, dict[str, dict[str, float]]] = {}
    for event in load_evidence(run.directory).events:
        if event.source == LOOP_SOURCE and event.member is not None:
            counts.setdefault(event.member, {})[event.kind] = {name: float(value) for name, value in event.data.items()}
    if not counts:
        return None
    return LoopEvidence(run.name, run.record.commit, tuple(_watch(name, each) for name, each in sorted(counts.items())))


def _watch(replica: str, noted: dict[str, dict[str, float]]) -> LoopWatch:
    before, after = noted.get("before"), noted.get("after")
    if before is None or after is None or before["started"] != after["started"]:
        return LoopWatch(replica, None, None)
    return LoopWatch(replica, int(after["pings"] - before["pings"]), int(after["blocked"] - before["blocked"]))


def last_training(path: Path, shards: int) -> Known[Training]:
    """The environment's last training."""
    try:
        record = TrainingRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Missing(f"no training is recorded ({path.name} is missing): run `breakwater train`")
    except ValidationError as error:
        raise ExperimentError(f"{path} is no record of a training: {error.error_count()} fields are wrong") from error
    return Training(record.version, record.commit, shards, record.snapshots)
