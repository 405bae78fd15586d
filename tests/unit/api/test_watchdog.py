"""When the watchdog calls a loop blocked, and when it does not: with a real loop, its own thread and real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest

from services.api.metrics import Metrics
from services.api.watchdog import PING_EVERY_S, RECOVERED_PINGS, Watchdog
from services.breaker import State
from tests.unit.api.models import until

LIMIT_S = 0.12


class Guarded:
    """A watchdog on a free port; `draining` is what the replica says of itself."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.draining = False
        self.metrics = Metrics()
        self.dog = Watchdog("127.0.0.1", self.port, LIMIT_S, self.metrics, lambda: self.draining)

    def asked(self) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as agent:
            return agent.recv(64)

    def pings(self) -> float:
        return self.metrics.registry.get_sample_value("breakwater_api_loop_lag_seconds_count") or 0.0


@pytest.fixture
async def guarded() -> AsyncIterator[Guarded]:
    guarded = Guarded()
    guarded.dog.start()
    await until(guarded.pings)
    yield guarded
    guarded.dog.close()


async def test_a_loop_that_turns_is_up_and_its_lag_is_measured(guarded: Guarded) -> None:
    assert await asyncio.to_thread(guarded.asked) == b"up\n"
    before = guarded.pings()
    await until(lambda: guarded.pings() > before)


async def test_a_blocked_loop_is_down_while_it_is_blocked_and_up_again_by_itself(guarded: Guarded) -> None:
    answers: list[bytes] = []

    def ask_while_blocked() -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and b"down #event loop blocked\n" not in answers:
            answers.append(guarded.asked())

    asking = asyncio.get_running_loop().run_in_executor(None, ask_while_blocked)
    blocked_until = time.monotonic() + 5
    while not answers or answers[-1] == b"up\n":
        time.sleep(0.01)  # noqa: ASYNC251 - the loop is to be blocked
        assert time.monotonic() < blocked_until, "the edge never heard of it"
    assert guarded.dog.breaker.state is State.OPEN
    await asking
    await until(lambda: guarded.dog.breaker.state is State.CLOSED)
    assert await asyncio.to_thread(guarded.asked) == b"up\n"


async def test_a_draining_replica_says_so(guarded: Guarded) -> None:
    guarded.draining = True
    assert await asyncio.to_thread(guarded.asked) == b"down #draining\n"


async def test_who_asks_and_hangs_up_disturbs_nothing(guarded: Guarded) -> None:
    def hang_up() -> None:
        for _ in range(20):
            socket.create_connection(("127.0.0.1", guarded.port)).close()

    await asyncio.to_thread(hang_up)
    assert await asyncio.to_thread(guarded.asked) == b"up\n"


def is_open(dog: Watchdog) -> bool:
    return dog.breaker.state is State.OPEN


def unanswered(dog: Watchdog, steps: list[float]) -> None:
    """A ping that is not answered while the thread wakes after each of these times."""
    dog._look(0.0, lambda: None)
    for step in steps:
        dog._look(step, lambda: None)


async def test_time_in_which_the_thread_itself_stood_still_does_not_count() -> None:
    stopped = Guarded().dog
    unanswered(stopped, [10.0])  # the machine, or the whole process, was away
    assert not is_open(stopped)
    unanswered(stopped, [PING_EVERY_S] * 2)
    assert is_open(stopped)


async def test_it_takes_several_answers_in_time_to_be_back() -> None:
    dog = Guarded().dog
    unanswered(dog, [PING_EVERY_S] * 3)
    for lag_s in (0.0, 0.0, 2 * LIMIT_S, *[0.0] * (RECOVERED_PINGS - 1)):
        dog._pong(time.monotonic() - lag_s)
    assert is_open(dog)
    dog._pong(time.monotonic())
    assert not is_open(dog)


async def test_it_ends_soon_and_frees_its_port(guarded: Guarded) -> None:
    await asyncio.to_thread(guarded.dog.close)
    socket.create_server(("127.0.0.1", guarded.port)).close()
