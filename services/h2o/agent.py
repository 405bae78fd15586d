"""Runs one H2O node's JVM for the epoch that etcd names, each epoch once, and reports what becomes of it."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from services import background
from services.contracts.events import Event, EventLog
from services.coordination.etcd import EtcdClient, EtcdError, Put
from services.h2o.decision import Process
from services.h2o.entry import enter
from services.h2o.errors import H2OError, StateUnreadable
from services.h2o.lease import Lease
from services.h2o.server import H2OServer, heap_mb, log_tail, prepare
from services.h2o.state import Report, Snapshot, StateWatch, acknowledge

# After this long without a sign of life the agent counts as away, seconds: long enough for a starved machine.
AGENT_TTL_S: Final = 6
# Pause between two looks without news, seconds; the JVM's end and etcd's changes wake the agent.
LOOK_EVERY_S: Final = 1.0
# SIGKILL ends a JVM within a fraction of a second, unless it waits for a broken disk. Seconds.
END_S: Final = 30.0
# So much of the log's end tells why a JVM did not start; etcd is no place for more. Characters.
DETAIL_CHARS: Final = 300


class Agent:
    """One node's agent. `run` must be called on the thread that lives longest: its JVM dies with that thread."""

    def __init__(self, name: str, server: H2OServer, client: EtcdClient, watch: StateWatch, events: EventLog) -> None:
        self._name = name
        self._template = server
        self._client = client
        self._watch = watch
        self._woken = watch.listen()
        self._events = events
        self._incarnation = secrets.token_hex(8)
        self._lease = Lease(client, AGENT_TTL_S)
        self._jvm: subprocess.Popen[bytes] | None = None
        self._ended: int | None = None
        self._report: Report | None = None
        self._put: tuple[Report, int] | None = None

    @property
    def pid(self) -> int | None:
        """The JVM's, while it runs."""
        return self._jvm.pid if self._jvm is not None else None

    @property
    def running_heap_mb(self) -> int | None:
        """Heap that the running JVM was started with, as the kernel tells its arguments; None while none runs."""
        pid = self.pid
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if pid is not None else []
        except OSError:
            return None
        return heap_mb(os.fsdecode(word) for word in words)

    def run(self, stop: threading.Event, wake: int) -> None:
        """Until `stop` is set (and `wake`, an eventfd, is written); the JVM ends with it."""
        try:
            while not stop.is_set():
                try:
                    self._step()
                except StateUnreadable as error:
                    self._say("state_unreadable", error=str(error))
                self._wait(wake)
        finally:
            self._kill()
            self._lease.give_up()

    def _step(self) -> None:
        snapshot = self._watch.snapshot
        if self._jvm is not None and self._jvm.poll() is not None:
            self._bury(self._jvm)
        with contextlib.suppress(EtcdError):  # without etcd the JVM goes on; what is to be written waits for it
            if snapshot is not None:
                self._follow(snapshot)
            self._tell()

    def _wait(self, wake: int) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        poll.register(wake, select.POLLIN)
        handle = None
        if self._jvm is not None:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(self._jvm.pid)
                poll.register(handle, select.POLLIN)
        try:
            poll.poll(LOOK_EVERY_S * 1000)
        finally:
            if handle is not None:
                os.close(handle)
        acknowledge(self._woken)

    def _follow(self, snapshot: Snapshot) -> None:
        epoch = snapshot.epoch
        if epoch is None:
            return
        if self._report is None or self._report.generation != epoch.generation:
            self._kill()
            self._enter(epoch.generation, epoch.cloud)
            return
        order = snapshot.order(self._name)
        if order is not None and order.generation == epoch.generation and self._jvm is not None:
            self._say("killed", generation=epoch.generation, why="ordered by the keeper")
            self._kill()
            self._report = self._report.model_copy(update={"process": Process.EXITED, "pid": None, "detail": "killed"})

    def _enter(self, generation: int, cloud: str) -> None:
        """Start the epoch's JVM, unless an agent of this node did before: a cloud takes back nobody whom it lost."""
        if not enter(self._client, self._watch.keys.entered(self._name), generation, self._incarnation):
            self._report = Report(generation=generation, process=Process.EXITED, detail="the agent was restarted")
            return
        server = replace(self._template, cloud=cloud)
        try:
            prepare(server)
            server.log.unlink(missing_ok=True)  # each JVM's own words; H2O itself keeps logs below ice/
            with server.log.open("ab") as log:
                self._jvm = background.spawn(
                    server.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=server.directory
                )
        except (H2OError, OSError) as error:
            self._report = Report(generation=generation, process=Process.EXITED, detail=str(error)[:DETAIL_CHARS])
            self._say("not_started", generation=generation, error=str(error))
            return
        self._report = Report(generation=generation, process=Process.RUNNING, pid=self._jvm.pid)
        self._say("started", generation=generation, pid=self._jvm.pid)

    def _bury(self, jvm: subprocess.Popen[bytes]) -> None:
        """The JVM ended by itself, or somebody killed it."""
        self._jvm = None
        detail = " ".join(log_tail(self._template).split())[-DETAIL_CHARS:]
        if self._report is not None:
            self._report = Report(
                generation=self._report.generation,
                process=Process.EXITED,
                detail=f"ended with {jvm.returncode}; its log ends: {detail}",
            )
        self._say("exited", pid=jvm.pid, code=jvm.returncode)

    def _kill(self) -> None:
        """End the JVM at once: a node keeps nothing that outlives its cloud."""
        if self._jvm is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._jvm.send_signal(signal.SIGKILL)
        self._jvm.wait(END_S)
        self._jvm = None

    def _tell(self) -> None:
        lease = self._lease.renew(time.monotonic())
        if self._report is None or self._put == (self._report, lease):
            return
        self._client.transact([], [Put(self._watch.keys.report(self._name), self._report.to_json(), lease)])
        self._put = (self._report, lease)

    def _say(self, kind: str, **data: object) -> None:
        with contextlib.suppress(OSError):
            self._events.append(Event.now("h2o-agent", kind, self._name, **data))
