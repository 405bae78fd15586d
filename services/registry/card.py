"""model.json: what a model is, what it expects, and how it was made."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
"""Model names and versions are directory names: no separators, no leading dot."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Feature(_Record):
    """One input column. `domain` lists a categorical's levels in the order of their index; None is a number."""

    name: str
    domain: tuple[str, ...] | None = None


class Metrics(_Record):
    """On the test rows only. `prior` is the share of positives among the training rows."""

    auc: float = Field(ge=0, le=1)
    logloss: float = Field(ge=0)
    prior: float = Field(ge=0, le=1)


class Rows(_Record):
    train: int = Field(gt=0)
    test: int = Field(gt=0)


class TrainingWindow(_Record):
    """First and last event time of each part; nothing in the test part is as old as anything trained on."""

    train_start: AwareDatetime
    train_end: AwareDatetime
    test_start: AwareDatetime
    test_end: AwareDatetime

    @model_validator(mode="after")
    def _train_before_test(self) -> TrainingWindow:
        moments: list[datetime] = [self.train_start, self.train_end, self.test_start, self.test_end]
        if sorted(moments) != moments or self.train_end == self.test_start:
            raise ValueError(f"training must end before testing starts: {self.train_end} is not < {self.test_start}")
        return self


class ModelCard(_Record):
    """Stored beside the artifact. `threshold` is the probability from which the model itself says yes (max F1)."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    name: Name
    version: Name
    sha256: Sha256
    features: tuple[Feature, ...] = Field(min_length=1)
    target: str
    threshold: float = Field(ge=0, le=1)
    metrics: Metrics
    rows: Rows
    window: TrainingWindow
    seed: int
    trainer: str

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content; OSError when it cannot be read."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
