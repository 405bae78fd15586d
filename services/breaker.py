"""A circuit breaker: stops asking a dependency that keeps failing, and asks again as soon as it may be back.

Closed, every call is admitted. After `failures` failures in a row it is open and admits none, until `retry_s` have
passed or the dependency announces itself; then it is half-open: exactly one call, the probe, is admitted and decides.
Only what says something about the dependency is reported; for a client's error or a cancellation that is `dropped`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum
from typing import Final

FAILURES: Final = 5
"""In a row: fewer would open on the few connections that any restart of a server costs."""

RETRY_S: Final = 30.0
"""For a dependency that never announces itself; those here are asked every `PROBE_EVERY_S` in the background."""

PROBE_EVERY_S: Final = 0.25
"""Pause between background probes of a dependency whose breaker is open."""

PROBE_S: Final = 10.0
"""A probe without an outcome by then is lost (nothing may take longer): another one is admitted."""

Ticket = int
"""What an admitted call reports its outcome with."""


class State(IntEnum):
    """As metrics show it."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Belongs to one event loop. Listeners are called after every change of state and every announcement."""

    def __init__(
        self,
        name: str,
        *,
        failures: int = FAILURES,
        retry_s: float = RETRY_S,
        probe_s: float = PROBE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.state = State.CLOSED
        self._limit = failures
        self._retry_s = retry_s
        self._probe_s = probe_s
        self._monotonic = monotonic
        self._failures = 0
        self._ticket: Ticket = 0
        self._since = 0.0
        self._announced = False
        self._listeners: list[Callable[[Breaker], None]] = []

    def listen(self, listener: Callable[[Breaker], None]) -> None:
        self._listeners.append(listener)

    def admit(self) -> Ticket | None:
        """A ticket, to be given to exactly one of `succeeded`, `failed` and `dropped`; None when refused."""
        if self.state is State.CLOSED:
            return self._ticket
        if self._may_probe():
            self._announced = False
            self._enter(State.HALF_OPEN)
            return self._ticket
        return None

    def succeeded(self, ticket: Ticket) -> None:
        if ticket != self._ticket:
            self.announce()  # admitted before it opened, and answered all the same
        elif self.state is State.CLOSED:
            self._failures = 0
        else:
            self._enter(State.CLOSED)

    def failed(self, ticket: Ticket) -> None:
        if ticket != self._ticket:
            return
        self._failures += 1
        if self.state is not State.CLOSED or self._failures >= self._limit:
            self._enter(State.OPEN)

    def dropped(self, ticket: Ticket) -> None:
        """The call says nothing about the dependency. A probe makes room for the next."""
        if ticket == self._ticket and self.state is State.HALF_OPEN:
            self._announced = True
            self._enter(State.OPEN)

    def trip(self) -> None:
        """Open at once: what failed is known to be every caller's failure."""
        self._announced = False
        self._enter(State.OPEN)

    def announce(self) -> None:
        """The dependency seems to be back: the next call may probe it, or the one after a probe that is under way."""
        if self.state is not State.CLOSED and not self._announced:
            self._announced = True
            self._tell()

    def _may_probe(self) -> bool:
        if self.state is State.OPEN and self._announced:
            return True
        return self._monotonic() - self._since >= (self._retry_s if self.state is State.OPEN else self._probe_s)

    def _enter(self, state: State) -> None:
        self._ticket += 1  # outcomes of earlier calls no longer count
        self._since = self._monotonic()
        self.state = state
        if state is State.CLOSED:
            self._failures = 0
            self._announced = False
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener(self)
