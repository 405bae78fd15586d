"""The rule of promotion: better than a constant, and better than what serves by more than chance, on the same rows."""

from __future__ import annotations

import pytest

from services.etl.promotion import MIN_GAIN, decide
from services.h2o.trained import Comparison, Measured
from services.registry.card import Metrics

CONSTANT = 0.60


def decided(candidate: float, serving: float | None) -> tuple[bool, str]:
    comparison = Comparison(
        serving=None if serving is None else Measured(auc=0.7, logloss=serving),
        constant=Measured(auc=0.5, logloss=CONSTANT),
    )
    decision = decide(Metrics(auc=0.7, logloss=candidate, prior=0.2), comparison)
    return decision.promote, decision.reason


@pytest.mark.parametrize(
    ("candidate", "serving", "promote", "reason"),
    [
        (0.50, None, True, "nothing serves yet"),
        (0.60, None, False, "not better than that of always the same answer, 0.6000"),
        (0.61, 0.70, False, "not better than that of always the same answer"),
        (0.50, 0.52, True, "0.5000 against 0.5200 of what serves, on the same rows: better by 0.0200"),
        (0.50, 0.50, False, f"not better by {MIN_GAIN}"),
        (0.50, 0.50 + MIN_GAIN / 2, False, f"not better by {MIN_GAIN}"),
        (0.52, 0.50, False, f"not better by {MIN_GAIN}"),
    ],
)
def test_the_rule(candidate: float, serving: float | None, promote: bool, reason: str) -> None:
    assert decided(candidate, serving)[0] is promote
    assert reason in decided(candidate, serving)[1]
