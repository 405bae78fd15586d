"""One H2O node: `python -m services.h2o.node CONFIG` runs its agent, its candidate for keeper, and its readiness."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.contracts.events import EventLog
from services.coordination.etcd import EtcdClient, EtcdError
from services.coordination.readiness import ReadinessServer
from services.h2o import encryption
from services.h2o.agent import Agent
from services.h2o.cloud import NodeAddress
from services.h2o.decision import State
from services.h2o.encryption import Certificates
from services.h2o.errors import ConfigurationInvalid, StateUnreadable
from services.h2o.keeper import Keeper
from services.h2o.server import H2OServer
from services.h2o.state import Epoch, Keys, Snapshot, StateWatch, Status, read
from services.shutdown import on_shutdown

EVENTS = "h2o-events.jsonl"
# Longest wait for one etcd server, seconds.
ETCD_TIMEOUT_S = 1.0


class Peer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    host: str
    port: int = Field(ge=1, le=65534)


class NodeConfig(BaseModel):
    """node.json. `memory_mb` is the node's limit; `heap_mb` of it is the JVM's heap. `status_port`: /ready, /status.

    Without `certificates` the cloud talks in clear: for loopback only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    environment: str
    name: str
    nodes: tuple[Peer, ...] = Field(min_length=1)
    etcd: tuple[str, ...] = Field(min_length=1)
    status_port: int
    memory_mb: int = Field(gt=0)
    heap_mb: int = Field(gt=0)
    threads: int = Field(default=2, ge=1)
    directory: Path
    certificates: Certificates | None = None

    @model_validator(mode="after")
    def _consistent(self) -> NodeConfig:
        if self.name not in {node.name for node in self.nodes}:
            raise ValueError(f"{self.name} is not among its own nodes")
        if self.heap_mb >= self.memory_mb:
            raise ValueError(f"heap_mb {self.heap_mb} leaves no native memory of memory_mb {self.memory_mb}")
        return self

    @classmethod
    def read(cls, path: Path) -> NodeConfig:
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ConfigurationInvalid(f"{path} is no configuration of an H2O node: {error}") from error


class H2ONode:
    """The parts of one node, wired together."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._keys = Keys.of(config.environment)
        self._stop = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        scheme = encryption.scheme(config.certificates)
        nodes = tuple(NodeAddress(**node.model_dump(), scheme=scheme) for node in config.nodes)
        self._own = next(node for node in nodes if node.name == config.name)
        server = H2OServer(
            directory=config.directory,
            host=self._own.host,
            port=self._own.port,
            heap_mb=config.heap_mb,
            threads=config.threads,
            peers=tuple(node.peer for node in nodes),
            certificates=config.certificates,
        )
        trust = encryption.trusting(config.certificates.authority) if config.certificates is not None else None
        events = EventLog(config.directory / EVENTS, aloud=True)
        self._watch = StateWatch(EtcdClient(config.etcd, timeout_s=ETCD_TIMEOUT_S), self._keys)
        # A client each: threads that write must not wait for each other's dead server.
        self._agent = Agent(config.name, server, self._etcd(), self._watch, events)
        self._keeper = Keeper(config.name, nodes, self._etcd(), self._watch, events, trust=trust)
        self._ready_client = self._etcd()
        self._readiness = ReadinessServer(self._own.host, config.status_port, ready=self.obstacle, status=self.status)

    def run(self) -> None:
        """Until `stop`; the JVM belongs to the calling thread."""
        keeper = threading.Thread(target=self._keeper.run, args=(self._stop,), name="h2o-keeper")
        self._watch.start()
        self._readiness.start()
        keeper.start()
        try:
            self._agent.run(self._stop, self._wake)
        finally:
            self._stop.set()
            keeper.join()
            self._watch.stop()
            self._readiness.close()

    def stop(self) -> None:
        self._stop.set()
        os.eventfd_write(self._wake, 1)

    def obstacle(self) -> str | None:
        """Why the cloud cannot be used; None only while the keeper sees every node in consensus.

        The keeper's word goes with its lease, so etcd is asked anew: what a watch heard last may be out of date.
        """
        try:
            return self._obstacle(read(self._ready_client, self._keys))
        except EtcdError as error:
            return f"whether the cloud is whole is not known: {error}"
        except StateUnreadable as error:
            return str(error)

    def _obstacle(self, snapshot: Snapshot) -> str | None:
        epoch, status = snapshot.epoch, snapshot.status
        if epoch is None:
            return "etcd has named no epoch yet"
        if status is None:
            return "no keeper is elected"
        if status.generation != epoch.generation:
            return f"{epoch.cloud} is wanted, the keeper still looks at the cloud before it"
        if status.state is not State.READY:
            reason = "" if status.reason == status.state.value else f": {status.reason}"
            node = f" ({status.node})" if status.node else ""
            return f"{epoch.cloud} {status.state.value}{reason}{node}{_detail(snapshot, status, epoch)}"
        return None

    def status(self) -> dict[str, Any]:
        config, snapshot = self._config, self._watch.snapshot
        reason = self.obstacle()
        known: dict[str, Any] = {}
        if snapshot is not None:
            known = {
                "epoch": None if snapshot.epoch is None else snapshot.epoch.generation,
                "cloud": None if snapshot.epoch is None else snapshot.epoch.cloud,
                "failures": 0 if snapshot.epoch is None else snapshot.epoch.failures,
                "keeper": None if snapshot.keeper is None else snapshot.keeper.value,
                "state": None if snapshot.status is None else snapshot.status.state.value,
            }
        return {
            "node": config.name,
            "ready": reason is None,
            "reason": reason,
            "size": len(config.nodes),
            "pid": self._agent.pid,
            "elected": self._keeper.elected,
            "memory_mb": config.memory_mb,
            "heap_mb": config.heap_mb,
            "running_heap_mb": self._agent.running_heap_mb,
            "native_mb": config.memory_mb - config.heap_mb,
            **known,
        }

    def _etcd(self) -> EtcdClient:
        return EtcdClient(self._config.etcd, timeout_s=ETCD_TIMEOUT_S)


def _detail(snapshot: Snapshot, status: Status, epoch: Epoch) -> str:
    """What a dead node's agent said in this epoch, or in the one before when that one failed."""
    report = snapshot.report(status.node) if status.node else None
    said = report.detail if report is not None else ""
    if not said and status.state is State.ALARM:
        said = epoch.detail
    return f": {said}" if said else ""


def main(arguments: list[str]) -> int:
    match arguments:
        case [path]:
            try:
                node = H2ONode(NodeConfig.read(Path(path)))
            except (ConfigurationInvalid, OSError) as error:
                sys.stderr.write(f"h2o node: {error}\n")
                return 2

            on_shutdown(node.stop)
            node.run()
            return 0
        case _:
            sys.stderr.write("usage: python -m services.h2o.node NODE_JSON\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
