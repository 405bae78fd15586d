"""Publishes models to replicas under test through the real registry: register, stage, promote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from services.contracts.flights import MODEL_NAME, contract_schema
from services.coordination.etcd import EtcdClient
from services.featurestore.migrate import apply
from services.h2o.trained import TrainedModel
from services.registry import ArtifactStore, Pointer
from services.registry.registry import MIGRATIONS, ModelRegistry, Version
from services.registry.reload import Reload
from tests.integration.featurestore.servers import Postgres
from tests.integration.registry.models import WHY


def renamed(model: TrainedModel, version: str) -> TrainedModel:
    """The same trees as another version."""
    return replace(model, card=model.card.model_copy(update={"version": version}))


class Publisher:
    """A registry with a database and a store of its own, whose pointer is that of `environment`."""

    def __init__(self, server: Postgres, etcd: EtcdClient, environment: str, artifacts: Path) -> None:
        self.environment = environment
        self.artifacts = artifacts
        self.database = f"registry_{environment.replace('-', '_')}"
        server.create_database(self.database)
        self.endpoints = server.endpoints(0, self.database)
        apply([self.endpoints], migrations=MIGRATIONS)
        self.etcd = etcd
        self.registry = ModelRegistry(self.endpoints, etcd, environment, ArtifactStore(str(artifacts)))

    def settings(self, models_dir: Path) -> dict[str, object]:
        """What replicas of this registry are configured with."""
        return {
            "environment": self.environment,
            "registry": self.endpoints.model_dump(mode="json"),
            "artifacts": str(self.artifacts),
            "models_dir": str(models_dir),
        }

    def register(self, model: TrainedModel, contract: str | None = None) -> Version:
        return self.registry.register(model.model_zip, model.card, model.golden, contract or contract_schema(), WHY)

    def publish(self, model: TrainedModel) -> Pointer:
        """Put the version into production; one that was registered before must be in production already."""
        if self.register(model).stage == "production":
            return self.pointer()
        return self.promote(model.card.version).pointer

    def promote(self, version: str) -> Reload:
        return self.registry.bring_into_production(MODEL_NAME, version, WHY)

    def rollback(self) -> Reload:
        return self.registry.rollback(MODEL_NAME, WHY)

    def pointer(self) -> Pointer:
        [pointer] = self.registry.wanted()
        return pointer

    def stored(self, version: str, kind: str) -> Path:
        """Where the store keeps that artifact."""
        [digest] = [each.sha256 for each in self.registry.artifacts(MODEL_NAME, version) if each.kind == kind]
        return self.artifacts / "sha256" / digest[:2] / digest
