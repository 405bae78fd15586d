"""The H2O cloud as those who train on it see it: which one is wanted, and whether it is whole."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from services.coordination.etcd import EtcdClient
from services.h2o.decision import State
from services.h2o.errors import ClusterUnavailable
from services.h2o.state import Keys, Snapshot, cloud_name, read

POLL_S: Final = 0.2
ALARM_S: Final = 60.0
"""How long the keeper's alarm is waited on: it goes on trying, but somebody should look."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """A whole cloud. `url`: REST of one of its nodes; any will do."""

    generation: int
    url: str

    @property
    def name(self) -> str:
        return cloud_name(self.generation)


class H2OCluster:
    """Reads what the keeper says; changes nothing."""

    def __init__(self, client: EtcdClient, environment: str) -> None:
        self._client = client
        self._keys = Keys.of(environment)
        self._environment = environment

    def generation(self) -> int:
        """The epoch that is wanted now; 0 before the first."""
        epoch = read(self._client, self._keys).epoch
        return 0 if epoch is None else epoch.generation

    def wait_whole(self, *, timeout_s: float) -> Cloud:
        """The cloud once every node agrees on it; ClusterUnavailable with the reason when time is up.

        Time is up earlier where the keeper sounds its alarm for ALARM_S without a pause.
        """
        began = quiet = time.monotonic()
        while True:
            snapshot = read(self._client, self._keys)
            epoch, status = snapshot.epoch, snapshot.status
            now = time.monotonic()
            if status is None or status.state is not State.ALARM:
                quiet = now
            if epoch is not None and status is not None:
                current = status.generation == epoch.generation
                if current and status.state is State.READY:
                    return Cloud(epoch.generation, status.urls[0])
            if now - began > timeout_s or now - quiet > ALARM_S:
                raise ClusterUnavailable(
                    f"no whole H2O cloud in {self._environment} after {now - began:.0f} s: {_why(snapshot)}; "
                    f"see `breakwater status {self._environment}` and the nodes' logs"
                )
            time.sleep(POLL_S)


def _why(snapshot: Snapshot) -> str:
    epoch, status = snapshot.epoch, snapshot.status
    if epoch is None:
        return "no epoch was ever named: no node runs"
    if status is None:
        return f"{epoch.cloud} is wanted, but no keeper watches it: no node runs"
    report = snapshot.report(status.node) if status.node else None
    detail = f": {report.detail}" if report is not None and report.detail else ""
    return f"{epoch.cloud} is {status.state.value} ({status.reason}{f' {status.node}' if status.node else ''}{detail})"
