"""Waivers: items that may fail for a while, each with a reason and an expiry; nothing is waived in silence."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from experiments.errors import ExperimentError, fields

WAIVERS_FILE: Final = "gate-waivers.yaml"
LONGEST_DAYS: Final = 90
"""A waiver that outlives a quarter is a decision, and belongs into the item itself."""


class WaiverError(ExperimentError):
    """The file of waivers does not say what a waiver must say; nothing was examined."""


class Waiver(BaseModel):
    """One item of one environment that may fail until the end of a day (UTC), and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: str
    item: str
    reason: Annotated[str, Field(min_length=10)]
    expires: datetime.date

    def holds(self, today: datetime.date) -> bool:
        return today <= self.expires


def read_waivers(path: Path, items: Collection[str], today: datetime.date) -> tuple[Waiver, ...]:
    """The file's waivers; none when there is no file. WaiverError for anything that is not a waiver of these items."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except yaml.YAMLError as error:
        raise WaiverError(f"{path} is not YAML: {error}") from error
    try:
        found = TypeAdapter(list[Waiver]).validate_python(document or [])
    except ValidationError as error:
        raise WaiverError(
            f"{path} holds something else than waivers (environment, item, reason, expires): {fields(error)}"
        ) from error
    for waiver in found:
        if waiver.item not in items:
            raise WaiverError(f"{path} waives {waiver.item!r}, which is no item; there are {', '.join(items)}")
        if (waiver.expires - today).days > LONGEST_DAYS:
            raise WaiverError(f"{path} waives {waiver.item} until {waiver.expires}: {LONGEST_DAYS} days are the most")
    return tuple(found)
