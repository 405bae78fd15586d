"""What etcd holds about an environment's H2O cloud: the epoch, one report per node, orders, and the keeper's word."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.coordination.etcd import EtcdClient, EtcdError, KeyValue
from services.coordination.messages import WatchEvent
from services.h2o.decision import Process, State
from services.h2o.errors import StateUnreadable

# Pause before reading again when etcd did not answer or forgot its history, seconds.
RETRY_S = 0.2


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal[1] = Field(default=1, alias="schema")

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True)


class Epoch(_Record):
    """Which cloud is wanted, and why the one before was given up; `detail` is what its dead node's agent said.

    Times are seconds since 1970 by the clock of whoever wrote them.
    """

    generation: int = Field(ge=1)
    reason: str
    detail: str = ""
    failures: int = Field(ge=0)
    raised_at: float
    formed_at: float | None = None

    @property
    def cloud(self) -> str:
        return cloud_name(self.generation)


class Report(_Record):
    """What a node's agent says about its JVM; `detail` is the end of its log when it failed."""

    generation: int
    process: Process
    pid: int | None = None
    detail: str = ""


class Order(_Record):
    """Kill the node's JVM of this generation."""

    generation: int


class Status(_Record):
    """The keeper's word, gone with its lease: `urls` are the nodes' REST addresses."""

    generation: int
    state: State
    reason: str
    node: str | None
    keeper: str
    urls: tuple[str, ...]


Parsed = TypeVar("Parsed", bound=_Record)


def cloud_name(generation: int) -> str:
    return f"bw-{generation}"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one environment's cloud."""

    prefix: str

    @classmethod
    def of(cls, environment: str) -> Keys:
        return cls(f"/breakwater/{environment}/h2o/")

    @property
    def epoch(self) -> str:
        return f"{self.prefix}epoch"

    @property
    def keeper(self) -> str:
        return f"{self.prefix}keeper"

    @property
    def status(self) -> str:
        return f"{self.prefix}status"

    def report(self, node: str) -> str:
        return f"{self.prefix}nodes/{node}"

    def order(self, node: str) -> str:
        return f"{self.prefix}orders/{node}"

    def entered(self, node: str) -> str:
        """The last generation that an agent of this node entered, and which incarnation of it."""
        return f"{self.prefix}entered/{node}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All keys of the cloud as they were at one moment."""

    keys: Keys
    values: Mapping[str, KeyValue] = field(default_factory=dict)

    def with_event(self, event: WatchEvent) -> Snapshot:
        """The snapshot after one change; one that it holds already (a watch replays) changes nothing."""
        known = self.values.get(event.kv.key)
        if known is not None and known.mod_revision >= event.revision:
            return self
        values = dict(self.values)
        if event.kind == "put":
            values[event.kv.key] = event.kv
        else:
            values.pop(event.kv.key, None)
        return Snapshot(self.keys, values)

    @property
    def epoch(self) -> Epoch | None:
        return self._read(self.keys.epoch, Epoch)

    @property
    def epoch_revision(self) -> int:
        """0 when there is no epoch yet."""
        found = self.values.get(self.keys.epoch)
        return 0 if found is None else found.mod_revision

    @property
    def keeper(self) -> KeyValue | None:
        return self.values.get(self.keys.keeper)

    @property
    def status(self) -> Status | None:
        return self._read(self.keys.status, Status)

    def report(self, node: str) -> Report | None:
        return self._read(self.keys.report(node), Report)

    def order(self, node: str) -> Order | None:
        return self._read(self.keys.order(node), Order)

    def _read(self, key: str, kind: type[Parsed]) -> Parsed | None:
        found = self.values.get(key)
        if found is None:
            return None
        try:
            return kind.model_validate_json(found.value)
        except ValidationError as error:
            raise StateUnreadable(
                f"etcd key {key} is not what this release writes ({error.error_count()} problems): "
                f"{found.value[:200]}; run one release only, or delete the key"
            ) from error


def read(client: EtcdClient, keys: Keys) -> Snapshot:
    """The present keys. Raises EtcdUnavailable."""
    return Snapshot(keys, {kv.key: kv for kv in client.get_prefix(keys.prefix)})


class StateWatch:
    """Follows the keys in a thread; `snapshot` is the latest, None before etcd answered for the first time."""

    def __init__(self, client: EtcdClient, keys: Keys) -> None:
        self._client = client
        self.keys = keys
        self._stop = threading.Event()
        self._listeners: list[int] = []
        self._thread = threading.Thread(target=self._run, name="h2o-state", daemon=True)
        self.snapshot: Snapshot | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def listen(self) -> int:
        """A descriptor that becomes readable when `snapshot` changed (before `start`; `acknowledge` empties it)."""
        descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._listeners.append(descriptor)
        return descriptor

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                # its revision says from where to follow: what comes between the two reads is replayed
                _, marker = self._client.get_at(self.keys.epoch)
                snapshot = read(self._client, self.keys)
                self._publish(snapshot)
                for event in self._client.watch(
                    self.keys.prefix, prefix=True, start_revision=marker + 1, stop=self._stop
                ):
                    snapshot = snapshot.with_event(event)
                    self._publish(snapshot)
            except EtcdError:
                self._stop.wait(RETRY_S)

    def _publish(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        for descriptor in self._listeners:
            os.eventfd_write(descriptor, 1)


def acknowledge(descriptor: int) -> None:
    """Make a listener's descriptor wait again."""
    try:
        os.eventfd_read(descriptor)
    except BlockingIOError:
        return
