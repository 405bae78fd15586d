"""What a training leaves on disk, readable without H2O's client (whose import takes a second)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from services.registry.card import ModelCard
from services.registry.golden import Golden

ARTIFACT: Final = "model.zip"
CARD: Final = "model.json"
GOLDEN: Final = "golden.json"
BINARY: Final = "model.bin"
COMPARISON: Final = "comparison.json"


class Measured(BaseModel):
    """Metrics on some rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    auc: float
    logloss: float


class Comparison(BaseModel):
    """Others on the very rows that measured a model: what serves (None: nothing does), and always the same answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    serving: Measured | None
    constant: Measured


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
            directory / ARTIFACT,
            ModelCard.model_validate_json((directory / CARD).read_bytes()),
            Golden.model_validate_json((directory / GOLDEN).read_bytes()),
        )
