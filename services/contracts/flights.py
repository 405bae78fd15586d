"""The feature contract of the flight-delay model: what a vector holds, shared by ETL, training, API and load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Final
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict, Field

ENTITY_NAMESPACE: Final = UUID("5a4f4e1c-6a0e-5a4b-9d0f-2b7c1f8e2013")
LATE_AFTER_MIN: Final = 15.0
"""A flight is late when it arrives more than this many minutes after its schedule (the US DOT's on-time rule)."""

MODEL_NAME: Final = "flight-delay"
TARGET: Final = "late"
EVENT_TIME: Final = "event_time"
"""Column of training files with the scheduled departure, ISO 8601 with offset. It orders the rows and is no feature."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Level = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[^\x00]*$")]
"""Carriers and airports have 2 to 4 letters; PostgreSQL stores no NUL."""


class FlightFeatures(BaseModel):
    """What is known when the flight is scheduled to leave. Units in the comments; None is missing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    month: Annotated[int, Field(ge=1, le=12)]
    day_of_week: Annotated[int, Field(ge=1, le=7)]  # ISO, Monday is 1
    departure_minute: Annotated[int, Field(ge=0, lt=1440)]  # scheduled, local minute of the day
    arrival_minute: Annotated[int, Field(ge=0, lt=1440)]  # scheduled, local minute of the day
    distance: Annotated[float, Field(gt=0, lt=2**31, allow_inf_nan=False)]  # miles
    carrier: Level
    origin: Level
    dest: Level
    plane_year: Finite | None = None  # year of manufacture
    seats: Finite | None = None
    temp: Finite | None = None  # degrees Fahrenheit, weather at the origin in the hour of the departure
    humid: Finite | None = None  # per cent
    wind_speed: Finite | None = None  # miles per hour
    precip: Finite | None = None  # inches
    pressure: Finite | None = None  # millibars
    visib: Finite | None = None  # miles


FEATURES: Final[tuple[str, ...]] = tuple(FlightFeatures.model_fields)
CATEGORICAL: Final[frozenset[str]] = frozenset({"carrier", "origin", "dest"})


def entity_id(carrier: str, flight: int, origin: str, dest: str) -> UUID:
    """One entity is one scheduled flight number on one route; stable across loads."""
    return uuid5(ENTITY_NAMESPACE, f"{carrier} {flight} {origin} {dest}")


def as_row(features: Mapping[str, object]) -> tuple[object, ...]:
    """The values in the contract's order, None where missing."""
    return tuple(features.get(name) for name in FEATURES)


def contract_schema() -> str:
    """What a model takes, as JSON Schema: stored beside each model, and compared by whoever loads it."""
    return json.dumps(FlightFeatures.model_json_schema(), sort_keys=True)
