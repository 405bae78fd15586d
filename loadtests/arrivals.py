"""Arrival processes of the open model: when each operation is due, whatever became of the ones before it.

Offsets are nanoseconds from the process's start, endless and never decreasing. An arrival that a stalled server
makes late keeps its due time, so latency counted from it hides no wait (coordinated omission).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

NS_PER_S: Final = 1_000_000_000
ON_TIME_NS: Final = 250_000_000
"""An arrival that its client takes up later than this after its due time is not sent: no arrival waits for a server, so
the client itself stood still, and a burst of all that it missed would be another load than the planned one. Far above
the scheduling jitter of a busy machine, below every deadline."""


def poisson(rate: float, seed: str) -> Iterator[int]:
    """Independent arrivals at `rate` per second on average; the same for the same seed. ValueError unless rate > 0."""
    _check(rate)
    clock = random.Random(seed)  # noqa: S311 - a repeatable schedule, not a secret
    due_s = 0.0
    while True:
        due_s += clock.expovariate(rate)
        yield int(due_s * NS_PER_S)


def uniform(rate: float, seed: str, *, beside: float | None = None) -> Iterator[int]:
    """Arrivals exactly 1/rate apart after a seeded phase, so that no gap is longer than that.

    Writers use it: the gap bounds the resolution of a recovery time. Two kinds of writers would share a gap well or
    badly by the luck of their phases, so the second one begins half a period of the first one (`beside`, its rate, with
    the same seed) after it: where its rate is the same or a fraction, they alternate. ValueError unless rate > 0.
    """
    _check(rate)
    phase = random.Random(seed).random()  # noqa: S311 - a repeatable schedule, not a secret
    if beside is not None:
        phase = (phase + 0.5) * rate / beside
    count = 0
    while True:
        yield int((count + phase) * NS_PER_S / rate)
        count += 1


def _check(rate: float) -> None:
    if not 0 < rate < NS_PER_S:
        raise ValueError(f"an arrival process needs a rate above 0 per second, got {rate}: leave the stream out")
