"""Where trained models live and which one serves: files with checksums, and one pointer that only moves forward."""

from services.registry.card import Feature, Metrics, ModelCard, Rows, TrainingWindow, sha256_of
from services.registry.errors import ArtifactCorrupt, NoModel, RegistryError, VersionTaken
from services.registry.files import FileRegistry, ModelFiles, Pointer

__all__ = [
    "ArtifactCorrupt",
    "Feature",
    "FileRegistry",
    "Metrics",
    "ModelCard",
    "ModelFiles",
    "NoModel",
    "Pointer",
    "RegistryError",
    "Rows",
    "TrainingWindow",
    "VersionTaken",
    "sha256_of",
]
