"""Random flights as request bodies: in our form with names and levels, and as the row of numbers that a model takes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from services.api.scoring.vector import VectorEncoder
from services.contracts.flights import FlightFeatures
from services.registry import ModelCard

Body = Callable[[FlightFeatures, Sequence[float]], object]


def flights(card: ModelCard, seed: int) -> Iterator[FlightFeatures]:
    """Endless, the same for the same seed, and practically never the same one twice; nothing is missing in them."""
    chance = random.Random(seed)  # noqa: S311 - load, no secret
    levels = {feature.name: feature.domain for feature in card.features if feature.domain is not None}
    while True:
        yield FlightFeatures(
            month=chance.randint(1, 12),
            day_of_week=chance.randint(1, 7),
            departure_minute=chance.randrange(1440),
            arrival_minute=chance.randrange(1440),
            distance=round(chance.uniform(90, 4983), 3),
            carrier=chance.choice(levels["carrier"]),
            origin=chance.choice(levels["origin"]),
            dest=chance.choice(levels["dest"]),
            plane_year=chance.randint(1980, 2013),
            seats=chance.randint(2, 450),
            temp=round(chance.uniform(10, 100), 2),
            humid=round(chance.uniform(10, 100), 2),
            wind_speed=round(chance.uniform(0, 45), 3),
            precip=round(chance.uniform(0, 1.2), 2),
            pressure=round(chance.uniform(983, 1042), 1),
            visib=round(chance.uniform(0, 10), 2),
        )


def write(path: Path, card: ModelCard, body: Body, *, count: int, seed: int) -> Path:
    """`count` bodies, one a line."""
    encoder = VectorEncoder(card.features)
    drawn = flights(card, seed)
    with path.open("w") as out:
        for _ in range(count):
            flight = next(drawn)
            out.write(json.dumps(body(flight, encoder.row(flight)), separators=(",", ":")) + "\n")
    return path


def named(flight: FlightFeatures, row: Sequence[float]) -> object:
    """Ours."""
    return {"features": flight.model_dump(mode="json")}


def v2(flight: FlightFeatures, row: Sequence[float]) -> object:
    """The open inference protocol, version 2, as MLServer speaks it."""
    return {"inputs": [{"name": "row", "shape": [1, len(row)], "datatype": "FP64", "data": list(row)}]}


def inputs(flight: FlightFeatures, row: Sequence[float]) -> object:
    """MLflow's form for tensors."""
    return {"inputs": [list(row)]}


def rows(flight: FlightFeatures, row: Sequence[float]) -> object:
    """BentoML's: the method's argument by name."""
    return {"rows": [list(row)]}


def bare(flight: FlightFeatures, row: Sequence[float]) -> object:
    """The limit's."""
    return list(row)


FORMS: Final[Mapping[str, Body]] = {form.__name__: form for form in (named, v2, inputs, rows, bare)}
