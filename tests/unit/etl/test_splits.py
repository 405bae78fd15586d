"""Walk-forward: every month but the first is tested by all before it, and nothing learned from is later than a test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.flights import FEATURES
from services.etl.errors import LeakingSplit, NoTrainingData
from services.etl.splits import ENSEMBLE_SIZE, MIN_MONTHS, ensemble_of, walk_forward, write_cover, write_rows
from services.etl.transform import Features, Month

HEADER = ",".join((*FEATURES, "late", "event_time")) + "\n"


def month(number: int) -> Month:
    """January 2013 is 0; ten bytes a month."""
    label = f"{2013 + number // 12}-{number % 12 + 1:02}"
    first = datetime.fromisoformat(f"{label}-01T05:00:00+00:00")
    return Month(
        label=label, begin=number * 10, end=number * 10 + 10, rows=3, first=first, last=first + timedelta(days=20)
    )


def row(time: datetime, *, carrier: str = "UA", dest: str = "IAH") -> str:
    values = {"carrier": carrier, "origin": "EWR", "dest": dest}
    return ",".join((*(values.get(name, "1") for name in FEATURES), "0", time.isoformat())) + "\n"


@given(st.integers(MIN_MONTHS, 24))
def test_each_split_learns_from_every_month_before_its_own(count: int) -> None:
    months = [month(i) for i in range(count)]
    splits = walk_forward(months)
    assert [split.month for split in splits] == [m.label for m in months[1:]]
    for number, split in enumerate(splits, 1):
        assert split.train == tuple(months[:number])
        assert max(m.last for m in split.train) < split.test.first
    plan = ensemble_of(splits)
    assert (plan.blend, plan.test) == (months[-2], months[-1])
    assert len(plan.bases) == min(ENSEMBLE_SIZE, count - 2)
    # no base has learned from the month that weighs them, and nothing at all from the month that measures
    assert max(m.last for base in plan.bases for m in base.train) < plan.blend.first < plan.test.first


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_months_are_refused(count: int) -> None:
    with pytest.raises(NoTrainingData, match=f"there are {count} months with rows .* needs 3: load more months"):
        walk_forward([month(i) for i in range(count)])


def test_a_month_without_data_between_others_is_named() -> None:
    with pytest.raises(NoTrainingData, match="2013-02 is followed by 2013-05: no month in between has a row"):
        walk_forward([month(0), month(1), month(4)])


def test_a_split_that_leaks_is_refused() -> None:
    leaking = month(1).model_copy(update={"last": month(2).first})
    with pytest.raises(LeakingSplit, match="training must end before testing starts"):
        walk_forward([month(0), leaking, month(2)])


def file_of(path: Path, days: list[int]) -> Features:
    """January 2013, one row for each of `days`, written as one month."""
    times = [datetime(2013, 1, day, 12, tzinfo=UTC) for day in days]
    path.write_text(HEADER + "".join(row(time) for time in times))
    only = Month(
        label="2013-01",
        begin=len(HEADER),
        end=path.stat().st_size,
        rows=len(days),
        first=min(times),
        last=max(times),
    )
    return Features(header=len(HEADER), months=(only,), rejected={})


def test_a_months_rows_are_copied_with_their_header(tmp_path: Path) -> None:
    features = file_of(tmp_path / "features.csv", [1, 2, 3])
    write_rows(tmp_path / "features.csv", features, features.months, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "features.csv").read_bytes()


def test_a_file_that_holds_other_rows_than_planned_is_refused(tmp_path: Path) -> None:
    features = file_of(tmp_path / "features.csv", [1, 2, 3])
    file_of(tmp_path / "features.csv", [1, 2, 9])
    with pytest.raises(LeakingSplit, match="planned were 2013-01-01T12:00:00"):
        write_rows(tmp_path / "features.csv", features, features.months, tmp_path / "out.csv")


def test_a_month_that_lost_its_rows_is_refused(tmp_path: Path) -> None:
    features = file_of(tmp_path / "features.csv", [1])
    (tmp_path / "features.csv").write_text(HEADER)
    with pytest.raises(NoTrainingData, match="has no rows"):
        write_rows(tmp_path / "features.csv", features, features.months, tmp_path / "out.csv")


def test_the_cover_shows_each_level_once(tmp_path: Path) -> None:
    time = datetime(2013, 1, 1, tzinfo=UTC)
    rows = [row(time), row(time), row(time, carrier="B6"), row(time, dest="BOS"), row(time, carrier="B6", dest="BOS")]
    (tmp_path / "all.csv").write_text(HEADER + "".join(rows))
    write_cover(tmp_path / "all.csv", tmp_path / "cover.csv")
    assert (tmp_path / "cover.csv").read_text() == HEADER + rows[0] + rows[2] + rows[3]
