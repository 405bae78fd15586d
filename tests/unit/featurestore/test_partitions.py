"""Which months have partitions, and which are old enough to go."""

from __future__ import annotations

from datetime import UTC, date, datetime

from services.featurestore.partitions import expired, month_after, months_between, standing_months


def test_months_cross_the_year() -> None:
    assert month_after(date(2013, 12, 31)) == date(2014, 1, 1)
    assert month_after(date(2014, 1, 15), -1) == date(2013, 12, 1)
    assert month_after(date(2013, 3, 1), -15) == date(2011, 12, 1)


def test_live_writes_have_last_month_and_three_to_come() -> None:
    assert standing_months(date(2026, 11, 22)) == [
        date(2026, 10, 1), date(2026, 11, 1), date(2026, 12, 1), date(2027, 1, 1), date(2027, 2, 1)
    ]  # fmt: skip


def test_months_between_holds_both_ends() -> None:
    assert months_between(date(2013, 11, 30), date(2014, 1, 1)) == [
        date(2013, 11, 1), date(2013, 12, 1), date(2014, 1, 1)
    ]  # fmt: skip


def test_retention_counts_from_the_newest_batch() -> None:
    names = ["features_2012_12", "features_2013_01", "features_2014_01", "outcomes_2012_12", "features_2026_11"]
    assert expired(names, datetime(2014, 1, 1, 4, 59, tzinfo=UTC)) == ["features_2012_12", "outcomes_2012_12"]
    assert expired(names, datetime(2013, 12, 31, 23, 59, tzinfo=UTC)) == []
