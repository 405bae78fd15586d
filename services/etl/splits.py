"""Walk-forward splits: each month is tested by a model that learned from every month before it and nothing later."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from services.contracts.flights import CATEGORICAL, EVENT_TIME, FEATURES
from services.etl.errors import LeakingSplit, NoTrainingData
from services.etl.transform import Features, Month

MIN_MONTHS: Final = 3
"""One to learn from, one to weigh the models on, one that nothing has seen to measure the ensemble."""
ENSEMBLE_SIZE: Final = 3
"""The newest models that have not seen the month on which they are weighed: each older one knows less, and each one
more is another forest to score for every prediction."""


COPY_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Split:
    """Learn from `train`, test on `test`; consecutive months, oldest first."""

    train: tuple[Month, ...]
    test: Month

    @property
    def month(self) -> str:
        return self.test.label


@dataclass(frozen=True, slots=True)
class EnsemblePlan:
    """The splits whose models are combined, the month on which they are weighed, and the month that measures it all."""

    bases: tuple[Split, ...]
    blend: Month
    test: Month


def walk_forward(months: Sequence[Month]) -> tuple[Split, ...]:
    """January to February, January and February to March, ...: one split for each month but the first.

    Raises NoTrainingData when there are too few months or one is missing in between, LeakingSplit when a month holds
    rows that are not later than all before it.
    """
    labels = [month.label for month in months]
    if len(months) < MIN_MONTHS:
        raise NoTrainingData(
            f"there are {len(months)} months with rows ({', '.join(labels) or 'none'}), a walk-forward needs "
            f"{MIN_MONTHS}: load more months"
        )
    for before, after in itertools.pairwise(months):
        if _number(after.label) != _number(before.label) + 1:
            raise NoTrainingData(
                f"{before.label} is followed by {after.label}: no month in between has a row; load what is missing, "
                "or its rows broke the contract"
            )
        if not before.last < after.first:
            raise LeakingSplit(
                f"{before.label} has rows until {before.last.isoformat()}, {after.label} from "
                f"{after.first.isoformat()}: training must end before testing starts"
            )
    return tuple(Split(tuple(months[:i]), months[i]) for i in range(1, len(months)))


def ensemble_of(splits: Sequence[Split]) -> EnsemblePlan:
    """Weighed on the last month but one, where the newest base was tested; measured on the last."""
    *earlier, newest = splits
    return EnsemblePlan(tuple(earlier[-ENSEMBLE_SIZE:]), earlier[-1].test, newest.test)


def write_rows(features_csv: Path, features: Features, months: Sequence[Month], out: Path) -> None:
    """Copy the header and these consecutive months' rows to a file of their own; LeakingSplit when they are not what
    the plan says, read from the data itself."""
    with features_csv.open("rb") as source, out.open("wb") as target:
        target.write(source.read(features.header))
        source.seek(months[0].begin)
        remaining = months[-1].end - months[0].begin
        while remaining > 0 and (block := source.read(min(remaining, COPY_BYTES))):
            target.write(block)
            remaining -= len(block)
    first, last = span(out)
    if (first, last) != (months[0].first, months[-1].last):
        raise LeakingSplit(
            f"{out} holds rows from {first.isoformat()} to {last.isoformat()}, planned were "
            f"{months[0].first.isoformat()} to {months[-1].last.isoformat()}: train again from a new cut"
        )


def write_cover(source: Path, out: Path) -> None:
    """The rows that show a carrier or an airport for the first time, so that a reader learns every level there is."""
    columns = [FEATURES.index(name) for name in FEATURES if name in CATEGORICAL]
    seen: set[tuple[int, str]] = set()
    with source.open(newline="") as lines, out.open("w", newline="") as target:
        rows, writer = csv.reader(lines), csv.writer(target, lineterminator="\n")
        writer.writerow(next(rows))
        for row in rows:
            if new := {(column, row[column]) for column in columns} - seen:
                seen |= new
                writer.writerow(row)


def span(path: Path) -> tuple[datetime, datetime]:
    """First and last event time in a file of rows; NoTrainingData when it has none."""
    with path.open(newline="") as lines:
        rows = csv.reader(lines)
        column = next(rows).index(EVENT_TIME)
        moments = {row[column] for row in rows}
    if not moments:
        raise NoTrainingData(f"{path} has no rows: its month is empty")
    times = [datetime.fromisoformat(moment) for moment in moments]
    return min(times), max(times)


def _number(label: str) -> int:
    year, month = label.split("-")
    return int(year) * 12 + int(month)
