"""An independent witness: was the leader key ever free while a process of its former holder could still act?"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

import psutil  # type: ignore[import-untyped]

from services.coordination.etcd import EtcdClient, EtcdError
from tests.integration.postgres.shard_cluster import LEADER_KEY, Member, ShardCluster


class Witness:
    """Looks every few milliseconds, first at the key and then at the processes, so that it can never accuse wrongly."""

    def __init__(self, shard: ShardCluster, member: Member) -> None:
        self._member = member
        self._etcd = EtcdClient(shard.etcd_servers.clients, timeout_s=1.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._server = [psutil.Process(member.server.pid)] if member.server is not None else []
        self._server += member.postgres_processes()
        self.violations: list[str] = []
        self.free_ns: int | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
        self._etcd.close()

    def _run(self) -> None:
        while not self._stop.wait(0.004):
            try:
                leader = self._etcd.get(LEADER_KEY)
            except EtcdError:
                continue
            if leader is not None and leader.value == self._member.name:
                continue
            if self.free_ns is None:
                self.free_ns = time.monotonic_ns()
            self.violations += [f"{process} lived when the key was free" for process in self._server if alive(process)]


def alive(process: psutil.Process) -> bool:
    """Whether it can still do anything: a zombie, or a process whose memory is gone already, cannot."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE and process.memory_info().vms > 0)
    except psutil.Error:
        return False
