"""The ceiling on what is in progress, and that a place always comes back."""

from __future__ import annotations

import pytest

from services.api.admission import Admission
from services.api.problems import Overloaded


def test_beyond_the_ceiling_it_refuses_with_a_time_to_retry() -> None:
    admission = Admission(2, "predictions")
    with admission, admission:
        with pytest.raises(Overloaded, match="2 predictions are in progress") as refused, admission:
            pass
        response = refused.value.response()
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert admission.in_flight == 2
    assert admission.in_flight == 0


def test_a_failure_gives_its_place_back() -> None:
    admission = Admission(1, "writes")
    with pytest.raises(ValueError, match="failed"), admission:
        raise ValueError("failed")
    with admission:
        assert admission.in_flight == 1
