"""A load test, judged: rates that changed as planned are kept to, what was bad or lost shows, no fault is missed."""

from __future__ import annotations

import io
import json
import random
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from breakwater.verification import load_test
from experiments import run as runs
from experiments.checkers.finding import Verdict
from experiments.evidence import EVENTS_FILE, JOURNAL_FILE
from experiments.history import PARTS_DIR, merge, write_final
from experiments.planning import PreflightFailed, demand_leave
from experiments.progress import Progress
from experiments.record import Rates, RunRecord, ShardRecord, WallAnchor, Windows
from experiments.report import terminal
from experiments.report.page import render
from experiments.scenario import SCENARIO_FILE
from experiments.verdict import Judgement, judge_run
from infra.topology import Topology
from loadtests.arrivals import poisson, uniform
from loadtests.profiles import ProfileName
from loadtests.record import NO_SHARD, Durability, Error, Kind, recording
from services.contracts.events import Event, EventLog

S = 1_000_000_000
MS = 1_000_000
START, SECONDS = 100 * S, 60
RATES = Rates(predict=40, write=20, write_api=10, read=10)


def record(profile: ProfileName, **changes: Any) -> RunRecord:
    planned = RunRecord(
        run_id="1f",
        environment="unit",
        scenario="load",
        variant=profile,
        seed=7,
        clock_id="c",
        wall_anchor=WallAnchor(monotonic_ns=START, unix_ns=1_795_257_067 * S),
        commit=None,
        members=("shard-0-0", "api-0"),
        shards=(ShardRecord(shard=0, members=("shard-0-0",)),),
        rates=RATES,
        profile=profile,
        load=(START, START + SECONDS * S),
        windows=Windows(),
        fault=None,
        completed=True,
    )
    return planned.model_copy(update=changes)


def carried_out(
    directory: Path, profile: ProfileName, *, silent_from_s: float = SECONDS, bad: int = 0, forgotten: int = 0
) -> Judgement:
    """A run whose clients did as the profile says, but for what a test wants otherwise."""
    (directory / PARTS_DIR).mkdir()
    run = record(profile)
    chance = random.Random(7)  # noqa: S311 - repeatable, no secret
    kept: list[tuple[int, int]] = []
    streams = [
        (Kind.PREDICT, NO_SHARD, poisson(RATES.predict, "p")),
        (Kind.WRITE, 0, uniform(RATES.write, "w")),
        (Kind.WRITE_API, 0, uniform(RATES.write_api, "a")),
        (Kind.READ, 0, poisson(RATES.read, "r")),
    ]
    for process, (kind, shard, arrivals) in enumerate(streams):
        with recording(directory / PARTS_DIR / f"{kind}.arrow", process) as recorder:
            inside = takewhile(lambda offset: offset < SECONDS * S, run.course.shaped(arrivals))
            for number, offset in enumerate(inside):
                writing = kind in (Kind.WRITE, Kind.WRITE_API)
                if kind is Kind.WRITE and offset > silent_from_s * S:
                    continue
                failing = kind is Kind.PREDICT and number < bad
                if writing:
                    kept.append(((process << 48) | number, number))
                recorder.add(
                    op_id=(process << 48) | number, kind=kind, shard=shard, key=(process << 48) | number, value=number,
                    sched_ns=START + offset, start_ns=START + offset, end_ns=START + offset + chance.randint(1, 9) * MS,
                    durability=Durability.OK if writing else Durability.NONE, available=not failing,
                    error=Error.HTTP_5XX if failing else Error.NONE,
                )  # fmt: skip
    merge(directory)
    write_final(directory, {0: kept[forgotten:]})
    log = EventLog(directory / EVENTS_FILE)
    for at_s, kind_of in ((0, "load_test_started"), (SECONDS, "load_test_ended"), (SECONDS + 3, "finished")):
        log.append(Event(START + at_s * S, "c", "run", None, kind_of))
    log.close()
    activity = {"activity": {"name": "load to its end"}, "status": "succeeded"}
    met = {"steady_state_met": True}
    journal = {"status": "completed", "run": [activity], "steady_states": {"before": met, "after": met}}
    (directory / JOURNAL_FILE).write_text(json.dumps(journal))
    (directory / SCENARIO_FILE).write_text(json.dumps(load_test(profile, SECONDS).document()))
    runs._last_record(directory, run, completed=True).write(directory)
    return judge_run(directory)


def said(judgement: Judgement) -> dict[str, str]:
    return {judged.promise.id: judged.finding.verdict.value for judged in judgement.judged}


@pytest.mark.parametrize("profile", ["normal", "peak", "ramp", "soak"])
def test_a_load_that_was_sent_as_planned_and_answered_is_true(tmp_path: Path, profile: ProfileName) -> None:
    judgement = carried_out(tmp_path, profile)
    assert set(said(judgement).values()) == {"true"}, said(judgement)
    kept = judgement.of("load_kept_schedule")
    assert kept is not None
    assert kept.value == 100


def test_the_load_is_shown_stretch_by_stretch(tmp_path: Path) -> None:
    answered = carried_out(tmp_path, "peak").of("answered_in_time")
    assert answered is not None
    (shown,) = answered.evidence
    assert len(shown.rows) == 10
    scheduled, sent = ([float(str(row[at]).removesuffix("/s")) for row in shown.rows] for at in (1, 2))
    assert (scheduled[0], scheduled[4], scheduled[9]) == (80, 240, 80)
    assert sent == pytest.approx(scheduled, rel=0.15)
    console = Console(file=io.StringIO(), width=120)
    terminal.exhibit(console, shown)
    terminal.show(console, carried_out_again := judge_run(tmp_path))
    assert carried_out_again.verdict is Verdict.TRUE


def test_its_report_names_the_profile_and_no_fault(tmp_path: Path) -> None:
    page = render(tmp_path, carried_out(tmp_path, "peak")).read_text()
    assert "No fault was done" in page
    assert "three times the rates" in page
    assert "the fault was held" not in page


@pytest.mark.parametrize("profile", ["normal", "peak", "ramp"])
def test_a_writer_that_fell_silent_makes_it_unknown(tmp_path: Path, profile: ProfileName) -> None:
    """Rows that nobody wrote are missed by what the profile had planned for that time, not by a constant rate."""
    judgement = carried_out(tmp_path, profile, silent_from_s=SECONDS - 3)
    assert said(judgement)["load-kept"] == "unknown"
    assert judgement.verdict is Verdict.UNKNOWN


def test_bad_answers_beyond_one_in_a_thousand_break_it(tmp_path: Path) -> None:
    judgement = carried_out(tmp_path, "normal", bad=10)
    assert said(judgement)["answered"] == "false"
    assert judgement.exit_code == 1


def test_an_acknowledged_write_that_is_gone_breaks_it(tmp_path: Path) -> None:
    judgement = carried_out(tmp_path, "normal", forgotten=1)
    assert said(judgement)["lost-writes"] == "false"


def test_what_was_cut_off_is_judged_up_to_there_and_unknown(tmp_path: Path) -> None:
    log = EventLog(tmp_path / EVENTS_FILE)
    log.append(Event(START + 20 * S, "c", "run", None, "finished"))
    log.close()
    cut = runs._last_record(tmp_path, record("ramp"), completed=False)
    assert cut.windows.whole == (START, START + 20 * S)
    assert cut.scheduled(40, (START, START + 20 * S)) == pytest.approx(40 * 60 * 2 * (1 / 3) ** 2 / 2)


def test_a_scenario_with_a_fault_keeps_its_constant_rates(tmp_path: Path) -> None:
    usual = record("normal", load=None)
    assert usual.scheduled(40, (START, START + 7 * S)) == 280


def test_the_order_of_a_load_test_lasts_as_long_as_it_is_told() -> None:
    order = runs.Order("unit", load_test("ramp", 45), "ramp", 7, Path())
    assert (order.is_load_test, order.profile, order.lasts_s) == (True, "ramp", 45)


def test_progress_compares_with_what_the_profile_had_planned_so_far(tmp_path: Path) -> None:
    (tmp_path / PARTS_DIR).mkdir()
    log = EventLog(tmp_path / EVENTS_FILE)
    log.append(Event(START, "c", "run", None, "load_test_started"))
    log.close()
    told: list[str] = []
    with recording(tmp_path / PARTS_DIR / "w.arrow", 2) as recorder:
        recorder.add(
            op_id=1, kind=Kind.READ, shard=0, key=0, value=0, sched_ns=START + S, start_ns=START + S,
            end_ns=START + S + MS, durability=Durability.NONE, available=True, error=Error.NONE,
        )  # fmt: skip
        recorder.flush()
        Progress(tmp_path, 60, record("ramp").course, told.append, told.append).look(START + 30 * S)
    assert "of 30/s" in told[-1]
    assert told[-1].startswith("load 30 s")


def test_the_end_of_the_load_is_when_it_was_planned_and_all_of_it_is_in_its_line(tmp_path: Path) -> None:
    judgement = carried_out(tmp_path, "ramp")
    (tmp_path / EVENTS_FILE).unlink()
    passed: list[str] = []
    progress = Progress(tmp_path, RATES.total(1), record("ramp").course, lambda _: None, passed.append)
    for at_s, kind in ((0, "load_test_started"), (SECONDS, "load_test_ended")):
        log = EventLog(tmp_path / EVENTS_FILE)
        log.append(Event(START + at_s * S, "c", "run", None, kind))
        log.close()
        progress.look(START + (SECONDS + 2) * S)
    kept = judgement.of("load_kept_schedule")
    assert kept is not None
    assert passed == [line for line in passed if line.startswith(f"load 60 s   {kept.n / SECONDS:.0f}/s of 80/s")]
    assert len(passed) == 1


def test_where_no_experiments_are_allowed_no_load_is_either() -> None:
    with pytest.raises(PreflightFailed, match="allows no experiments"):
        demand_leave(Topology(environment="production", runtime="local"), "production")
