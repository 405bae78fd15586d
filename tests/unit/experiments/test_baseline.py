"""The action that lets load run undisturbed: it waits for a steady stretch, and no longer than it may."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from experiments.evidence import EVENTS_FILE
from experiments.faults.phases import CALM_S, FLUSHED_S, baseline
from services.contracts.events import read_events
from tests.unit.experiments.synthetic_run import KILL, S, Synthetic

UNDISTURBED_S = 30
SECONDS = 10


@pytest.mark.parametrize(
    ("held_up_s", "settle_s", "settled_s"),
    [
        pytest.param(None, 20, 0, id="steady at once"),
        pytest.param((-21.0, -20.6), 20, 0, id="one stall is no noise"),
        pytest.param((-26.0, -18.0), 1, 1, id="never steady, and given up"),
        pytest.param((-26.0, -18.0), 20, 10, id="steady later"),
    ],
)
def test_the_baseline_is_the_first_steady_stretch(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    held_up_s: tuple[float, float] | None,
    settle_s: float,
    settled_s: float,
) -> None:
    begun_ns = KILL - UNDISTURBED_S * S
    clock = [begun_ns]
    monkeypatch.setattr(time, "monotonic_ns", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.append(clock.pop() + int(seconds * S)))
    run = Synthetic(baseline_s=UNDISTURBED_S, fault_s=1, recovery_s=1, held_up_s=held_up_s).write(tmp_path / "run")
    (run / EVENTS_FILE).unlink()

    said = baseline(str(run), seconds=SECONDS, settle_s=settle_s)

    marks = {event.kind: event.t_ns for event in read_events(run / EVENTS_FILE)}
    assert marks["undisturbed"] == begun_ns
    assert said["settled_s"] == pytest.approx(settled_s, abs=1)
    assert marks["baseline"] == begun_ns + int(said["settled_s"] * S)
    assert clock[0] - marks["baseline"] == (SECONDS + FLUSHED_S + CALM_S) * S
