"""The keeper's rules over combinations of facts, and suspicion over time, without servers or sleeping."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.h2o.decision import (
    ALARM_AFTER,
    CLOCK_GAP_S,
    FORM_LIMIT_S,
    LONGEST_BACK_OFF_S,
    REFUSALS,
    SAMPLE_EVERY_S,
    SAMPLES,
    STABLE_S,
    STALE_S,
    Action,
    Decision,
    Facts,
    Node,
    Port,
    Process,
    State,
    Suspicion,
    back_off_s,
    decide,
    failures_after,
    state_of,
)

UP = Node("h2o-0", agent=True, process=Process.RUNNING, port=Port.OPEN)
ONES = [
    Node("h2o-1", agent, process, port, refusals, suspect)
    for agent, process, port, refusals, suspect in product(
        (True, False), Process, Port, (0, 1, REFUSALS), (False, True)
    )
]
ALL_FACTS = [
    Facts(7, (UP, one, replace(UP, name="h2o-2")), whole, formed_s, raised_s, failures)
    for one, whole, formed_s, raised_s, failures in product(
        ONES, (False, True), (None, 1.0, STABLE_S), (0.0, FORM_LIMIT_S, 10 * LONGEST_BACK_OFF_S), (0, ALARM_AFTER)
    )
]


def facts(one: Node = UP, *, whole: bool = False, formed_s: float | None = 100.0, raised_s: float = 200.0) -> Facts:
    return Facts(7, (UP, replace(one, name="h2o-1")), whole, formed_s, raised_s, failures=0)


def test_an_epoch_is_raised_only_over_what_is_certain() -> None:
    for case in ALL_FACTS:
        if decide(case).action is Action.RAISE:
            dead = any(node.process is Process.EXITED or node.refusals >= REFUSALS for node in case.nodes)
            never_whole = case.formed_s is None and not case.whole and case.raised_s >= FORM_LIMIT_S
            assert dead or never_whole, case
            assert case.raised_s >= back_off_s(case.failures), case


def test_silence_alone_restarts_nothing() -> None:
    for case in ALL_FACTS:
        if case.formed_s is not None and not any(node.dead for node in case.nodes):
            assert decide(case).action is not Action.RAISE, case


def test_a_node_is_killed_only_as_a_suspect_whose_agent_can_do_it() -> None:
    for case in ALL_FACTS:
        decision = decide(case)
        if decision.action is Action.KILL:
            [victim] = [node for node in case.nodes if node.name == decision.node]
            assert victim.suspect, case
            assert victim.agent, case
            assert victim.process is Process.RUNNING, case
            assert not any(node.dead for node in case.nodes), case


def test_a_dead_node_of_a_whole_cloud_is_acted_on_as_soon_as_the_back_off_allows() -> None:
    for case in ALL_FACTS:
        if case.formed_s is not None and any(node.dead for node in case.nodes):
            expected = Action.RAISE if case.raised_s >= back_off_s(case.failures) else Action.NOTHING
            assert decide(case).action is expected, case


def test_ready_means_whole_and_nothing_to_do() -> None:
    for case in ALL_FACTS:
        decision = decide(case)
        if state_of(case, decision) is State.READY:
            assert case.whole, case
            assert decision == Decision(Action.NOTHING, "whole"), case


@pytest.mark.parametrize(
    ("case", "decision"),
    [
        (Facts(0, (), whole=False, formed_s=None, raised_s=0.0, failures=0), Decision(Action.RAISE, "first")),
        (facts(whole=True), Decision(Action.NOTHING, "whole")),
        (facts(replace(UP, port=Port.SILENT)), Decision(Action.NOTHING, "silent_for_now")),
        (facts(replace(UP, port=Port.REFUSED, refusals=1)), Decision(Action.NOTHING, "silent_for_now")),
        (facts(replace(UP, refusals=REFUSALS)), Decision(Action.RAISE, "port_refused", "h2o-1")),
        (facts(replace(UP, process=Process.EXITED)), Decision(Action.RAISE, "process_exited", "h2o-1")),
        (facts(replace(UP, suspect=True)), Decision(Action.KILL, "silent", "h2o-1")),
        (facts(replace(UP, suspect=True, agent=False)), Decision(Action.NOTHING, "suspect_unreachable", "h2o-1")),
        (facts(formed_s=None, raised_s=FORM_LIMIT_S - 1), Decision(Action.NOTHING, "forming")),
        (facts(formed_s=None, raised_s=FORM_LIMIT_S), Decision(Action.RAISE, "not_formed")),
        (facts(replace(UP, agent=False), formed_s=None), Decision(Action.NOTHING, "agent_away", "h2o-1")),
        (
            facts(replace(UP, agent=False, refusals=REFUSALS), formed_s=None),
            Decision(Action.NOTHING, "agent_away", "h2o-1"),
        ),
        (facts(replace(UP, process=Process.UNREPORTED), formed_s=None), Decision(Action.NOTHING, "starting", "h2o-1")),
    ],
)
def test_each_rule(case: Facts, decision: Decision) -> None:
    assert decide(case) == decision


def test_failures_in_a_row_wait_longer_each_and_call_a_human() -> None:
    case = Facts(1, (replace(UP, process=Process.EXITED),), whole=False, formed_s=None, raised_s=0.0, failures=0)
    waits = []
    for _ in range(ALARM_AFTER + 20):
        wait = back_off_s(case.failures)
        early = replace(case, raised_s=wait - 0.01)
        if wait:
            assert decide(early).reason == "backing_off"
        assert decide(replace(case, raised_s=wait)).action is Action.RAISE
        alarmed = state_of(early, decide(early)) is State.ALARM
        assert alarmed == (case.failures >= ALARM_AFTER)
        waits.append(wait)
        case = replace(case, failures=failures_after(case))
    assert waits[0] == 0.0
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_BACK_OFF_S


def test_a_cloud_that_held_begins_again_without_back_off() -> None:
    assert failures_after(replace(facts(formed_s=STABLE_S), failures=5)) == 0
    assert failures_after(replace(facts(formed_s=STABLE_S - 1), failures=5)) == 6


ages = st.one_of(st.none(), st.floats(0, 60))
steps = st.floats(0.05, CLOCK_GAP_S)


@given(st.lists(st.tuples(steps, ages), max_size=200))
def test_a_suspect_was_silent_in_every_look_for_as_long_as_the_samples_take(
    looks: list[tuple[float, float | None]],
) -> None:
    suspicion, now, silent_since = Suspicion(), 0.0, None
    for step, age in looks:
        now += step
        suspicion = suspicion.look(now, age)
        if age is None or age < STALE_S:
            silent_since = None
        elif silent_since is None:
            silent_since = now
        if suspicion.suspect:
            assert silent_since is not None
            assert now - silent_since >= (SAMPLES - 1) * SAMPLE_EVERY_S
        elif silent_since is not None:
            assert now - silent_since <= (SAMPLES - 1) * (SAMPLE_EVERY_S + CLOCK_GAP_S)


@given(st.floats(0, 19), st.floats(0.1, 1.0))
def test_a_pause_shorter_than_the_samples_makes_no_suspect(pause_s: float, every_s: float) -> None:
    """A node that is stopped for that long, and speaks again."""
    suspicion, now = Suspicion(), 0.0
    while now < pause_s:
        now += every_s
        suspicion = suspicion.look(now, min(now, pause_s))
        assert not suspicion.suspect
    assert not suspicion.look(now + every_s, 0.0).bad


def test_a_keeper_that_did_not_look_begins_anew() -> None:
    suspicion = Suspicion(bad=SAMPLES - 1, sampled_s=0.0, looked_s=0.0)
    assert suspicion.look(SAMPLE_EVERY_S / 2, 30.0).look(SAMPLE_EVERY_S, 30.0).suspect
    assert not suspicion.look(100.0, 100.0).suspect
