"""What one stretch of load showed, read from what the load generators print, and several stretches made one."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

OK: Final = range(200, 300)
US_PER_MS: Final = 1000.0
US_PER_S: Final = 1_000_000.0
LOG_FIELDS: Final = 3


class BenchmarkError(Exception):
    """The benchmark cannot go on; the message says what happened and what to do."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Latencies in milliseconds from sending a request. `late`: sent after their time, where there was a schedule."""

    requests: int
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    late: int
    errors: int

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def from_wrk(output: str) -> Measured:
    """What load.lua prints after wrk's own words; BenchmarkError when it is not there."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            return Measured(**json.loads(line))
    raise BenchmarkError(f"wrk printed no result: {output.strip()[-500:] or 'nothing'}")


def from_h2load(log: str, seconds: float) -> Measured:
    """h2load's log file: start (us since the epoch), status, duration (us), tab-separated, one line a request.

    `seconds` is the time that it measured for; requests that never were answered have status -1.
    """
    durations: list[float] = []
    errors = 0
    for line in log.splitlines():
        fields = line.split("\t")
        if len(fields) != LOG_FIELDS:
            continue  # the last line may be cut off
        if int(fields[1]) in OK:
            durations.append(int(fields[2]) / US_PER_MS)
        else:
            errors += 1
    if not durations:
        raise BenchmarkError(f"h2load logged no answered request, and {errors} others")
    durations.sort()
    return Measured(
        requests=len(durations),
        seconds=seconds,
        p50_ms=percentile(durations, 50),
        p95_ms=percentile(durations, 95),
        p99_ms=percentile(durations, 99),
        max_ms=durations[-1],
        late=0,
        errors=errors,
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that is not exceeded by `percent` of the ordered values (nearest rank)."""
    if not ordered:
        raise ValueError("a percentile of nothing")
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


def median(rounds: Sequence[Measured]) -> Measured:
    """The rounds' medians, field by field; errors, late and requests are added up."""
    return Measured(
        requests=sum(each.requests for each in rounds),
        seconds=sum(each.seconds for each in rounds),
        p50_ms=statistics.median(each.p50_ms for each in rounds),
        p95_ms=statistics.median(each.p95_ms for each in rounds),
        p99_ms=statistics.median(each.p99_ms for each in rounds),
        max_ms=max(each.max_ms for each in rounds),
        late=sum(each.late for each in rounds),
        errors=sum(each.errors for each in rounds),
    )


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times the rate of another, round by round: what disturbed one round disturbed both."""

    median: float
    lowest: float
    highest: float


def ratio(ours: Sequence[Measured], theirs: Sequence[Measured]) -> Ratio:
    each = [our.rate / their.rate for our, their in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(each), min(each), max(each))
