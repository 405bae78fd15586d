"""Publishes models to replicas under test through the real registry: register, stage, promote."""

from __future__ import annotations

from pathlib import Path

from services.coordination.etcd import EtcdClient
from services.featurestore.migrate import apply
from services.registry import ArtifactStore, ModelCard, Pointer
from services.registry.registry import MIGRATIONS, ModelRegistry
from tests.integration.featurestore.servers import Postgres
from tests.integration.registry.models import CONTRACT, GOLDEN, WHY


class Publisher:
    """A registry with a database and a store of its own, whose pointer is that of `environment`."""

    def __init__(self, server: Postgres, etcd: EtcdClient, environment: str, artifacts: Path) -> None:
        self.environment = environment
        self.artifacts = artifacts
        self.database = f"registry_{environment.replace('-', '_')}"
        server.create_database(self.database)
        endpoints = server.endpoints(0, self.database)
        apply([endpoints], migrations=MIGRATIONS)
        self.etcd = etcd
        self._registry = ModelRegistry(endpoints, etcd, environment, ArtifactStore(str(artifacts)))

    def publish(self, artifact: Path, card: ModelCard) -> Pointer:
        """Put the version into production; one that was registered before must be in production already."""
        version = self._registry.register(artifact, card, GOLDEN, CONTRACT, WHY)
        if version.stage == "production":
            return self.pointer()
        self._registry.stage(card.name, card.version, WHY)
        return self._registry.promote(card.name, card.version, WHY)

    def rollback(self, name: str) -> Pointer:
        return self._registry.rollback(name, WHY)

    def pointer(self) -> Pointer:
        [pointer] = self._registry.wanted()
        return pointer
