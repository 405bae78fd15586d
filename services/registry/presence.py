"""A replica's keys in etcd, both by one lease: that it lives and what it serves, and its answer to a candidate."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from services.coordination.etcd import EtcdClient, EtcdError, LeaseGone
from services.registry.announced import ReplicaState, Verdict, prepared_key, replica_key

LEASE_S: Final = 5
"""A replica that is killed, or frozen as a whole, holds a reload up for this long."""
KEEP_ALIVE_S: Final = 1.0
RETRY_S: Final = 0.5
CLOSE_S: Final = 2.0

logger = logging.getLogger(__name__)


class Presence:
    """A thread keeps etcd to what was said last, for as long as it takes; nobody waits for it."""

    def __init__(self, etcd: EtcdClient, environment: str, model: str, replica: str) -> None:
        self._etcd = etcd
        self._state_key = replica_key(environment, model, replica)
        self._verdict_key = prepared_key(environment, model, replica)
        self._changed = threading.Condition()
        self._said: dict[str, str] = {self._state_key: ReplicaState(replica=replica).to_json()}
        self._ended = False
        self._lease: int | None = None
        self._kept_s = 0.0
        self._written: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Does not wait for etcd."""
        self._thread.start()

    def say(self, state: ReplicaState, verdict: Verdict | None) -> None:
        """From now on this is so; `verdict` None: there is no candidate to answer."""
        said = {self._state_key: state.to_json()}
        if verdict is not None:
            said[self._verdict_key] = verdict.to_json()
        with self._changed:
            if said != self._said:
                self._said = said
                self._changed.notify()

    def close(self) -> None:
        """Leave; the keys go at once if etcd answers, else with the lease."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        trouble = False
        while True:
            with self._changed:
                if self._ended:
                    break
                said = dict(self._said)
            try:
                self._write(said)
                trouble, pause_s = False, KEEP_ALIVE_S
            except LeaseGone:
                self._lease, pause_s = None, 0.0
            except EtcdError as error:
                if not trouble:
                    logger.warning("etcd does not hear that this replica lives, trying on: %s", error)
                trouble, pause_s = True, RETRY_S
            with self._changed:
                if pause_s and not self._ended and (trouble or said == self._said):
                    self._changed.wait(pause_s)
        self._leave()

    def _write(self, said: dict[str, str]) -> None:
        if self._lease is None:
            self._lease, self._kept_s, self._written = self._etcd.grant_lease(LEASE_S), time.monotonic(), {}
        elif time.monotonic() - self._kept_s >= KEEP_ALIVE_S / 2:
            self._etcd.keep_alive(self._lease)
            self._kept_s = time.monotonic()
        for key in self._written.keys() - said.keys():
            self._etcd.delete(key)
            del self._written[key]
        for key, value in said.items():
            if self._written.get(key) != value:
                self._written.pop(key, None)  # unknown until it is known to be written
                self._etcd.put(key, value, lease=self._lease)
                self._written[key] = value

    def _leave(self) -> None:
        if self._lease is not None:
            try:
                self._etcd.revoke_lease(self._lease)
            except EtcdError as error:
                logger.warning("etcd does not hear that this replica leaves, its lease will end: %s", error)
