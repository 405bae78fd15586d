"""The warden's rules over every combination of facts, and its suspicion over time, without servers or sleeping."""

from itertools import product

import pytest

from services.postgres.decision import (
    CLOCK_GAP_S,
    MIN_UNANSWERED,
    Action,
    Decision,
    Facts,
    Patroni,
    Postgres,
    Suspicion,
    decide,
)

ALL_FACTS = [
    Facts(patroni, postgres, *flags)
    for patroni, postgres, flags in product(Patroni, Postgres, product((False, True), repeat=5))
]
FENCE_AFTER_S = 12.0


def test_all_combinations_are_tried() -> None:
    assert len(ALL_FACTS) == len(set(ALL_FACTS)) == 2 * 5 * 2**5


def test_a_leadership_is_given_back_only_by_the_certainly_dead() -> None:
    for facts in ALL_FACTS:
        if decide(facts).action is Action.RELEASE:
            assert (facts.patroni, facts.postgres) == (Patroni.DEAD, Postgres.GONE), facts
            assert facts.leads, facts
            assert facts.alone, facts


def test_postgres_is_killed_only_without_patroni_and_while_none_can_start() -> None:
    for facts in ALL_FACTS:
        if decide(facts).action is Action.FENCE:
            assert facts.patroni is Patroni.DEAD, facts
            assert facts.alone, facts
            assert facts.postgres is Postgres.PRIMARY or (facts.postgres is Postgres.STANDBY and facts.leads), facts


def test_patroni_is_killed_only_when_silent_over_a_primary_that_runs() -> None:
    for facts in ALL_FACTS:
        if decide(facts).action is Action.KILL_PATRONI:
            assert (facts.patroni, facts.postgres) == (Patroni.ALIVE, Postgres.PRIMARY), facts
            assert facts.silent, facts
            assert not facts.stopped, facts


def test_maintenance_and_a_member_paused_whole_are_left_alone() -> None:
    for facts in ALL_FACTS:
        if facts.maintenance or (facts.stopped and facts.patroni is Patroni.ALIVE):
            assert decide(facts).action is Action.NOTHING, facts


def test_what_must_be_done_is_done() -> None:
    for facts in ALL_FACTS:
        action = decide(facts).action
        if facts.maintenance:
            continue
        if facts.patroni is Patroni.DEAD and facts.alone and facts.postgres is Postgres.PRIMARY:
            assert action is Action.FENCE, facts
        if facts.patroni is Patroni.DEAD and facts.alone and facts.postgres is Postgres.GONE and facts.leads:
            assert action is Action.RELEASE, facts
        if facts.patroni is Patroni.ALIVE and facts.silent and not facts.stopped:
            assert (action is Action.KILL_PATRONI) == (facts.postgres is Postgres.PRIMARY), facts


@pytest.mark.parametrize(
    ("facts", "decision"),
    [
        (Facts(Patroni.ALIVE, Postgres.PRIMARY, True, False, False, False, False), "patroni_alive"),
        (Facts(Patroni.ALIVE, Postgres.PRIMARY, True, False, False, True, True), "paused_whole"),
        (Facts(Patroni.DEAD, Postgres.PRIMARY, True, False, False, False, False), "patroni_restarted"),
        (Facts(Patroni.DEAD, Postgres.ATTACHED, True, True, False, False, False), "shared_memory_attached"),
        (Facts(Patroni.DEAD, Postgres.UNSEEN, True, True, False, False, False), "postgres_never_seen"),
        (Facts(Patroni.DEAD, Postgres.UNSEEN, False, True, False, False, False), "did_not_lead"),
        (Facts(Patroni.DEAD, Postgres.STANDBY, False, True, False, False, False), "standby"),
        (Facts(Patroni.DEAD, Postgres.GONE, False, True, False, False, False), "did_not_lead"),
        (Facts(Patroni.DEAD, Postgres.GONE, True, True, True, False, False), "maintenance"),
    ],
)
def test_a_refusal_says_why(facts: Facts, decision: str) -> None:
    assert decide(facts) == Decision(Action.NOTHING, decision)


HEARD = Suspicion(since_s=0.0, looked_s=0.0, in_vain=0, discounted=0, heard=True)


def silence(
    seconds: float, *, step_s: float = 0.25, stopped_at: float | None = None, in_vain_per_s: float = 1.0
) -> tuple[Suspicion, float]:
    """Suspicion after that much silence with looks every `step_s`; the last answer came at time 0."""
    suspicion, now = HEARD, 0.0
    while now < seconds:
        now += step_s
        stopped = stopped_at is not None and abs(now - stopped_at) < step_s / 2
        suspicion = suspicion.look(now, answered_s=0.0, in_vain=int(now * in_vain_per_s), stopped=stopped)
    return suspicion, now


def test_silence_counts_from_the_last_answer() -> None:
    suspicion, now = silence(FENCE_AFTER_S - 0.25)
    assert not suspicion.silent(now, FENCE_AFTER_S)
    suspicion, now = silence(FENCE_AFTER_S)
    assert suspicion.silent(now, FENCE_AFTER_S)
    answered = suspicion.look(now + 0.25, answered_s=now + 0.1, in_vain=0, stopped=False)
    assert answered.silence_s(now + 0.25) == pytest.approx(0.15)


def test_a_warden_that_did_not_ask_has_heard_nothing() -> None:
    suspicion, now = silence(60.0, in_vain_per_s=(MIN_UNANSWERED - 1) / 60.0)
    assert not suspicion.silent(now, FENCE_AFTER_S)


def test_a_patroni_that_never_answered_is_not_silent() -> None:
    """A warden that asks at the wrong address must not kill a healthy primary for it."""
    suspicion, now = Suspicion.first(0.0), 0.0
    while now < 10 * FENCE_AFTER_S:
        now += 1.0
        suspicion = suspicion.look(now, answered_s=0.0, in_vain=int(now), stopped=False)
    assert not suspicion.silent(now, FENCE_AFTER_S)
    answered = suspicion.look(now + 1.0, answered_s=now + 0.5, in_vain=0, stopped=False)
    assert answered.heard
    assert answered.anew(now, 0).heard


def test_a_paused_member_starts_anew_when_it_resumes() -> None:
    suspicion, now = silence(11.0, stopped_at=10.0)
    assert suspicion.silence_s(now) == pytest.approx(1.0)
    suspicion, now = silence(10.0 + FENCE_AFTER_S, stopped_at=10.0)
    assert suspicion.silent(now, FENCE_AFTER_S)


def test_a_warden_that_was_paused_starts_anew() -> None:
    suspicion, now = silence(FENCE_AFTER_S - 1.0)
    woken = now + 3600.0
    suspicion = suspicion.look(woken, answered_s=0.0, in_vain=11, stopped=False)
    assert not suspicion.silent(woken, FENCE_AFTER_S)
    later = woken
    for _ in range(int(FENCE_AFTER_S)):
        later += 1.0
        suspicion = suspicion.look(later, answered_s=0.0, in_vain=12, stopped=False)
    assert not suspicion.silent(later, FENCE_AFTER_S), "what was asked in vain before the pause does not count"
    suspicion = suspicion.look(later + 0.25, answered_s=0.0, in_vain=11 + MIN_UNANSWERED, stopped=False)
    assert suspicion.silent(later + 0.25, FENCE_AFTER_S)


def test_looks_within_the_gap_are_no_pause() -> None:
    suspicion, now = silence(FENCE_AFTER_S, step_s=CLOCK_GAP_S)
    assert suspicion.silent(now, FENCE_AFTER_S)
