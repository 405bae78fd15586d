"""Quantities mean what Kubernetes means by them, however they are spelt."""

from __future__ import annotations

from decimal import Decimal

import pytest

from infra.kubernetes.quantity import amount


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("2", "2"),
        ("500m", "0.5"),
        ("1.5Gi", "1610612736"),
        ("1k", "1000"),
        ("64Mi", "67108864"),
        ("1e3", "1000"),
        ("2E", "2000000000000000000"),
        ("250u", "0.00025"),
    ],
)
def test_quantities_are_read_as_kubernetes_writes_them(written: str, means: str) -> None:
    assert amount(written) == Decimal(means)


def test_one_value_has_many_spellings() -> None:
    assert amount("8Gi") == amount("8192Mi") == amount(8589934592)
    assert amount("1000m") == amount("1") == amount(1)


@pytest.mark.parametrize("written", ["much", "", "1X", "Mi", "1 Gi", "-"])
def test_what_is_no_quantity_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        amount(written)
