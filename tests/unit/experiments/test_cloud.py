"""S-03: its checkers say true, false and unknown where they must; the probe knows a whole cloud from any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.checkers.cloud import cloud_whole_again, loss_noticed, same_model, training_finished
from experiments.checkers.finding import Checker, Verdict
from experiments.evidence import Evidence
from experiments.history import History
from experiments.probes.h2o import lacking
from services.contracts.events import Event
from tests.unit.experiments.direct import event, promise, run

TRUE, FALSE, UNKNOWN = Verdict.TRUE, Verdict.FALSE, Verdict.UNKNOWN
CHECKERS: dict[str, Checker] = {
    "loss-noticed": loss_noticed,
    "whole-again": cloud_whole_again,
    "training-finished": training_finished,
    "same-model": same_model,
}
METRICS = {"auc": 0.7, "logloss": 0.5, "prior": 0.2}


def trained(name: str, second: float, *, clouds: int = 1, **more: Any) -> Event:
    data: dict[str, Any] = {"clouds": clouds, "metrics": METRICS, "golden": [0.25, 0.5], **more}
    return event(second, "training", "trained", name, **data)


def story(**changes: Any) -> list[Event]:
    """A sound run's events, by name; a change of None takes one away."""
    events: dict[str, Event | None] = {
        "watched": event(-20, "h2o", "whole", cloud="bw-2"),
        "undisturbed": trained("undisturbed", -15),
        "killed": event(0, "fault", "killed", "h2o-1", progress=40),
        "epoch": event(0.2, "h2o", "epoch", generation=3, reason="process_exited"),
        "broken": event(0.5, "h2o", "broken", why="h2o-1 does not answer"),
        "whole": event(20, "h2o", "whole", cloud="bw-3"),
        "disturbed": trained("disturbed", 25, clouds=2),
        "stalled": None,
        "again": None,
        **changes,
    }
    return [found for found in events.values() if found is not None]


AGAIN = event(4, "fault", "killed_another", "h2o-2")
STALLED = event(0.1, "machine", "stalled", what="processor", ns=2_000_000_000)
CASES: list[tuple[str, Verdict, dict[str, Any], dict[str, Any]]] = [
    ("loss-noticed", TRUE, {}, {}),
    ("loss-noticed", FALSE, {"epoch": event(5.1, "h2o", "epoch", generation=3, reason="silent")}, {}),
    ("loss-noticed", FALSE, {"epoch": None}, {}),
    ("loss-noticed", FALSE, {"again": AGAIN}, {}),  # the second loss was never noticed
    ("loss-noticed", UNKNOWN, {"epoch": None}, {"fault_s": 2.0, "recovery_s": 1.0}),
    ("loss-noticed", UNKNOWN, {}, {"proven": False}),
    ("loss-noticed", UNKNOWN, {"watched": None, "undisturbed": None}, {}),
    ("loss-noticed", UNKNOWN, {"watched": event(-20, "h2o", "broken", why="forming")}, {}),
    ("loss-noticed", UNKNOWN, {"epoch": event(6, "h2o", "epoch", generation=3, reason="x"), "stalled": STALLED}, {}),
    ("whole-again", TRUE, {}, {}),
    ("whole-again", FALSE, {"whole": event(61, "h2o", "whole", cloud="bw-3")}, {"fault_s": 70.0}),
    ("whole-again", FALSE, {"whole": None}, {"fault_s": 90.0}),
    ("whole-again", FALSE, {"again": event(21, "fault", "killed_another", "h2o-2")}, {"fault_s": 90.0}),
    ("whole-again", UNKNOWN, {"whole": None}, {}),
    ("whole-again", UNKNOWN, {"broken": None}, {}),
    ("whole-again", UNKNOWN, {}, {"proven": False}),
    ("training-finished", TRUE, {}, {}),
    ("training-finished", FALSE, {"disturbed": event(25, "training", "failed", "disturbed", error="lost")}, {}),
    ("training-finished", UNKNOWN, {"disturbed": None}, {}),
    ("training-finished", UNKNOWN, {"disturbed": trained("disturbed", 25, clouds=1)}, {}),
    ("training-finished", UNKNOWN, {"killed": event(0, "fault", "killed", "h2o-1", progress=96)}, {}),
    ("training-finished", UNKNOWN, {"killed": event(0, "fault", "killed", "h2o-1")}, {}),
    ("training-finished", UNKNOWN, {}, {"proven": False}),
    ("same-model", TRUE, {}, {}),
    ("same-model", FALSE, {"disturbed": trained("disturbed", 25, clouds=2, metrics={**METRICS, "auc": 0.70001})}, {}),
    ("same-model", FALSE, {"disturbed": trained("disturbed", 25, clouds=2, golden=[0.25, 0.500002])}, {}),
    ("same-model", UNKNOWN, {"disturbed": trained("disturbed", 25, clouds=2, golden=[0.25])}, {}),
    ("same-model", UNKNOWN, {"disturbed": trained("disturbed", 25)}, {}),
    ("same-model", UNKNOWN, {"undisturbed": None}, {}),
    ("same-model", UNKNOWN, {}, {"proven": False}),
]


def judged(name: str, events: Sequence[Event], **options: Any) -> Any:
    ordered = tuple(sorted(events, key=lambda each: each.t_ns))
    return CHECKERS[name](History.empty(), Evidence(events=ordered), promise("s03.yaml", name), run(**options))


@pytest.mark.parametrize(("name", "verdict", "changes", "options"), CASES)
def test_verdict(name: str, verdict: Verdict, changes: dict[str, Any], options: dict[str, Any]) -> None:
    finding = judged(name, story(**changes), **options)
    assert finding.verdict is verdict, finding.reason


def test_every_promise_is_seen_true_false_and_unknown() -> None:
    for name in CHECKERS:
        assert {verdict for each, verdict, _, _ in CASES if each == name} == {TRUE, FALSE, UNKNOWN}


@settings(deadline=None)
@given(kills=st.lists(st.floats(0.5, 20), max_size=3), delay=st.floats(0.05, 9.0))
def test_the_slowest_notice_of_all_kills_counts(kills: list[float], delay: float) -> None:
    others = [event(second, "fault", "killed_another", "h2o-2") for second in kills]
    last = max(kills, default=0.0)
    noticed = event(last + delay, "h2o", "epoch", generation=9, reason="process_exited")
    finding = judged("loss-noticed", [*story(epoch=None), *others, noticed])
    assert finding.value == pytest.approx(last + delay, abs=1e-6)
    assert finding.n == 1 + len(kills)


def test_a_cloud_is_whole_only_when_every_node_says_the_same() -> None:
    whole = {"cloud_name": "bw-3", "cloud_size": 2, "consensus": True, "cloud_healthy": True, "bad_nodes": 0}
    assert lacking({"h2o-0": whole, "h2o-1": whole}) is None
    for changed, said in (
        ({"cloud_size": 1}, "sees 1 of 2 nodes"),
        ({"consensus": False}, "not in consensus"),
        ({"cloud_healthy": False}, "not healthy"),
        ({"bad_nodes": 1}, "not healthy"),
        ({"cloud_name": "bw-2"}, "2 clouds: bw-2, bw-3"),
    ):
        assert said in str(lacking({"h2o-0": whole, "h2o-1": {**whole, **changed}}))
    assert lacking({"h2o-0": whole, "h2o-1": None}) == "h2o-1 does not answer"
