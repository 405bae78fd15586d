"""A lease that a process holds as long as it lives: keys put under it vanish soon after it."""

from __future__ import annotations

import contextlib
import time

from services.coordination.etcd import EtcdClient, EtcdError, LeaseGone


class Lease:
    """Renewed by whoever calls `renew` often enough; `id` changes when it had to be granted anew."""

    def __init__(self, client: EtcdClient, ttl_s: int) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._renewed_s = 0.0
        self.id = 0

    def renew(self, now_s: float) -> int:
        """Keep it alive when a third of it has passed; returns its id. Raises EtcdError when etcd does not answer."""
        if self.id and now_s - self._renewed_s < self._ttl_s / 3:
            return self.id
        asked_s = time.monotonic()
        if self.id:
            with contextlib.suppress(LeaseGone):
                self._client.keep_alive(self.id)
                self._renewed_s = asked_s
                return self.id
        self.id = 0
        self.id = self._client.grant_lease(self._ttl_s)
        self._renewed_s = asked_s
        return self.id

    def holds(self, now_s: float) -> bool:
        """Whether it was certainly alive now, by the time of the last renewal."""
        return bool(self.id) and now_s - self._renewed_s < self._ttl_s

    def give_up(self) -> None:
        """End it and its keys; one that etcd does not hear of runs out by itself."""
        if self.id:
            with contextlib.suppress(EtcdError):
                self._client.revoke_lease(self.id)
        self.id = 0
