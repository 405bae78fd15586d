"""Rows are canonical: equal vectors give equal bytes, whatever their spelling."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.api.scoring.vector import VectorEncoder
from services.contracts.flights import CATEGORICAL, FEATURES, FlightFeatures
from services.registry import Feature

DOMAINS = {"carrier": ("AA", "UA"), "origin": ("EWR", "JFK", "LGA"), "dest": ("BOS", "SFO")}
FLIGHT: dict[str, Any] = {
    "month": 1,
    "day_of_week": 2,
    "departure_minute": 315,
    "arrival_minute": 510,
    "distance": 1400,
    "carrier": "UA",
    "origin": "LGA",
    "dest": "BOS",
}


@pytest.fixture(scope="module")
def encoder() -> VectorEncoder:
    return VectorEncoder([Feature(name=name, domain=DOMAINS.get(name)) for name in FEATURES])


def column(name: str) -> int:
    return FEATURES.index(name)


def test_values_take_the_models_order_and_levels(encoder: VectorEncoder) -> None:
    row = encoder.row(FlightFeatures(**FLIGHT, temp=39.02))
    assert len(row) == len(FEATURES)
    assert row[column("departure_minute")] == 315.0
    assert row[column("carrier")] == 1.0
    assert row[column("origin")] == 2.0
    assert row[column("temp")] == 39.02


def test_missing_values_and_unseen_levels_are_nan(encoder: VectorEncoder) -> None:
    row = encoder.row(FlightFeatures(**FLIGHT | {"dest": "ZZZ"}))
    assert math.isnan(row[column("dest")])
    assert math.isnan(row[column("seats")])
    assert set(DOMAINS) == CATEGORICAL


def test_another_order_gives_another_row() -> None:
    reverse = VectorEncoder([Feature(name=name, domain=DOMAINS.get(name)) for name in reversed(FEATURES)])
    assert reverse.row(FlightFeatures(**FLIGHT))[-1] == 1.0


def test_minus_zero_is_zero(encoder: VectorEncoder) -> None:
    rows = [encoder.row(FlightFeatures(**FLIGHT, precip=value)) for value in (0.0, -0.0, 0)]
    assert len({encoder.pack(row) for row in rows}) == 1


@pytest.mark.parametrize("spelling", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("name", ["temp", "distance", "month"])
def test_what_is_no_number_is_refused_and_missing_is_null_where_it_may_be(name: str, spelling: str) -> None:
    text = json.dumps(FLIGHT | {name: "HERE"}).replace('"HERE"', spelling)
    with pytest.raises(ValidationError):
        FlightFeatures.model_validate_json(text)
    missing = json.dumps(FLIGHT | {name: None})
    if name == "temp":
        assert FlightFeatures.model_validate_json(missing).temp is None
    else:
        with pytest.raises(ValidationError):
            FlightFeatures.model_validate_json(missing)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_rows_pack_equal_exactly_when_they_are(first: float, second: float) -> None:
    encoder = VectorEncoder([Feature(name=name, domain=DOMAINS.get(name)) for name in FEATURES])
    packed = [encoder.pack(encoder.row(FlightFeatures(**FLIGHT, temp=value))) for value in (first, second)]
    assert (packed[0] == packed[1]) == (first == second)
