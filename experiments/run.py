"""One run of a scenario: preflight, load, the Chaos Toolkit experiment, final reads, and everything kept on disk."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from experiments import history, probes
from experiments.commit import commit
from experiments.evidence import EVENTS_FILE, JOURNAL_FILE
from experiments.faults.written import read_faults
from experiments.logs import affected, collect_logs
from experiments.planning import LEAD_S, PreflightFailed, demand_leave, demand_model, slot_map_of, write_plan
from experiments.probes.final_reads import final_reads
from experiments.probes.loops import note_loops
from experiments.progress import Progress, Tell, followed
from experiments.record import Rates, RunRecord, ShardRecord, WallAnchor, Window, Windows
from experiments.scenario import Given, Scenario
from infra.environment import Environment, EnvironmentFault, FaultRefused
from infra.stack import open_environment, topology_of
from infra.versions import UNKNOWN, of_package
from loadtests import launch
from loadtests.plan import LoadPlan
from loadtests.plan import Rates as LoadRates
from loadtests.profiles import ProfileName
from services.contracts.events import Event, EventLog, monotonic_clock_id, read_events
from services.contracts.slots import SlotMap

NS: Final = 1_000_000_000
COLD_LEAD_S: Final = 20
"""Where load begins with the fault, Chaos Toolkit starts first and asks every member whether it is healthy."""
SLACK_S: Final = 150
"""Beyond the scenario's own phases: a slow election, the old primary's rewind, Chaos Toolkit's start."""
LOAD_END_S: Final = 20.0
"""Load processes notice the stop file within a second and then wait for what is in flight."""
INTERRUPT_S: Final = 20.0
HEALTHY_S: Final = 90.0
"""An earlier fault's last effects (a member rejoining, a standby entering the quorum) take 2 or 3 loops of 5 s; the H2O
cloud and Mage, which `up` does not wait for, up to a minute on a crowded machine."""
POLL_S: Final = 0.1
CLOCK_STEP_S: Final = 0.1
"""A clock that NTP only slews, by 0.05 %, moves by 0.09 s in the longest preflight."""
MIN_FREE_BYTES: Final = 500 * 1024**2
LATEST: Final = "latest"
ENV: Final = "/usr/bin/env"
SETPRIV: Final = "/usr/bin/setpriv"
FLOCK: Final = "/usr/bin/flock"
SHELL: Final = "/bin/sh"
"""Of coreutils, util-linux and dash, which every Debian has."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to run. `out` is the directory that holds run directories; `rate` is of predictions, all others in scale.

    Without it the scenario's rates hold. Of a load test the variant is the profile.
    """

    environment: str
    scenario: Scenario
    variant: str
    seed: int
    out: Path
    rate: float | None = None

    @property
    def is_load_test(self) -> bool:
        return self.scenario.breakwater.faults is None

    @property
    def profile(self) -> ProfileName:
        return cast(ProfileName, self.variant) if self.is_load_test else "normal"

    @property
    def lasts_s(self) -> float:
        """How long load goes on at most; a load test's is as long as it is."""
        load = self.scenario.breakwater.load
        return load.baseline_s if self.is_load_test else load.warm_up_s + load.longest_s + SLACK_S


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that has all but its experiment, which may begin."""

    directory: Path
    record: RunRecord
    environment: Environment


def run(order: Order, tell: Tell = lambda _: None, passed: Tell = lambda _: None) -> Path:
    """Carry out one run and return its directory, complete but not judged.

    `tell` gets a line with the present numbers each second, `passed` one line for each phase that is over.
    Raises as `recorded` does.
    """
    with recorded(order, tell, passed) as begun:
        _experiment(order, begun.directory, begun.record, begun.environment.experiment_lock())
    return begun.directory


@contextlib.contextmanager
def recorded(order: Order, tell: Tell = lambda _: None, passed: Tell = lambda _: None) -> Iterator[Begun]:
    """Everything of a run but its experiment, which the caller carries out inside; `run` says what is told.

    Raises PreflightFailed before anything was touched. An interruption ends load, heals the environment, keeps what
    was recorded (`completed` false) and is raised again.
    """
    environment = open_environment(order.environment)
    slot_map = _preflight(order, environment)
    directory = _make_directory(order)
    record = _first_record(order, environment)
    record.write(directory)
    (directory / "scenario.json").write_text(json.dumps(order.scenario.document(), indent=2))
    topology = topology_of(order.environment)
    (directory / "topology.json").write_text(json.dumps(topology.model_dump(mode="json"), indent=2))
    events = EventLog(directory / EVENTS_FILE)
    load = order.scenario.breakwater.load
    plan_path = write_plan(
        environment,
        slot_map,
        directory,
        name=order.environment,
        run_tag=int(record.run_id, 16),
        seed=order.seed,
        rates=LoadRates(**record.rates.model_dump()),
        lasts_s=order.lasts_s,
        flights_per_shard=load.flights_per_shard,
        lead_s=LEAD_S if load.begins == "before-fault" else COLD_LEAD_S,
        profile=order.profile,
        write_deadline_ms=load.write_deadline_ms,
        repeat_writes=load.repeat_writes,
    )
    plan = LoadPlan.load(plan_path)
    if order.is_load_test:
        record = record.model_copy(update={"profile": order.profile, "load": (plan.start_ns, plan.end_ns)})
        record.write(directory)
    completed = False
    tell("load starts")
    progress = Progress(directory, record.rates.total(len(record.shards)), plan.course, tell, passed)
    try:
        with followed(progress), _processes(order.scenario, plan_path, directory), _healed(environment):
            if load.begins == "before-fault":
                time.sleep(max(0.0, (plan.start_ns - time.monotonic_ns()) / NS))
                events.append(Event.now("run", "load_test_started" if order.is_load_test else "load_started"))
                time.sleep(load.warm_up_s)
            note_loops(environment, events, "before")
            yield Begun(directory, record, environment)
            note_loops(environment, events, "after")
            plan.stop_file.touch()
        tell("final reads")
        events.append(Event.now("run", "final_reads"))
        final_reads(plan.shards, plan.run_tag, plan.write_event_time, directory)
        completed = True
    except KeyboardInterrupt as error:
        error.add_note(
            f"{directory} holds what was recorded until then and judges as unknown; faults were undone on the way out, "
            f"`breakwater heal {order.environment}` undoes whatever is left"
        )
        raise
    finally:
        events.append(Event.now("run", "finished"))
        events.close()
        notes = _collect(environment, directory, record)
        history.merge(directory)
        final = _last_record(directory, record, completed)
        told = [event for event in read_events(directory / EVENTS_FILE) if event.source in {"run", "fault"}]
        logs, without = _logs(environment, affected(final, told))
        final = final.model_copy(update={"notes": (*notes, *without)})
        final.write(directory)
        collect_logs(directory, final, told, logs)


def _preflight(order: Order, environment: Environment) -> SlotMap:
    """Everything that must be true before the first packet of load; returns the slot map in force."""
    began = WallAnchor.now()
    topology = topology_of(order.environment)
    order.scenario.promises_of(order.variant)
    demand_faults(order, environment)
    try:
        environment.wait_ready(timeout_s=HEALTHY_S)
    except EnvironmentFault as error:
        raise PreflightFailed(f"{error}; nothing was done") from error
    if topology.postgres.patroni.synchronous == "quorum":
        _wait_redundant(order, environment)
    demand_model(environment, order.environment)
    try:
        order.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PreflightFailed(f"{order.out} cannot be made: {error.strerror}; choose another --out") from error
    if not os.access(order.out, os.W_OK | os.X_OK):
        raise PreflightFailed(f"{order.out} cannot be written to; choose another --out")
    disk = os.statvfs(order.out)
    if disk.f_bavail * disk.f_frsize < MIN_FREE_BYTES:
        raise PreflightFailed(f"{order.out} has less than {MIN_FREE_BYTES // 1024**2} MB free; nothing was done")
    found = slot_map_of(environment, order.environment)
    _demand_unset_clock(began, WallAnchor.now())
    return found


def demand_faults(order: Order, environment: Environment) -> None:
    """PreflightFailed when the variant's faults may not act on their components here, or cannot be done."""
    faults = order.scenario.breakwater.faults
    if faults is None:
        demand_leave(topology_of(order.environment), order.environment)
        return
    try:
        for component in faults.components:
            environment.admit_faults(component)
    except FaultRefused as error:
        raise PreflightFailed(f"{error}; nothing was done") from error
    missing = {*faults.capabilities, *faults.variants.get(order.variant, ())} - environment.capabilities()
    if missing:
        raise PreflightFailed(f"{order.environment} cannot {' or '.join(sorted(missing))}; nothing was done")


def _demand_unset_clock(before: WallAnchor, after: WallAnchor) -> None:
    """PreflightFailed when the wall clock was set meanwhile, as after a sleep of the machine or by NTP's first answers.

    Durations are monotonic and do not mind. What standbys say of their age, and dates, go by the wall clock. That it is
    right is not asked: all of a local environment shares it.
    """
    stepped_s = (after.unix_ns - before.unix_ns_at(after.monotonic_ns)) / NS
    if abs(stepped_s) > CLOCK_STEP_S:
        raise PreflightFailed(
            f"the wall clock was set by {stepped_s:+.1f} s during preflight; wait until nothing sets it any more "
            "(`timedatectl`); nothing was done"
        )


def _wait_redundant(order: Order, environment: Environment) -> None:
    """A single fault is promised to be survived: each primary must have all of its standbys in the quorum before it."""
    end = time.monotonic() + HEALTHY_S
    for shard in environment.shards():
        needed = len(shard.hosts) - 1
        while (listed := len(environment.shard_state(shard.shard).synchronous)) < needed:
            if time.monotonic() > end:
                raise PreflightFailed(
                    f"shard {shard.shard} has {listed} of {needed} synchronous replicas after {HEALTHY_S:.0f} s, so it "
                    f"cannot lose its primary; see `breakwater status {order.environment}`; nothing was done"
                )
            time.sleep(POLL_S)


def _make_directory(order: Order) -> Path:
    """A new directory, never an old one; `latest` points at it."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"{stamp}-{order.scenario.breakwater.id}-{order.variant}-seed{order.seed}"
    for directory in (order.out / f"{name}{suffix}" for suffix in _suffixes()):
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            continue
        break
    (directory / history.PARTS_DIR).mkdir()
    (directory / "logs").mkdir()
    latest = order.out / LATEST
    fresh = order.out / f".{LATEST}.{os.getpid()}"
    fresh.symlink_to(directory.name)
    fresh.replace(latest)
    return directory


def _suffixes() -> Iterator[str]:
    yield ""
    yield from (f".{number}" for number in itertools.count(2))


def _first_record(order: Order, environment: Environment) -> RunRecord:
    members = tuple(member.name for member in environment.members())
    shards = tuple(
        ShardRecord(shard=shard.shard, members=tuple(host.name for host in shard.hosts))
        for shard in environment.shards()
    )
    rates = order.scenario.breakwater.load.rates
    if order.rate is not None:
        scale = order.rate / rates.predict
        rates = Rates(**{name: value * scale for name, value in rates.model_dump().items()})
    return RunRecord(
        run_id=secrets.token_hex(8),
        environment=order.environment,
        scenario=order.scenario.breakwater.id,
        variant=order.variant,
        seed=order.seed,
        clock_id=monotonic_clock_id(),
        wall_anchor=WallAnchor.now(),
        commit=commit(),
        versions=_versions(environment),
        members=members,
        shards=shards,
        rates=rates,
        windows=Windows(),
        fault=None,
        completed=False,
    )


def _versions(environment: Environment) -> dict[str, str]:
    """Of what runs the experiment, then of the platform; one that cannot be told says why, and fails no run."""
    own = {
        "breakwater": of_package("breakwater"),
        "Python": platform.python_version(),
        "Chaos Toolkit": of_package("chaostoolkit"),
        "Locust": of_package("locust"),
    }
    try:
        return {**own, **environment.versions()}
    except EnvironmentFault as error:
        return {**own, "platform": f"{UNKNOWN}: {error}"}


def ends_with_us(number: signal.Signals) -> tuple[str, ...]:
    """Words before a command that make the kernel signal it when this process dies, however it dies.

    Otherwise load would run on, and a fault could strike, with nobody left to judge or undo it. A shell starts what it
    puts into the background with SIGINT ignored, which children would inherit. The kernel tells nothing of a death
    before it was asked to: whose parent is another by then does not begin.
    """
    name = number.name.removeprefix("SIG")
    still_ours = (SHELL, "-c", 'test "$PPID" = "$0" && exec "$@"', str(os.getpid()))
    return ENV, f"--default-signal={name}", SETPRIV, "--pdeathsig", name, *still_ours


@contextlib.contextmanager
def _processes(scenario: Scenario, plan_path: Path, directory: Path) -> Iterator[None]:
    """Load and probes as processes of their own; all of them are gone when this ends, whatever happened."""
    started: list[subprocess.Popen[bytes]] = []
    environment = {**os.environ, **launch.environment(plan_path)}
    try:
        for command in [*launch.commands(plan_path), *probes.commands(scenario.breakwater.probes, plan_path)]:
            name = next(word.rsplit(".", 1)[-1] for word in command if not word.startswith("-") and word != command[0])
            with (directory / "logs" / f"{name}.log").open("wb") as log:
                started.append(
                    subprocess.Popen(
                        [*ends_with_us(signal.SIGTERM), *command],
                        env=environment,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
        (directory / "processes.json").write_text(
            json.dumps([{"pid": process.pid, "command": process.args} for process in started])
        )
        yield
    finally:
        LoadPlan.load(plan_path).stop_file.touch()
        end = time.monotonic() + LOAD_END_S
        for process in started:
            try:
                process.wait(timeout=max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def _healed(environment: Environment) -> Iterator[None]:
    """Whatever ends the run, no fault outlives it: Chaos Toolkit's rollbacks do not run when it is killed."""
    try:
        yield
    finally:
        environment.heal()


def _experiment(order: Order, directory: Path, record: RunRecord, lock: Path) -> None:
    """Run Chaos Toolkit on the scenario. Its exit code is not looked at: the journal is judged.

    It holds `lock` itself: should this process be killed, nobody heals while an action still ends.
    """
    document: dict[str, Any] = order.scenario.document()
    document["controls"] = []  # of `chaos run` alone: this process does what they would
    profile = order.scenario.breakwater.load
    given = Given(
        environment=order.environment,
        run_dir=str(directory),
        seed=order.seed,
        shard=record.shards[order.seed % len(record.shards)].shard,
        baseline_s=profile.baseline_s,
        settle_s=profile.settle_s,
        fault_s=profile.fault_s,
        recovery_s=profile.recovery_s,
    )
    document["configuration"] = {
        **document.get("configuration", {}),
        **given,
        **order.scenario.breakwater.variants[order.variant],
    }
    source = directory / "experiment.json"
    source.write_text(json.dumps(document, indent=2))
    command = [
        *ends_with_us(signal.SIGINT),
        *[FLOCK, "--no-fork", "--nonblock", str(lock)],
        *[sys.executable, "-m", "chaostoolkit", "--no-version-check"],
        *["--settings", str(directory / "no-settings.yaml"), "--log-file", str(directory / "logs" / "chaos.log")],
        *["run", "--rollback-strategy", "always", "--journal-path", str(directory / JOURNAL_FILE), str(source)],
    ]
    with (directory / "logs" / "chaos-console.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            process.wait(timeout=profile.longest_s + SLACK_S)
        except subprocess.TimeoutExpired:
            process.kill()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(timeout=INTERRUPT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
            process.wait()


def _collect(environment: Environment, directory: Path, record: RunRecord) -> tuple[str, ...]:
    """Add what the platform's own observers wrote down since the run began; returns whose times cannot be compared.

    An observer on another machine reads another clock: when its events were, by the run's, nobody knows.
    """
    log = EventLog(directory / EVENTS_FILE)
    notes: list[str] = []
    try:
        files = environment.event_files()
    except EnvironmentFault as error:  # what clients saw is judged all the same
        files = ()
        notes.append(f"the platform's own observers are not heard: {error}")
    for path in files:
        events = list(read_events(path)) if path.exists() else []
        for event in events:
            if event.clock_id == record.clock_id and event.t_ns >= record.wall_anchor.monotonic_ns:
                log.append(event)
        if events and all(event.clock_id != record.clock_id for event in events):
            notes.append(f"{path.name} is left out: its times are of {events[-1].clock_id}, not of the run's clock")
    log.close()
    return tuple(notes)


def _logs(environment: Environment, members: Sequence[str]) -> tuple[dict[str, tuple[Path, ...]], list[str]]:
    """Each member's log files, and why some have none: a run is judged without them."""
    found: dict[str, tuple[Path, ...]] = {}
    without: list[str] = []
    for member in members:
        try:
            found[member] = environment.logs(member)
        except EnvironmentFault as error:
            without.append(f"no logs of {member}: {error}")
    return found, without


def _last_record(directory: Path, record: RunRecord, completed: bool) -> RunRecord:
    marks = {e.kind: e.t_ns for e in read_events(directory / EVENTS_FILE) if e.source in {"run", "fault"}}
    faults = read_faults(directory)
    fault = faults[0] if faults else None
    struck = fault.t_ns if fault else None
    lifted = marks.get("lifted", marks.get("started"))
    ended = marks.get("recovered", marks.get("finished"))

    def window(start: int | None, end: int | None) -> tuple[int, int] | None:
        return None if start is None or end is None else (start, end)

    def calm(start: int | None) -> tuple[int, int] | None:
        """Until the fault; where load began with the fault, calm came after it, and lasted to the end."""
        return window(start, ended if start is not None and struck is not None and start > struck else struck)

    windows = Windows(
        undisturbed=_loaded(record, ended) or calm(marks.get("undisturbed")),
        baseline=calm(marks.get("baseline")),
        fault=window(struck, lifted),
        recovery=window(lifted, ended),
    )
    return record.model_copy(update={"windows": windows, "fault": fault, "also": faults[1:], "completed": completed})


def _loaded(record: RunRecord, ended: int | None) -> Window | None:
    """All of a load test's load; what of it there was when it was cut off."""
    if record.load is None or ended is None or ended <= record.load[0]:
        return None
    return record.load[0], min(record.load[1], ended)
