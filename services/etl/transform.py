"""From the cut's stored vectors to the training file: every row against the contract that the API serves."""

from __future__ import annotations

import csv
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from services.contracts.flights import EVENT_TIME, FEATURES, TARGET, FlightFeatures
from services.etl.errors import NoTrainingData

MONTH_ZONE: Final = ZoneInfo("America/New_York")
"""All three origins keep New York time; a month is a month there, and so is a batch."""


class Month(BaseModel):
    """One month's rows in the training file: its bytes from `begin` up to `end`, and what they hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    begin: int
    end: int
    rows: int
    first: AwareDatetime
    last: AwareDatetime


class Features(BaseModel):
    """What the training file holds. `rejected`: how many rows broke the contract, by reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    header: int
    months: tuple[Month, ...]
    rejected: dict[str, int]

    @property
    def rows(self) -> int:
        return sum(month.rows for month in self.months)


def transform(cut: Path, features_csv: Path, rejected_jsonl: Path) -> Features:
    """Write the rows that keep the contract as CSV (its features in order, `late`, `event_time`; missing is empty), and
    those that break it, whole and with the reason, as JSON lines.

    The order is the cut's: by time. Raises NoTrainingData when no row keeps the contract.
    """
    months: list[Month] = []
    reasons: Counter[str] = Counter()
    with (
        cut.open("rb") as lines,
        features_csv.open("w", newline="", encoding="utf-8") as out,
        rejected_jsonl.open("w") as rejected,
    ):
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow((*FEATURES, TARGET, EVENT_TIME))
        header = out.tell()
        for label, rows in itertools.groupby(_rows(lines), _MonthOf()):
            begin, times = out.tell(), []
            for departure, entity, late, vector in rows:
                try:
                    features = FlightFeatures.model_validate_json(vector)
                except ValidationError as error:
                    reason = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'row'}: {p['msg']}" for p in error.errors())
                    reasons[reason] += 1
                    kept = {"entity_id": entity, "event_time": _iso(departure), "reason": reason, "row": vector}
                    rejected.write(json.dumps(kept) + "\n")
                    continue
                writer.writerow((*(getattr(features, name) for name in FEATURES), late, _iso(departure)))
                times.append(departure)
            if times:
                end, first, last = out.tell(), _time(min(times)), _time(max(times))
                months.append(Month(label=label, begin=begin, end=end, rows=len(times), first=first, last=last))
    if not months:
        raise NoTrainingData(
            f"all {sum(reasons.values())} rows of the cut break the contract; {rejected_jsonl} has each with its reason"
        )
    return Features(header=header, months=tuple(months), rejected=dict(reasons))


class _MonthOf:
    """The label of a row's month; remembers the month it is in, because rows come by time."""

    def __init__(self) -> None:
        self._label, self._begin, self._end = "", 0, 0

    def __call__(self, row: tuple[int, str, str, str]) -> str:
        if not self._begin <= row[0] < self._end:
            local = datetime.fromtimestamp(row[0], MONTH_ZONE)
            year, month = divmod(local.year * 12 + local.month, 12)
            self._label = f"{local:%Y-%m}"
            self._begin = int(datetime(local.year, local.month, 1, tzinfo=MONTH_ZONE).timestamp())
            self._end = int(datetime(year, month + 1, 1, tzinfo=MONTH_ZONE).timestamp())
        return self._label


def _rows(lines: Iterator[bytes]) -> Iterator[tuple[int, str, str, str]]:
    for line in lines:
        departure, entity, late, vector = line.decode().rstrip("\n").split("\t", 3)
        yield int(departure), entity, late, vector


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _iso(seconds: int) -> str:
    return _time(seconds).isoformat()
