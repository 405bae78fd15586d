"""How much a replica takes on at once: beyond that it refuses at once, instead of answering everything late."""

from __future__ import annotations

from typing import Self

from services.api.problems import Overloaded

PREDICTIONS_IN_FLIGHT = 512
"""Far above what is in flight at full speed (10,000/s times 5 ms), and above the 64 reads that one dead shard can
keep waiting (the pool's own bulkhead), so that these never crowd out predictions that need no shard."""

WRITES_IN_FLIGHT = 256
"""A shard keeps at most 68 writes waiting or running (the pool's bulkhead): three dead shards leave room for others."""

READS_IN_FLIGHT = 256
"""As writes: the 64 reads that one dead shard can keep waiting leave room for others."""


class Admission:
    """A count with a ceiling: `with admission:` is one more. Belongs to one event loop."""

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self.in_flight = 0

    def __enter__(self) -> Self:
        """Overloaded when the ceiling is reached."""
        if self.in_flight >= self._limit:
            raise Overloaded(f"{self._limit} {self._what} are in progress on this replica: try again")
        self.in_flight += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.in_flight -= 1
