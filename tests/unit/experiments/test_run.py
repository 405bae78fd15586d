"""The parts of a run that need no servers: its directory, its first and its last record."""

from __future__ import annotations

import datetime
import signal
import subprocess
import sys
import time
import typing
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments import run as runs
from experiments.errors import ExperimentError
from experiments.evidence import EVENTS_FILE
from experiments.faults.written import FAULT_FILE, read_faults, record_fault
from experiments.planning import PreflightFailed
from experiments.record import RunRecord, WallAnchor
from experiments.scenario import Scenario
from infra.environment import EnvironmentFault, FaultProof, FaultRefused, PodId, ProcessId
from infra.local import rolling
from infra.topology import Component
from services.contracts.events import Event, EventLog, monotonic_clock_id, read_events
from tests.unit.experiments.synthetic_run import SCENARIO

S = 1_000_000_000


class Idle:
    """An environment of two shards that does nothing."""

    def members(self, component: str | None = None) -> tuple[Any, ...]:
        return tuple(SimpleNamespace(name=name) for name in ("etcd-0", "shard-0-0", "shard-1-0"))

    def versions(self) -> dict[str, str]:
        return {"etcd": "3.4.23", "Redis": "not known: it does not say"}

    def shards(self) -> tuple[Any, ...]:
        return tuple(
            SimpleNamespace(shard=shard, hosts=(SimpleNamespace(name=f"shard-{shard}-0"),)) for shard in (0, 1)
        )


def order(out: Path, **options: Any) -> runs.Order:
    return runs.Order("unit", Scenario.read(SCENARIO), "server-killed", 7, out, **options)


def first(out: Path, **options: Any) -> RunRecord:
    return runs._first_record(order(out, **options), Idle())  # type: ignore[arg-type]


def note(directory: Path, t_s: int, source: str, kind: str) -> None:
    log = EventLog(directory / EVENTS_FILE)
    log.append(Event(t_s * S, monotonic_clock_id(), source, None, kind))
    log.close()


def strike(directory: Path, t_s: int) -> None:
    victim = ProcessId(1, 2, "postgres")
    proof = FaultProof("shard-1-0", "server", "SIGKILL", True, t_s * S, (victim,), True, "seen by a test")
    record_fault(directory, proof, component="postgres/shard-1", shard=1, old_timeline=3)


# The directory.


def test_a_directory_says_when_and_what_and_latest_points_at_it(tmp_path: Path) -> None:
    directory = runs._make_directory(order(tmp_path / "runs"))
    assert directory.name.endswith("-S-01-server-killed-seed7")
    assert directory.name.startswith(datetime.datetime.now(datetime.UTC).strftime("%Y%m"))
    assert (tmp_path / "runs" / "latest").resolve() == directory.resolve()
    assert (directory / "parts").is_dir()
    assert (directory / "logs").is_dir()


def test_no_directory_is_ever_used_twice(tmp_path: Path) -> None:
    made = [runs._make_directory(order(tmp_path)) for _ in range(5)]
    assert len(set(made)) == 5
    assert (tmp_path / "latest").resolve() == made[-1].resolve()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*(path.name for path in made), "latest"])


def test_what_was_in_a_directory_stays(tmp_path: Path) -> None:
    before = runs._make_directory(order(tmp_path))
    (before / "verdict.json").write_text("kept")
    runs._make_directory(order(tmp_path))
    assert (before / "verdict.json").read_text() == "kept"


# The preflight.


class Faults(Idle):
    """Allows faults on everything but `forbidden`."""

    def __init__(self, forbidden: str) -> None:
        self._forbidden = forbidden

    def admit_faults(self, component: str) -> None:
        if component == self._forbidden:
            raise FaultRefused(f"faults on {component} are not allowed")

    def capabilities(self) -> frozenset[str]:
        return frozenset({"stop", "restart"})


def test_a_rolling_restart_is_refused_where_any_component_may_not_be_touched(tmp_path: Path) -> None:
    everything = runs.Order("unit", Scenario.read(SCENARIO.with_name("s06.yaml")), "everything", 7, tmp_path)
    components = typing.get_args(Component)
    assert {*rolling.ORDER, "mage"} == set(components)
    for component in components:
        with pytest.raises(PreflightFailed, match=f"faults on {component} are not allowed; nothing was done"):
            runs.demand_faults(everything, Faults(component))  # type: ignore[arg-type]
    runs.demand_faults(everything, Faults("nothing"))  # type: ignore[arg-type]


def test_a_clock_that_is_set_meanwhile_is_noticed() -> None:
    before = WallAnchor.now()
    later = before.model_copy(update={"monotonic_ns": before.monotonic_ns + 90 * S})
    slewed = later.model_copy(update={"unix_ns": before.unix_ns_at(later.monotonic_ns) + S // 20})
    runs._demand_unset_clock(before, slewed)
    runs._demand_unset_clock(before, WallAnchor.now())
    for step_ns, said in ((3 * S, r"set by \+3\.0 s"), (-S // 5, r"set by -0\.2 s")):
        with pytest.raises(PreflightFailed, match=said):
            runs._demand_unset_clock(before, slewed.model_copy(update={"unix_ns": slewed.unix_ns - S // 20 + step_ns}))


# The first record.


def test_without_a_rate_the_scenarios_rates_hold(tmp_path: Path) -> None:
    assert first(tmp_path).rates == Scenario.read(SCENARIO).breakwater.load.rates


def test_a_rate_scales_everything_alike(tmp_path: Path) -> None:
    given = Scenario.read(SCENARIO).breakwater.load.rates
    scaled = first(tmp_path, rate=given.predict / 4).rates
    for name, value in given.model_dump().items():
        assert getattr(scaled, name) == pytest.approx(value / 4)


def test_the_first_record_names_the_members_and_claims_nothing(tmp_path: Path) -> None:
    record = first(tmp_path)
    assert record.members == ("etcd-0", "shard-0-0", "shard-1-0")
    assert [(shard.shard, shard.members) for shard in record.shards] == [(0, ("shard-0-0",)), (1, ("shard-1-0",))]
    assert record.fault is None
    assert record.windows.whole is None
    assert not record.completed
    assert len(record.run_id) == 16
    assert first(tmp_path).run_id != record.run_id


def test_a_run_knows_what_ran_it_and_what_it_ran_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = first(tmp_path).versions
    assert found == {
        "breakwater": version("breakwater"),
        "Python": ".".join(map(str, sys.version_info[:3])),
        "Chaos Toolkit": version("chaostoolkit"),
        "Locust": version("locust"),
        "etcd": "3.4.23",
        "Redis": "not known: it does not say",
    }

    def refuse(_: object) -> dict[str, str]:
        raise EnvironmentFault("the cluster does not answer")

    monkeypatch.setattr(Idle, "versions", refuse)
    silent = first(tmp_path).versions
    assert silent["platform"] == "not known: the cluster does not answer"
    assert silent["Locust"] == version("locust")


# The last record.


def test_windows_run_from_phase_to_phase(tmp_path: Path) -> None:
    note(tmp_path, 5, "run", "undisturbed")
    note(tmp_path, 10, "run", "baseline")
    strike(tmp_path, 40)
    note(tmp_path, 60, "fault", "started")
    note(tmp_path, 90, "run", "recovered")
    note(tmp_path, 95, "run", "finished")
    record = runs._last_record(tmp_path, first(tmp_path), True)
    assert record.windows.undisturbed == (5 * S, 40 * S)
    assert record.windows.baseline == (10 * S, 40 * S)
    assert record.windows.fault == (40 * S, 60 * S)
    assert record.windows.recovery == (60 * S, 90 * S)
    assert record.completed
    assert record.fault is not None
    assert record.fault.member == "shard-1-0"


def test_where_load_begins_with_the_fault_calm_comes_after_it(tmp_path: Path) -> None:
    strike(tmp_path, 10)
    note(tmp_path, 18, "fault", "lifted")
    note(tmp_path, 19, "run", "undisturbed")
    note(tmp_path, 22, "run", "baseline")
    note(tmp_path, 40, "run", "recovered")
    windows = runs._last_record(tmp_path, first(tmp_path), True).windows
    assert windows.fault == (10 * S, 18 * S)
    assert windows.undisturbed == (19 * S, 40 * S)
    assert windows.baseline == (22 * S, 40 * S)
    assert windows.whole == (10 * S, 40 * S)


def test_a_run_cut_off_in_recovery_ends_with_its_end(tmp_path: Path) -> None:
    note(tmp_path, 10, "run", "baseline")
    strike(tmp_path, 40)
    note(tmp_path, 60, "fault", "started")
    note(tmp_path, 70, "run", "finished")
    record = runs._last_record(tmp_path, first(tmp_path), False)
    assert record.windows.recovery == (60 * S, 70 * S)
    assert not record.completed


def test_a_run_cut_off_in_the_fault_has_no_fault_window(tmp_path: Path) -> None:
    note(tmp_path, 10, "run", "baseline")
    strike(tmp_path, 40)
    note(tmp_path, 45, "run", "finished")
    windows = runs._last_record(tmp_path, first(tmp_path), False).windows
    assert windows.baseline == (10 * S, 40 * S)
    assert windows.fault is None
    assert windows.recovery is None


def test_a_run_without_a_fault_has_no_windows(tmp_path: Path) -> None:
    note(tmp_path, 10, "run", "baseline")
    note(tmp_path, 45, "run", "finished")
    record = runs._last_record(tmp_path, first(tmp_path), False)
    assert record.windows.whole is None
    assert record.fault is None


def test_marks_of_other_observers_are_no_phases(tmp_path: Path) -> None:
    note(tmp_path, 10, "run", "baseline")
    note(tmp_path, 11, "prober", "baseline")
    strike(tmp_path, 40)
    note(tmp_path, 50, "warden", "started")
    windows = runs._last_record(tmp_path, first(tmp_path), False).windows
    assert windows.baseline == (10 * S, 40 * S)
    assert windows.fault is None


def test_an_observer_on_another_machine_is_left_out_and_named(tmp_path: Path) -> None:
    record = first(tmp_path)
    now = record.wall_anchor.monotonic_ns

    def written(name: str, clock_id: str, t_ns: int) -> Path:
        log = EventLog(tmp_path / name)
        log.append(Event(t_ns, clock_id, "warden", name, "released"))
        log.close()
        return tmp_path / name

    files = (
        written("here.jsonl", record.clock_id, now + 1),
        written("before.jsonl", record.clock_id, now - 1),
        written("there.jsonl", "monotonic:elsewhere", now + 1),
        tmp_path / "none.jsonl",
    )
    heard = SimpleNamespace(event_files=lambda: files)
    notes = runs._collect(heard, tmp_path, record)
    assert notes == ("there.jsonl is left out: its times are of monotonic:elsewhere, not of the run's clock",)
    assert [event.member for event in read_events(tmp_path / EVENTS_FILE)] == ["here.jsonl"]


def test_a_platform_that_does_not_hand_out_what_it_saw_is_judged_by_its_clients(tmp_path: Path) -> None:
    def refuse(*_: object) -> tuple[Path, ...]:
        raise EnvironmentFault("the cluster does not answer")

    silent = SimpleNamespace(event_files=refuse, logs=refuse)
    (said,) = runs._collect(silent, tmp_path, first(tmp_path))
    assert said == "the platform's own observers are not heard: the cluster does not answer"
    found, without = runs._logs(silent, ["shard-0-0"])
    assert (found, without) == ({}, ["no logs of shard-0-0: the cluster does not answer"])


def test_a_pod_that_was_taken_away_is_named_in_the_record(tmp_path: Path) -> None:
    taken = PodId("shard-1-0", "uid")
    proof = FaultProof("shard-1-0", "member", "SIGKILL", True, S, (), True, "seen by a test", pod=taken)
    record_fault(tmp_path, proof, component="postgres/shard-1", shard=1, old_timeline=3)
    (found,) = read_faults(tmp_path)
    assert found.names_its_victim
    assert found.pod is not None
    assert (found.pod.name, found.pod.uid) == ("shard-1-0", "uid")
    assert not found.model_copy(update={"pod": None}).names_its_victim


def test_a_damaged_fault_file_is_one_clear_line(tmp_path: Path) -> None:
    note(tmp_path, 10, "run", "baseline")
    (tmp_path / FAULT_FILE).write_text('{"component": ')
    with pytest.raises(ExperimentError, match=r"fault\.json is damaged") as refused:
        runs._last_record(tmp_path, first(tmp_path), False)
    assert "\n" not in str(refused.value)


# What a run starts.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_a_run_starts_gets_a_signal_when_the_run_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    said = tmp_path / "said"
    child = (
        "import signal, sys, time\n"
        "def end(number, _): open(sys.argv[1], 'a').write(f'got {number}'); sys.exit()\n"
        f"assert signal.getsignal({number.value}) is not signal.SIG_IGN\n"
        f"signal.signal({number.value}, end); open(sys.argv[1], 'w').write('ready '); time.sleep(60)"
    )
    words = [sys.executable, "-c", child, str(said)]
    # In the background of a shell script SIGINT is ignored, and what is ignored is inherited.
    begin = (
        "import signal, subprocess; from experiments.run import ends_with_us; "
        "signal.signal(signal.SIGINT, signal.SIG_IGN); "
        f"subprocess.Popen([*ends_with_us(signal.Signals({number.value})), *{words!r}], start_new_session=True).wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", begin])
    try:
        _until(lambda: said.exists() and said.read_text() == "ready ")
    finally:
        parent.kill()
        parent.wait()
    _until(lambda: said.read_text() == f"ready got {number.value}")


def test_what_a_run_starts_does_not_begin_when_the_run_died_before_the_kernel_was_asked(tmp_path: Path) -> None:
    made = tmp_path / "made"
    words = [*runs.ends_with_us(signal.SIGTERM), sys.executable, "-c", f"open({str(made)!r}, 'w')"]
    assert subprocess.run(words, check=False).returncode == 0
    assert made.exists()
    made.unlink()
    # Its parent is the shell between, as it would be whoever adopts it.
    assert subprocess.run(["/bin/sh", "-c", '"$@"; exit $?', "sh", *words], check=False).returncode == 1
    assert not made.exists()


def _until(test: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not test():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
