"""What a run shows while it goes on: its phase, the rate achieved, p99 and bad operations, from what clients flushed.

Only new bytes are read, once a second: whoever watches must not cost what is measured. Beside the numbers stands how
busy the clients' machine was, and what of its processors its host gave to others: a slow answer may be the machine's.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from experiments.checkers.fault import NS_PER_MS, NS_PER_S
from experiments.evidence import EVENTS_FILE
from experiments.history import PARTS_DIR
from loadtests.profiles import Course
from loadtests.record import SCHEMA, Error
from services.contracts.events import Event

EVERY_S: Final = 1.0
STAT: Final = Path("/proc/stat")
PERCENT: Final = 100
WARM_UP: Final = "warm-up"
PHASES: Final = {
    ("run", "load_started"): WARM_UP,
    ("run", "load_test_started"): "load",
    ("run", "load_test_ended"): "final reads",
    ("run", "undisturbed"): "baseline",
    ("fault", "proven"): "fault",
    # these last, and are proven when they are over
    ("fault", "reloading"): "fault",
    ("fault", "restarting"): "fault",
    ("run", "recovery"): "recovery",
    ("run", "final_reads"): "final reads",
}
"""The event that begins each phase."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Processors:
    """What this machine's processors did since it started, in ticks of the kernel (proc(5), /proc/stat)."""

    idle: int = 0
    stolen: int = 0
    total: int = 0

    @classmethod
    def now(cls) -> Processors:
        user, nice, system, idle, waiting, irq, softirq, stolen = map(int, STAT.read_text().split()[1:9])
        return cls(idle + waiting, stolen, user + nice + system + idle + waiting + irq + softirq + stolen)

    def since(self, before: Processors) -> str:
        """`cpu 62 %`, with what the host took where it took any; nothing before the first tick."""
        ticks = self.total - before.total
        if ticks <= 0:
            return ""
        busy, stolen = ticks - (self.idle - before.idle), self.stolen - before.stolen
        taken = f", {PERCENT * stolen / ticks:.0f} % stolen" if PERCENT * stolen >= ticks else ""
        return f"   cpu {PERCENT * busy / ticks:.0f} %{taken}"


@dataclass(slots=True)
class Meter:
    """Numbers of one phase, to within a flush. Latencies count from the scheduled time, as the judge's do."""

    phase: str
    began_ns: int
    before: Processors
    sent: int = 0
    bad: int = 0
    latencies: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = field(default_factory=list)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch of operations: those that were not sent are neither good nor slow."""
        columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in ("sched_ns", "end_ns", "error")}
        sent = columns["error"] != int(Error.NOT_SENT)
        good = batch.column("available").to_numpy(zero_copy_only=False)
        self.sent += int(sent.sum())
        self.bad += int((sent & ~good).sum())
        self.latencies.append((columns["end_ns"] - columns["sched_ns"])[sent])

    def line(self, now_ns: int, scheduled: float, processors: Processors) -> str:
        """`baseline 12 s   338/s of 340/s   p99 11 ms   0 bad   cpu 62 %`; before the first flush only the phase."""
        seconds = (now_ns - self.began_ns) / NS_PER_S
        if not self.sent:
            return f"{self.phase} {seconds:.0f} s"
        p99_ms = float(np.percentile(np.concatenate(self.latencies), 99)) / NS_PER_MS
        rate = self.sent / seconds if seconds > 0 else 0.0
        numbers = f"{rate:,.0f}/s of {scheduled:,.0f}/s   p99 {p99_ms:.0f} ms   {self.bad:,} bad"
        return f"{self.phase} {seconds:.0f} s   {numbers}{processors.since(self.before)}"


class Tail:
    """The whole batches that were added to an Arrow stream since the last look; half of one waits for the next."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            reader = pa.BufferReader(stream.read())
        while True:
            begin = reader.tell()
            try:
                message = pa.ipc.read_message(reader)
            except (EOFError, pa.ArrowInvalid, OSError):
                return
            self._offset += reader.tell() - begin
            if message.type == "record batch":
                yield pa.ipc.read_record_batch(message, SCHEMA)


class Progress:
    """Follows one run directory. `tell` gets a line each second, `passed` one line for each phase that ended."""

    def __init__(
        self,
        run_dir: Path,
        rate: float,
        course: Course,
        tell: Tell,
        passed: Tell,
        *,
        processors: Callable[[], Processors] = Processors.now,
    ) -> None:
        """`rate`: operations a second of all streams together, which `course` changes over time."""
        self._run_dir = run_dir
        self._processors = processors
        self._rate, self._course = rate, course
        self._tell, self._passed = tell, passed
        self._tails: dict[Path, Tail] = {}
        self._events_read = 0
        self._meter: Meter | None = None

    def look(self, now_ns: int) -> None:
        """Take in what is new and say where the run stands."""
        for event in self._new_events():
            self._turn(event)
        if self._meter is None:
            return
        for path in sorted((self._run_dir / PARTS_DIR).glob("*.arrow")):
            for batch in self._tails.setdefault(path, Tail(path)).batches():
                self._meter.add(batch)
        self._tell(self._line(self._meter, now_ns))

    def end(self, now_ns: int) -> None:
        """The last phase is over, however it ended."""
        if self._meter is not None:
            self._passed(self._line(self._meter, now_ns))
            self._meter = None

    def _line(self, meter: Meter, now_ns: int) -> str:
        """With the rate that was scheduled on average since the phase began."""
        seconds = max(now_ns - meter.began_ns, 1) / NS_PER_S
        scheduled = self._rate * self._course.amount(meter.began_ns, now_ns) / seconds
        return meter.line(now_ns, scheduled, self._processors())

    def _turn(self, event: Event) -> None:
        phase = PHASES.get((event.source, event.kind))
        if phase is not None and phase != (self._meter.phase if self._meter is not None else None):
            self.end(event.t_ns)
            self._meter = Meter(phase, event.t_ns, self._processors())

    def _new_events(self) -> list[Event]:
        path = self._run_dir / EVENTS_FILE
        if not path.exists():
            return []
        with path.open("rb") as log:
            log.seek(self._events_read)
            new = log.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._events_read += len(whole)
        return [Event.from_line(line) for line in whole.splitlines()]


@contextlib.contextmanager
def followed(progress: Progress) -> Iterator[None]:
    """Look every second, in a thread of its own, and once more when the run is over."""
    over = threading.Event()

    def follow() -> None:
        while not over.wait(EVERY_S):
            progress.look(time.monotonic_ns())

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        progress.look(time.monotonic_ns())
        progress.end(time.monotonic_ns())
