"""run.json: what a run was meant to be, when its windows were and which fault was done to whom."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from experiments.errors import RunFileError, fields
from infra.environment import Struck
from loadtests.arrivals import NS_PER_S
from loadtests.profiles import PROFILES, Course, ProfileName

RUN_FILE: Final = "run.json"


class Strict(BaseModel):
    """Base of the records that experiments keep: frozen, no coercion, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


def _in_order(window: tuple[int, int]) -> tuple[int, int]:
    if window[0] > window[1]:
        raise ValueError(f"a window ends after it starts, not [{window[0]}, {window[1]}]")
    return window


Window = Annotated[tuple[int, int], AfterValidator(_in_order)]
"""Start and end in nanoseconds of the run's monotonic clock; start belongs to it, end does not."""


class WallAnchor(Strict):
    """One instant on both clocks, so that a monotonic time can be shown as a date."""

    monotonic_ns: int
    unix_ns: int

    @classmethod
    def now(cls) -> WallAnchor:
        return cls(monotonic_ns=time.monotonic_ns(), unix_ns=time.time_ns())

    def unix_ns_at(self, t_ns: int) -> int:
        return self.unix_ns + t_ns - self.monotonic_ns


class Windows(Strict):
    """Phases of a run; None for a phase that was never reached. `fault` runs from the fault until it is lifted.

    `undisturbed` is all the load between warm-up and fault; `baseline` is its last part, once the platform was steady.
    """

    undisturbed: Window | None = None
    baseline: Window | None = None
    fault: Window | None = None
    recovery: Window | None = None

    @property
    def whole(self) -> Window | None:
        """From the first phase's start to the last phase's end."""
        phases = (self.undisturbed, self.baseline, self.fault, self.recovery)
        reached = [window for window in phases if window is not None]
        return (min(start for start, _ in reached), max(end for _, end in reached)) if reached else None


class ShardRecord(Strict):
    shard: Annotated[int, Field(ge=0, lt=255)]
    members: tuple[str, ...]


class Rates(Strict):
    """Scheduled arrivals per second: predictions in total, everything else for each shard."""

    predict: Annotated[float, Field(ge=0)]
    write: Annotated[float, Field(ge=0)]
    write_api: Annotated[float, Field(ge=0)]
    read: Annotated[float, Field(ge=0)]
    read_api: Annotated[float, Field(ge=0)] = 0
    """Runs of before had no such readers."""

    def total(self, shards: int) -> float:
        """All streams together."""
        return self.predict + shards * (self.write + self.write_api + self.read + self.read_api)


class ProcessId(Strict):
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    start_ticks: int
    name: str
    pod: str | None = None
    """Uid of the pod whose processes are numbered so; None on the run's own machine."""


class PodId(Strict):
    """A pod that cannot be mistaken for a later one with the same name."""

    name: str
    uid: str


class FaultRecord(Strict):
    """The fault as it was done. `proven` is set by whoever saw its effect; `evidence` says what was seen.

    `pids` are the processes that it struck, `pod` is the one that it took away as a whole. `shard` and `old_timeline`
    are None for what belongs to no shard.
    """

    component: str
    shard: Annotated[int, Field(ge=0, lt=255)] | None
    member: str
    scope: Struck
    method: str
    hold: bool
    t_ns: int
    pids: tuple[ProcessId, ...]
    proven: bool
    evidence: str
    old_timeline: int | None
    pod: PodId | None = None

    @property
    def names_its_victim(self) -> bool:
        """Whether what it struck could be looked for afterwards."""
        return bool(self.pids) or self.pod is not None


class RunRecord(Strict):
    """Everything about a run that its history and events do not say themselves.

    `fault` is the first that was done; `also` are the others of a scenario that strikes more than once, in their order.
    """

    schema_: Literal[1] = Field(default=1, alias="schema")
    run_id: str
    environment: str
    scenario: str
    variant: str
    seed: int
    clock_id: str
    wall_anchor: WallAnchor
    commit: str | None
    versions: dict[str, str] = Field(default_factory=dict)
    """Of what ran the experiment and of the platform's servers or images; runs of before had none."""
    members: tuple[str, ...]
    shards: tuple[ShardRecord, ...]
    rates: Rates
    profile: ProfileName = "normal"
    load: Window | None = None
    """When the profile was to begin and to end; None for constant rates that ran as long as they were needed."""
    windows: Windows
    fault: FaultRecord | None
    also: tuple[FaultRecord, ...] = ()
    completed: bool
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fault_hits_a_known_shard(self) -> RunRecord:
        strange = self.struck_shards - {entry.shard for entry in self.shards}
        if strange:
            raise ValueError(f"the fault names shard {min(strange)}, which the run does not have")
        return self

    @property
    def course(self) -> Course:
        """How the rates changed over time."""
        start, end = self.load or (0, NS_PER_S)
        return Course(PROFILES[self.profile], start, end)

    def scheduled(self, rate: float, window: Window) -> float:
        """How many arrivals of a stream of this rate a window holds."""
        return rate * self.course.amount(*window)

    @property
    def faults(self) -> tuple[FaultRecord, ...]:
        """All that was done; none when nothing was."""
        return () if self.fault is None else (self.fault, *self.also)

    @property
    def replicas(self) -> tuple[str, ...]:
        """The API's, by name."""
        return tuple(name for name in self.members if name.startswith("api-"))

    @property
    def struck_shards(self) -> frozenset[int]:
        return frozenset(fault.shard for fault in self.faults if fault.shard is not None)

    @classmethod
    def read(cls, run_dir: Path) -> RunRecord:
        """run.json of a run directory; RunFileError when it is missing or does not fit."""
        path = run_dir / RUN_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise RunFileError(f"{run_dir} holds no {RUN_FILE}: it is not a run directory") from error
        except ValidationError as error:
            raise RunFileError(f"{path} does not describe a run: {fields(error)}") from error

    def write(self, run_dir: Path) -> None:
        """Replace run.json in one step, so that a reader or a power cut never sees half of it."""
        path = run_dir / RUN_FILE
        fresh = path.with_suffix(".json.new")
        with fresh.open("w", encoding="utf-8") as out:
            out.write(self.model_dump_json(by_alias=True, indent=2) + "\n")
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(path)
