"""What is shown while a run goes on: one line a second, one for each phase that is over, from new bytes alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.progress import Processors, Progress, Tail, followed
from loadtests.profiles import PROFILES, Course
from loadtests.record import Durability, Error, Kind, Recorder
from services.contracts.events import Event, EventLog

S = 1_000_000_000
MS = 1_000_000
CONSTANT = Course(PROFILES["normal"], 0, S)


class Run:
    """A run directory that grows as a test says."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "parts").mkdir()
        self.part = directory / "parts" / "writers.arrow"
        self.recorder = Recorder(self.part, 2)
        self.log = EventLog(directory / "events.jsonl")
        self.told: list[str] = []
        self.passed: list[str] = []
        self.processors = Processors()
        self.progress = Progress(
            directory, 20.0, CONSTANT, self.told.append, self.passed.append, processors=lambda: self.processors
        )

    def event(self, at_s: float, source: str, kind: str) -> None:
        self.log.append(Event(int(at_s * S), "c", source, None, kind, {}))

    def operations(self, begin_s: float, count: int, *, took_ms: float = 5.0, error: Error = Error.NONE) -> None:
        for number in range(count):
            due = int(begin_s * S) + number * 50 * MS
            self.recorder.add(
                op_id=number, kind=Kind.WRITE, shard=0, key=1, value=1, sched_ns=due, start_ns=due,
                end_ns=due + int(took_ms * MS), durability=Durability.OK, available=error is Error.NONE, error=error,
            )  # fmt: skip
        self.recorder.flush()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_each_phase_has_its_own_numbers(run: Run) -> None:
    run.event(100, "run", "load_started")
    run.operations(100, 20)
    run.progress.look(101 * S)
    run.event(102, "run", "undisturbed")
    run.progress.look(102 * S)
    run.operations(102, 40, took_ms=12)
    run.operations(102, 2, error=Error.TIMEOUT)
    run.operations(102, 3, error=Error.NOT_SENT)
    run.progress.look(104 * S)
    run.event(105, "fault", "proven")
    run.progress.look(105 * S)
    assert run.told[0] == "warm-up 1 s   20/s of 20/s   p99 5 ms   0 bad"
    assert run.told[2] == "baseline 2 s   21/s of 20/s   p99 12 ms   2 bad"
    assert run.passed == [
        "warm-up 2 s   10/s of 20/s   p99 5 ms   0 bad",
        "baseline 3 s   14/s of 20/s   p99 12 ms   2 bad",
    ]
    assert run.told[-1] == "fault 0 s"


def test_how_busy_the_machine_was_stands_beside_each_phase(run: Run) -> None:
    run.event(100, "run", "load_started")
    run.processors = Processors(idle=1000, stolen=50, total=3000)
    run.progress.look(100 * S)
    run.operations(100, 20)
    run.processors = Processors(idle=1050, stolen=50, total=3200)
    run.progress.look(101 * S)
    run.processors = Processors(idle=1050, stolen=90, total=3400)
    run.event(102, "run", "undisturbed")
    run.progress.look(102 * S)
    run.operations(102, 20)
    run.processors = Processors(idle=1050, stolen=91, total=3600)
    run.progress.look(103 * S)
    assert run.told[1].endswith("0 bad   cpu 75 %")
    assert run.passed[0].endswith("0 bad   cpu 88 %, 10 % stolen")
    assert run.told[-1].endswith("0 bad   cpu 100 %")


def test_the_kernel_tells_how_busy_its_processors_are() -> None:
    before = Processors.now()
    while before.total == Processors.now().total:
        pass
    assert Processors.now().since(before).startswith("   cpu ")
    assert not before.since(before)


def test_nothing_is_shown_before_the_load_started_and_nothing_breaks(run: Run, tmp_path: Path) -> None:
    run.progress.look(1 * S)
    assert run.told == []
    (tmp_path / "elsewhere").mkdir()
    Progress(tmp_path / "elsewhere", 1.0, CONSTANT, run.told.append, run.passed.append).look(1)
    assert run.told == []


def test_the_last_phase_is_told_when_the_run_is_over_however_it_ended(run: Run) -> None:
    def interrupted() -> None:
        with followed(run.progress):
            run.event(1, "run", "load_started")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(run.passed) == 1
    assert run.passed[0].startswith("warm-up ")


def test_half_a_batch_waits_for_its_end(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "whole.arrow", 1)
    for number in range(3):
        recorder.add(
            op_id=number, kind=Kind.READ, shard=0, key=0, value=0, sched_ns=1, start_ns=1, end_ns=2,
            durability=Durability.NONE, available=True, error=Error.NONE,
        )  # fmt: skip
        recorder.flush()
    recorder.close()
    content = (tmp_path / "whole.arrow").read_bytes()
    part = tmp_path / "part.arrow"
    tail, seen = Tail(part), []
    for end in (0, 10, len(content) // 2, len(content) // 2 + 60, len(content) - 20, len(content)):
        part.write_bytes(content[:end])
        seen += [batch.column("op_id").to_pylist() for batch in tail.batches()]
    assert seen == [[0], [1], [2]]
