"""What a job of the cloud is told: one split to train, or the splits' models to combine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from services.registry.card import Rows, TrainingWindow


class _Spec(BaseModel):
    """The files do not change while the job runs: every attempt sees the same snapshot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    test_csv: Path
    seed: int
    version: str


class SplitSpec(_Spec):
    """One split: a model that learns from one file and is measured on the other.

    `cover_csv`: rows whose levels the model shall know too, learning nothing from them. Models that are to be combined
    must know the same ones: the MOJO of an ensemble hands its own level numbers to each of its parts.
    """

    kind: Literal["split"] = "split"
    train_csv: Path
    cover_csv: Path | None = None


class EnsembleSpec(_Spec):
    """Models of splits to combine: `bases` (files that `train` left as model.bin), weighed on `blend_csv`.

    `cover_csv`: the rows that gave every base its levels. `serving`: an
    artifact to measure on the same test rows. `rows`, `window`, `prior`: of all that any part learned from.
    """

    kind: Literal["ensemble"] = "ensemble"
    bases: tuple[Path, ...] = Field(min_length=1)
    cover_csv: Path
    blend_csv: Path
    serving: Path | None
    rows: Rows
    window: TrainingWindow
    prior: float


JobSpec = SplitSpec | EnsembleSpec
SPEC: Final = TypeAdapter[JobSpec](Annotated[JobSpec, Field(discriminator="kind")])
