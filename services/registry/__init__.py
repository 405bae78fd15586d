"""Where trained models live, in which stage each is, and which one serves: rows, artifacts, and a pointer in etcd."""

from services.registry.announced import (
    Announced,
    Candidate,
    LiveReplica,
    Pointer,
    Refusal,
    ReplicaState,
    Verdict,
)
from services.registry.card import Feature, Metrics, ModelCard, Rows, TrainingWindow, sha256_of
from services.registry.errors import ArtifactCorrupt, NoModel, PointerUnreachable, RegistryError, VersionTaken
from services.registry.golden import Golden, GoldenRow
from services.registry.presence import Presence
from services.registry.published import ModelFiles, ModelSource, PublishedModels
from services.registry.store import ArtifactStore

__all__ = [
    "Announced",
    "ArtifactCorrupt",
    "ArtifactStore",
    "Candidate",
    "Feature",
    "Golden",
    "GoldenRow",
    "LiveReplica",
    "Metrics",
    "ModelCard",
    "ModelFiles",
    "ModelSource",
    "NoModel",
    "Pointer",
    "PointerUnreachable",
    "Presence",
    "PublishedModels",
    "Refusal",
    "RegistryError",
    "ReplicaState",
    "Rows",
    "TrainingWindow",
    "Verdict",
    "VersionTaken",
    "sha256_of",
]
