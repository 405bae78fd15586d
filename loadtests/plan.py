"""The load plan: one JSON file that tells each load and probe process what to do and when to end."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from loadtests.profiles import LONGEST_S, PROFILES, Course, ProfileName
from loadtests.record import NO_SERVER
from services.contracts.shards import ShardEndpoints
from services.contracts.slots import SlotMap
from services.coordination.endpoints import EtcdEndpoints

PLAN_VARIABLE: Final = "BREAKWATER_LOAD_PLAN"
EXIT_USAGE: Final = 3
"""Exit code of a load or probe process whose plan or files do not allow a start."""
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

Rate = Annotated[float, Field(ge=0, le=5000, allow_inf_nan=False)]
DeadlineMs = Annotated[int, Field(ge=1, le=60_000)]


class LoadError(Exception):
    """Load cannot start or go on as planned; the message says what to do."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Rates(_Strict):
    """Arrivals per second: `predict` in total, the others per shard. 0 leaves the stream out.

    `read_api` asks for what `write_api` has had acknowledged.
    """

    predict: Rate
    write: Rate
    write_api: Rate
    read: Rate
    read_api: Rate = 0

    @model_validator(mode="after")
    def _something_to_ask_for(self) -> Rates:
        if self.read_api > 0 and self.write_api == 0:
            raise ValueError("read_api asks for what write_api has written: it needs both")
        return self


class Deadlines(_Strict):
    """Milliseconds from the scheduled time within which a right answer counts as good. `write` holds for both kinds."""

    predict: DeadlineMs
    write: DeadlineMs
    read: DeadlineMs


class Sample(_Strict):
    """One loaded flight, as a line of `samples_file`: what predictions ask for and what readers must find."""

    entity_id: str
    event_time: str
    features: dict[str, int | float | str | None]


class LoadPlan(_Strict):
    """What to send where. All times are CLOCK_MONOTONIC nanoseconds of this machine."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    environment: str
    edge_url: str
    edge_name: str | None = None
    """What the edge's certificate must name, where that is not the URL's host."""
    ca_file: Path
    token_file: Path
    etcd: EtcdEndpoints
    addresses: tuple[str, ...] = ()
    """Of the cluster that runs the environment: beside loopback the only ones that get load."""
    shards: tuple[ShardEndpoints, ...] = Field(min_length=1)
    members: tuple[str, ...]
    slot_map: SlotMap
    samples_file: Path
    run_tag: int = Field(ge=0, lt=2**64)
    seed: int
    rates: Rates
    profile: ProfileName = "normal"
    deadlines_ms: Deadlines
    repeat_writes: bool = False
    write_event_time: AwareDatetime
    start_ns: int
    end_ns: int
    stop_file: Path
    out_dir: Path
    event_log: Path

    @model_validator(mode="after")
    def _bounded_and_ours(self) -> LoadPlan:
        if not 0 < self.end_ns - self.start_ns <= LONGEST_S * 1_000_000_000:
            raise ValueError(f"end_ns must be after start_ns and at most {LONGEST_S} s later")
        url, allowed = urlsplit(self.edge_url), LOOPBACK | set(self.addresses)
        where = "on loopback or an address of the cluster"
        if url.scheme != "https" or url.hostname not in allowed:
            raise ValueError(
                f"edge_url must be https {where}, got {self.edge_url}: load is for one's own platform only"
            )
        for host in (entry for shard in self.shards for entry in shard.hosts):
            if host.reached_at not in allowed:
                raise ValueError(
                    f"{host.name} is at {host.reached_at}, not {where}: load is for one's own platform only"
                )
            if host.name not in self.members:
                raise ValueError(f"{host.name} is missing from members: its operations could not be told apart")
        return self

    @classmethod
    def load(cls, path: Path) -> LoadPlan:
        """Read and check a plan; LoadError says which field is wrong."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise LoadError(f"cannot read the load plan {path}: {error.strerror}") from error
        except ValidationError as error:
            raise LoadError(f"the load plan {path} is not valid: {error}") from error

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> LoadPlan:
        """The plan that `BREAKWATER_LOAD_PLAN` names; LoadError when it names none."""
        try:
            return cls.load(Path(environment[PLAN_VARIABLE]))
        except KeyError:
            raise LoadError(f"set {PLAN_VARIABLE} to the path of a load plan (JSON)") from None

    @property
    def course(self) -> Course:
        """How the rates change while the plan lasts."""
        return Course(PROFILES[self.profile], self.start_ns, self.end_ns)

    @cached_property
    def _server_index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.members)}

    def server(self, member: str | None) -> int:
        """The member's number in the history's `server` column; NO_SERVER for an unknown one."""
        return NO_SERVER if member is None else self._server_index.get(member, NO_SERVER)

    def token(self) -> str:
        """The API's bearer token; LoadError when it cannot be read. Never put it into argv, logs or the history."""
        try:
            return self.token_file.read_text().strip()
        except OSError as error:
            raise LoadError(f"cannot read the API token {self.token_file}: {error.strerror}") from error

    def samples(self) -> list[Sample]:
        """The loaded flights to ask for; LoadError when there are none."""
        try:
            lines = self.samples_file.read_bytes().splitlines()
            found = [Sample.model_validate_json(line) for line in lines]
        except (OSError, ValidationError) as error:
            raise LoadError(f"cannot read samples of loaded flights from {self.samples_file}: {error}") from error
        if not found:
            raise LoadError(f"{self.samples_file} holds no sample: load flights into the feature store first")
        return found

    def over(self, now_ns: int | None = None) -> bool:
        """True once load must end: its time is up, or the stop file is there."""
        return (time.monotonic_ns() if now_ns is None else now_ns) >= self.end_ns or self.stop_file.exists()
