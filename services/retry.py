"""Tries again what may be done twice: three times at most, after growing random pauses, never past a deadline."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

ATTEMPTS: Final = 3

FIRST_PAUSE_S: Final = 0.02
"""Doubled before each further attempt, and shortened by up to a half, so that callers do not come back in step."""

Result = TypeVar("Result")


async def retried(
    attempt: Callable[[], Awaitable[Result]],
    *,
    again: Callable[[Exception], bool],
    give_up_at: float,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Result:
    """What the first attempt that succeeds gives, or the last one's exception.

    `again` says of an exception whether the work may be done again and might then succeed. No attempt but the first
    begins at or after `give_up_at` (monotonic seconds); how long one takes is its own business.
    """
    pause_s = FIRST_PAUSE_S
    for left in reversed(range(ATTEMPTS)):
        try:
            return await attempt()
        except Exception as error:
            wait_s = pause_s * random.uniform(0.5, 1)  # noqa: S311 - jitter, no secret
            if not left or not again(error) or monotonic() + wait_s >= give_up_at:
                raise
        await sleep(wait_s)
        pause_s *= 2
    raise AssertionError("the last attempt returns or raises")
