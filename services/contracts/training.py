"""training.json: which snapshot of every shard a model was trained on, in the servers' own words."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

TRAINING_FILE = "training.json"


class SnapshotWitness(BaseModel):
    """What one shard's server said inside the training's transaction, at its begin and after its last row.

    `begin` and `end` are pg_current_snapshot(): equal when every statement between saw the same rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shard: int = Field(ge=0)
    isolation: str
    begin: str
    end: str


class TrainingRecord(BaseModel):
    """The environment's last training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal[1] = Field(default=1, alias="schema")
    version: str
    commit: str | None
    at: AwareDatetime
    snapshots: tuple[SnapshotWitness, ...]

    def write(self, path: Path) -> None:
        """In one step, so that no reader sees half of it."""
        fresh = path.with_suffix(".json.new")
        fresh.write_text(self.model_dump_json(by_alias=True, indent=2) + "\n")
        fresh.replace(path)
