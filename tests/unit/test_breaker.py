"""The breaker against a model of it: whatever the order of calls, outcomes, time and announcements."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.breaker import FAILURES, PROBE_S, RETRY_S, Breaker, State, Ticket


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class BreakerMachine(RuleBasedStateMachine):
    """Keeps, apart from the breaker, what a reader of its rules would: failures in a row, and who may probe."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker("it", monotonic=self.clock)
        self.told: list[State] = []
        self.breaker.listen(lambda breaker: self.told.append(breaker.state))
        self.calls: list[tuple[Ticket, int]] = []
        self.era = 0
        """Counts the breaker's changes of state: a call belongs to the one in which it was admitted."""
        self.state = State.CLOSED
        self.failures = 0
        self.since = self.clock.now
        self.announced = False

    def enter(self, state: State) -> None:
        self.era += 1
        self.state = state
        self.since = self.clock.now
        self.failures = 0

    def take(self, data: st.DataObject) -> tuple[Ticket, int]:
        return self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))

    @rule()
    def call(self) -> None:
        age = self.clock.now - self.since
        wanted = (
            self.state is State.CLOSED
            or (self.state is State.OPEN and (self.announced or age >= RETRY_S))
            or (self.state is State.HALF_OPEN and age >= PROBE_S)
        )
        ticket = self.breaker.admit()
        assert (ticket is not None) is wanted
        if ticket is None:
            return
        if self.state is not State.CLOSED:
            self.enter(State.HALF_OPEN)
            self.announced = False
        self.calls.append((ticket, self.era))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        ticket, era = self.take(data)
        self.breaker.succeeded(ticket)
        if era != self.era:
            self.announced = self.announced or self.state is not State.CLOSED
        elif self.state is State.CLOSED:
            self.failures = 0
        else:
            self.enter(State.CLOSED)
            self.announced = False

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        ticket, era = self.take(data)
        self.breaker.failed(ticket)
        if era != self.era:
            return
        self.failures += 1
        if self.state is State.HALF_OPEN or self.failures == FAILURES:
            self.enter(State.OPEN)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        ticket, era = self.take(data)
        self.breaker.dropped(ticket)
        if era == self.era and self.state is State.HALF_OPEN:
            self.enter(State.OPEN)
            self.announced = True

    @rule()
    def announce(self) -> None:
        self.breaker.announce()
        self.announced = self.announced or self.state is not State.CLOSED

    @rule()
    def trip(self) -> None:
        self.breaker.trip()
        self.enter(State.OPEN)
        self.announced = False

    @rule(seconds=st.sampled_from([0.1, PROBE_S, RETRY_S - PROBE_S, RETRY_S]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def agrees(self) -> None:
        assert self.breaker.state is self.state
        assert not self.told or self.told[-1] is self.state

    @invariant()
    def at_most_one_call_probes(self) -> None:
        if self.state is State.HALF_OPEN:
            assert sum(era == self.era for _, era in self.calls) <= 1


BreakerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestBreakerMachine = BreakerMachine.TestCase


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("it", monotonic=clock)


def fail(breaker: Breaker, times: int = FAILURES) -> None:
    for _ in range(times):
        ticket = breaker.admit()
        assert ticket is not None
        breaker.failed(ticket)


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not(breaker: Breaker) -> None:
    for _ in range(3):
        fail(breaker, FAILURES - 1)
        breaker.succeeded(breaker.admit() or 0)
    assert breaker.state == State.CLOSED
    fail(breaker)
    assert breaker.admit() is None


def test_cancellations_and_clients_errors_never_open_it(breaker: Breaker) -> None:
    for _ in range(10 * FAILURES):
        breaker.dropped(breaker.admit() or 0)
    fail(breaker, FAILURES - 1)
    assert breaker.state is State.CLOSED


def test_without_announcement_one_probe_after_the_pause(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += RETRY_S - 0.01
    assert breaker.admit() is None
    clock.now += 0.01
    probe = breaker.admit()
    assert probe is not None
    assert [breaker.admit() for _ in range(3)] == [None] * 3
    breaker.succeeded(probe)
    assert breaker.state is State.CLOSED


def test_an_announcement_lets_one_probe_in_at_once(breaker: Breaker) -> None:
    fail(breaker)
    breaker.announce()
    assert breaker.admit() is not None
    assert breaker.admit() is None


def test_an_announcement_during_a_probe_counts_for_the_next(breaker: Breaker) -> None:
    """The probe began before the dependency was back; its failure must not cost the pause."""
    fail(breaker)
    breaker.announce()
    probe = breaker.admit()
    breaker.announce()
    breaker.failed(probe or 0)
    assert breaker.admit() is not None


def test_a_late_success_of_an_earlier_call_is_an_announcement(breaker: Breaker) -> None:
    early = breaker.admit()
    fail(breaker)
    breaker.succeeded(early or 0)
    assert breaker.state is State.OPEN
    assert breaker.admit() is not None


def test_a_late_failure_of_an_earlier_call_is_nothing(breaker: Breaker) -> None:
    early = [breaker.admit() for _ in range(FAILURES)]
    fail(breaker)
    breaker.announce()
    breaker.succeeded(breaker.admit() or 0)
    for ticket in early:
        breaker.failed(ticket or 0)
    assert breaker.state is State.CLOSED
