"""A process that dies by SIGKILL just before one step of a change: `... dying CONFIG_JSON STEP CHANGE VERSION`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from services.coordination.etcd import EtcdClient
from services.registry.reconciler import ReconcilerConfig
from services.registry.registry import ModelRegistry
from services.registry.store import ArtifactStore
from tests.integration.registry.models import MODEL, WHY, register


def main(config_path: str, fatal: str, change: str, version: str) -> None:
    def between(step: str) -> None:
        if step == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    config = ReconcilerConfig.model_validate_json(Path(config_path).read_bytes())
    registry = ModelRegistry(
        config.database,
        EtcdClient(config.etcd),
        config.environment,
        ArtifactStore(config.artifacts),
        between=between,
    )
    match change:
        case "register":
            register(registry, config.directory, version)
        case "promote":
            registry.promote(MODEL, version, WHY)
        case "rollback":
            registry.rollback(MODEL, WHY)


if __name__ == "__main__":
    main(*sys.argv[1:])
