"""Where trained models live, in which stage each is, and which one serves: rows, artifacts, and a pointer in etcd."""

from services.registry.card import Feature, Metrics, ModelCard, Rows, TrainingWindow, sha256_of
from services.registry.errors import ArtifactCorrupt, NoModel, PointerUnreachable, RegistryError, VersionTaken
from services.registry.published import ModelFiles, ModelSource, Pointer, PublishedModels
from services.registry.store import ArtifactStore

__all__ = [
    "ArtifactCorrupt",
    "ArtifactStore",
    "Feature",
    "Metrics",
    "ModelCard",
    "ModelFiles",
    "ModelSource",
    "NoModel",
    "Pointer",
    "PointerUnreachable",
    "PublishedModels",
    "RegistryError",
    "Rows",
    "TrainingWindow",
    "VersionTaken",
    "sha256_of",
]
