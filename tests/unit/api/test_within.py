"""A bounded wait ends as a timeout, and what others do to the task stays theirs."""

from __future__ import annotations

import asyncio

import pytest

from services.api.within import Within


async def test_what_is_there_in_time_is_undisturbed() -> None:
    with Within(0.01):
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)  # the bound is gone


async def test_what_takes_longer_is_a_timeout_and_the_task_goes_on() -> None:
    with pytest.raises(TimeoutError), Within(0.01):
        await asyncio.sleep(10)
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_failure_inside_stays_what_it_is() -> None:
    with pytest.raises(KeyError), Within(0.01):
        raise KeyError


async def test_whoever_cancels_the_task_is_obeyed() -> None:
    async def wait() -> None:
        with Within(10):
            await asyncio.sleep(10)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_cancellation_at_the_same_moment_counts_more() -> None:
    async def wait(bound: Within) -> None:
        with bound:
            await asyncio.sleep(10)

    bound = Within(10)
    waiting = asyncio.create_task(wait(bound))
    await asyncio.sleep(0)
    bound._expire()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
