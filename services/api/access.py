"""Which requests get a line in the log: hot ones must not, for at 5,000 a second the log would cost more than they do.

A line gets every failure of ours (5xx) and every slow request, as long as there are few; of all the others one in
`ONE_IN`. Metrics count every request whatever is logged. Routes that are asked several times a second by the edge and
by collectors get none: what changes there is logged where it changes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from prometheus_client import Counter

from services.api.observation import Observation

QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})

SLOW_S: Final = 0.5
"""Fifty times the p99 that is promised, and less than what the edge waits before it asks another replica."""

ONE_IN: Final = 1000

BURST: Final = 20
REFILL_S: Final = 0.5
"""Lines about failures and slow requests: this many at once, then one in so many seconds. In the half minute around a
fault whose lines are kept with a run they are 80 of the 200 that a member may have, so that they hide nothing else."""

logger = logging.getLogger(__name__)


class AccessLog:
    """Decides and writes. Belongs to one event loop."""

    def __init__(self, suppressed: Counter, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`suppressed` counts the lines that there were too many of."""
        self._suppressed = suppressed
        self._monotonic = monotonic
        self._left = float(BURST)
        self._refilled = monotonic()
        self._until_sample = ONE_IN

    def ended(self, observation: Observation, method: str, route: str, status: int, seconds: float) -> None:
        """`route` is bounded (never what the caller sent), for what a caller sends may be a secret."""
        if route in QUIET:
            return
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or seconds >= SLOW_S:
            if not self._may_write():
                self._suppressed.inc()
                return
        else:
            self._until_sample -= 1
            if self._until_sample:
                return
            self._until_sample = ONE_IN
        self._write(observation, method, route, status, seconds)

    def _may_write(self) -> bool:
        now = self._monotonic()
        self._left = min(BURST, self._left + (now - self._refilled) / REFILL_S)
        self._refilled = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    @staticmethod
    def _write(observation: Observation, method: str, route: str, status: int, seconds: float) -> None:
        level = logging.WARNING if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
        fields: dict[str, object] = {
            "method": method,
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 1),
            **observation.fields(),
        }
        if observation.code is not None:
            fields["code"] = observation.code
        logger.log(level, "request", extra={"fields": fields})
