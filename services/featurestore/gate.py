"""Where calls to a shard wait while its breaker is open, for as long as a failover by the warden takes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from services.breaker import Breaker, State, Ticket

PATIENCE_S: Final = 1.0
"""From the beginning of an outage on, calls wait this long for its end (the warden's failover fits in, so a breaker
refuses nobody whom a shard without one would have served); then they are refused at once."""


class Gate:
    """One breaker's waiting line. Belongs to one event loop."""

    def __init__(self, breaker: Breaker, *, line: int) -> None:
        """`line`: how many may wait; more are refused at once."""
        self.breaker = breaker
        self._line = line
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._outage_began: float | None = None
        breaker.listen(self._changed)

    async def enter(self, timeout_s: float) -> Ticket | None:
        """The breaker's ticket; None when it is refused, or not given within the patience or the timeout."""
        ticket = self.breaker.admit()
        if ticket is not None:
            return ticket
        await asyncio.sleep(0)  # a refusal must not let its caller keep the loop from hearing of the shard's return
        if len(self._waiting) >= self._line:
            return None
        loop = asyncio.get_running_loop()
        opened = self._outage_began if self._outage_began is not None else loop.time()
        give_up_at = min(loop.time() + timeout_s, opened + PATIENCE_S)
        while ticket is None and (left_s := give_up_at - loop.time()) > 0:
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting.append(turn)
            try:
                await asyncio.wait([turn], timeout=left_s)
            finally:
                if turn in self._waiting:
                    self._waiting.remove(turn)
            ticket = self.breaker.admit()
        return ticket

    def _changed(self, breaker: Breaker) -> None:
        if breaker.state is State.CLOSED:
            self._outage_began = None
        elif self._outage_began is None:
            self._outage_began = asyncio.get_running_loop().time()
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
