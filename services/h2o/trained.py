"""What a training leaves on disk, readable without H2O's client (whose import takes a second)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.registry.card import ModelCard
from services.registry.golden import Golden


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A MOJO on disk, its card and its golden rows (beside it as model.json and golden.json)."""

    model_zip: Path
    card: ModelCard
    golden: Golden

    @classmethod
    def read(cls, directory: Path) -> TrainedModel:
        """What training wrote there; OSError or ValueError when it did not."""
        return cls(
            directory / "model.zip",
            ModelCard.model_validate_json((directory / "model.json").read_bytes()),
            Golden.model_validate_json((directory / "golden.json").read_bytes()),
        )
