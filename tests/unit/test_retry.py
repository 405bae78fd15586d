"""Work is tried again when that may help, at most three times, and never past its deadline."""

from __future__ import annotations

import asyncio

import pytest

from services.retry import ATTEMPTS, FIRST_PAUSE_S, retried

FAR = 100.0


class Work:
    """Fails `failures` times, each taking `takes_s`, on a clock of its own."""

    def __init__(self, failures: int, takes_s: float = 0.0) -> None:
        self.failures = failures
        self.takes_s = takes_s
        self.attempts = 0
        self.now = 0.0
        self.pauses: list[float] = []

    async def attempt(self) -> str:
        self.attempts += 1
        self.now += self.takes_s
        if self.attempts <= self.failures:
            raise OSError(f"attempt {self.attempts}")
        return "done"

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def run(self, *, give_up_at: float = FAR, again: bool = True) -> str:
        return await retried(
            self.attempt,
            again=lambda error: again and isinstance(error, OSError),
            give_up_at=give_up_at,
            monotonic=lambda: self.now,
            sleep=self.sleep,
        )


async def test_what_succeeds_is_done_once() -> None:
    work = Work(0)
    assert await work.run(give_up_at=-1) == "done"
    assert (work.attempts, work.pauses) == (1, [])


async def test_pauses_grow_and_are_never_the_same() -> None:
    runs = [Work(ATTEMPTS - 1) for _ in range(20)]
    for work in runs:
        assert await work.run() == "done"
        first, second = work.pauses
        assert FIRST_PAUSE_S / 2 <= first <= FIRST_PAUSE_S <= second <= 2 * FIRST_PAUSE_S
    assert len({work.pauses[0] for work in runs}) > 1


async def test_the_last_failure_is_told() -> None:
    work = Work(ATTEMPTS)
    with pytest.raises(OSError, match=f"attempt {ATTEMPTS}"):
        await work.run()
    assert work.attempts == ATTEMPTS


async def test_what_may_not_be_repeated_is_not() -> None:
    work = Work(1)
    with pytest.raises(OSError, match="attempt 1"):
        await work.run(again=False)


async def test_no_attempt_begins_after_the_deadline() -> None:
    work = Work(ATTEMPTS, takes_s=0.6)
    with pytest.raises(OSError, match="attempt 2"):
        await work.run(give_up_at=1.0)


async def test_a_cancellation_is_nobodys_failure() -> None:
    attempts = 0

    async def attempt() -> None:
        nonlocal attempts
        attempts += 1
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await retried(attempt, again=lambda _: True, give_up_at=FAR)
    assert attempts == 1
