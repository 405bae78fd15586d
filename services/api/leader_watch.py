"""Says at once when a shard has a new leader, by its leader key in etcd: a breaker that is open need not wait."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable

from services.contracts.shards import leader_key, patroni_namespace
from services.coordination.etcd import EtcdClient, EtcdError, HistoryCompacted

RETRY_S = 1.0
"""Pause before a watch that etcd refused is begun again."""

logger = logging.getLogger(__name__)


class LeaderWatch:
    """A thread of its own watches; `elected(shard)` is called on the event loop."""

    def __init__(
        self, etcd: EtcdClient, environment: str, shards: Iterable[int], elected: Callable[[int], None]
    ) -> None:
        self._etcd = etcd
        self._prefix = patroni_namespace(environment)
        self._shards = {leader_key(environment, shard): shard for shard in shards}
        self._elected = elected
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch; does not wait for etcd."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._follow, args=(loop,), name="leaders", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns within the client's timeout of one request."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stop.is_set():
            try:
                for event in self._etcd.watch(self._prefix, prefix=True, stop=self._stop):
                    shard = self._shards.get(event.kv.key)
                    if shard is not None and event.kind == "put" and not self._stop.is_set():
                        loop.call_soon_threadsafe(self._elected, shard)
            except HistoryCompacted:
                continue  # nothing changed for as long as etcd remembers
            except EtcdError as error:
                logger.warning("the watch of %s ended, beginning again: %s", self._prefix, error)
                self._stop.wait(RETRY_S)
