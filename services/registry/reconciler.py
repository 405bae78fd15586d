"""Keeps etcd's pointers what the registry says: `python -m services.registry.reconciler CONFIG`, round by round."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import psycopg
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.contracts.events import Event, EventLog
from services.contracts.shards import ShardEndpoints
from services.coordination.etcd import EtcdClient, EtcdError
from services.coordination.readiness import ReadinessServer
from services.featurestore.errors import FeatureStoreError
from services.registry.announced import Pointer
from services.registry.errors import RegistryError
from services.registry.registry import ModelRegistry
from services.registry.store import ArtifactStore
from services.shutdown import on_shutdown

REPAIR_INTERVAL_S: Final = 5.0
"""Row and pointer disagree for no longer than this, plus the round itself, while both servers answer."""
LATE_AFTER: Final = 3
"""Intervals without a good round after which it is not ready."""
ETCD_TIMEOUT_S: Final = 1.0
EVENTS: Final = "registry-events.jsonl"


class ReconcilerConfig(BaseModel):
    """reconciler.json. `host` and `status_port`: where /ready and /status answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    environment: str
    member: str
    host: str
    status_port: int
    etcd: tuple[str, ...] = Field(min_length=1)
    database: ShardEndpoints
    artifacts: str
    directory: Path


class Reconciler:
    """Repairs every `REPAIR_INTERVAL_S` and says when it had to."""

    def __init__(self, config: ReconcilerConfig) -> None:
        self._config = config
        etcd = EtcdClient(config.etcd, timeout_s=ETCD_TIMEOUT_S)
        self._registry = ModelRegistry(config.database, etcd, config.environment, ArtifactStore(config.artifacts))
        self._events = EventLog(config.directory / EVENTS, aloud=True)
        self._readiness = ReadinessServer(config.host, config.status_port, ready=self.obstacle, status=self.status)
        self._good_s: float | None = None
        self._trouble: str | None = "no round yet"
        self._repaired = 0

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set."""
        self._readiness.start()
        while not stop.is_set():
            self.round()
            stop.wait(REPAIR_INTERVAL_S)
        self._readiness.close()

    def round(self) -> list[Pointer]:
        """One repair; what keeps it from happening is remembered and tried again."""
        try:
            moved = self._registry.repair()
        except (EtcdError, FeatureStoreError, RegistryError, psycopg.Error) as error:
            if self._trouble != str(error):
                self._say("not_repaired", error=str(error))
            self._trouble = str(error)
            return []
        self._good_s, self._trouble = time.monotonic(), None
        for pointer in moved:
            self._repaired += 1
            self._say("repaired", model=pointer.name, version=pointer.version, generation=pointer.generation)
        return moved

    def obstacle(self) -> str | None:
        """Why rows and pointers may disagree; None while the rounds go well."""
        late = self._good_s is None or time.monotonic() - self._good_s > LATE_AFTER * REPAIR_INTERVAL_S
        return (self._trouble or "its rounds have stopped") if late else None

    def status(self) -> dict[str, Any]:
        reason = self.obstacle()
        return {
            "ready": reason is None,
            "reason": reason,
            "repaired": self._repaired,
            "artifacts": self._config.artifacts,
        }

    def _say(self, kind: str, **data: object) -> None:
        with contextlib.suppress(OSError):
            self._events.append(Event.now("model-registry", kind, self._config.member, **data))


def main(arguments: list[str]) -> int:
    match arguments:
        case [path]:
            try:
                config = ReconcilerConfig.model_validate_json(Path(path).read_bytes())
                reconciler = Reconciler(config)
            except (OSError, ValidationError, RegistryError) as error:
                sys.stderr.write(f"reconciler: {path}: {error}\n")
                return 2
            stop = threading.Event()
            on_shutdown(stop.set)
            reconciler.run(stop)
            return 0
        case _:
            sys.stderr.write("usage: python -m services.registry.reconciler RECONCILER_JSON\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
