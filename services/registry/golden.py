"""Golden rows: inputs with what the trainer itself predicted for them, so that a loaded model can be proved."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class GoldenRow(BaseModel):
    """One row: the contract's features (None is missing) and the probability of the positive class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: dict[str, float | str | None]
    probability: float = Field(ge=0, le=1)


class Golden(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal[1] = Field(default=1, alias="schema")
    rows: tuple[GoldenRow, ...] = Field(min_length=1)

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True) + "\n"
