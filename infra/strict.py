"""What every setting of the topology is: typed, unchangeable, and strict about what it does not know."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Unknown keys are refused: a misspelt setting must never be silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
