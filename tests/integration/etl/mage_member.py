"""The member `mage` for tests: its scheduler as a child of this process, with Mage's own environment under it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

import urllib3

from infra.local import mage, processes
from services.contracts.events import Event, read_events
from services.contracts.shards import ShardEndpoints
from services.etl.orders import Office
from services.etl.run import EVENTS, Order, RunConfig
from services.etl.scheduler import SchedulerConfig
from tests.integration.coordination.etcd_cluster import free_ports
from tests.integration.h2o.nodes import wait_until

START_S = 120.0
LATE_S = 15.0
END_S = 20.0


class Silent:
    def begin(self, component: str, what: str) -> None: ...

    def done(self, component: str, what: str) -> None: ...


class MageMember:
    """A context manager; leaves nothing running."""

    def __init__(self, directory: Path, steps: RunConfig, database: ShardEndpoints) -> None:
        mage.ensure_installed(Silent())
        self.directory = directory
        self._port, self._status_port = free_ports(2)
        for name in ("owner", "session", "token"):
            (directory / name).write_text(f"test-{name}")
        (directory / "etl.json").write_text(steps.model_dump_json())
        self._config = SchedulerConfig(
            member="mage-0",
            host="127.0.0.1",
            port=self._port,
            status_port=self._status_port,
            mage_python=mage.python(),
            directory=directory,
            database=database,
            run_config=directory / "etl.json",
            owner_password=directory / "owner",
            session_secret=directory / "session",
            trigger_token=directory / "token",
            loop_s=1,
            late_s=LATE_S,
        )
        self.office = Office(f"http://127.0.0.1:{self._port}", database, steps.directory)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(END_S)
        wait_until(lambda: not self.alive(), END_S, "everything of Mage ended with its scheduler")

    def start(self, *, schedule: str | None = None) -> None:
        config = self._config.model_copy(update={"schedule": schedule})
        (self.directory / "mage.json").write_text(config.model_dump_json())
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.etl.scheduler", str(self.directory / "mage.json")],
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )

    def kill(self) -> None:
        """SIGKILL to the one process that supervision knows; what is below it must not outlive it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(END_S)
        wait_until(lambda: not self.alive(), END_S, "everything of Mage died with its scheduler")

    def alive(self) -> list[int]:
        return [process.pid for process in processes.working_in(self.directory)]

    def pids(self, words: str) -> list[int]:
        """Processes of this member with these words in their command line."""
        return [pid for pid in self.alive() if words in " ".join(processes.arguments(pid))]

    def obstacle(self) -> str | None:
        """Why it takes no orders, by its own word; None when it does."""
        try:
            answer = urllib3.request(
                "GET", f"http://127.0.0.1:{self._status_port}/ready", timeout=2.0, retries=False
            ).json()
        except urllib3.exceptions.HTTPError as error:
            return type(error).__name__
        return None if answer["ready"] else str(answer["reason"])

    def wait_ready(self) -> None:
        wait_until(lambda: self.obstacle() is None, START_S, f"Mage takes orders (log in {self.directory})")

    def said(self, order: Order, kind: str) -> list[Event]:
        path = self.office.runs / order.version / EVENTS
        return [event for event in read_events(path) if event.kind == kind] if path.exists() else []

    def wait_said(self, order: Order, kind: str, seconds: float, chosen: Callable[[Event], bool] = bool) -> None:
        wait_until(
            lambda: any(chosen(event) for event in self.said(order, kind)),
            seconds,
            f"run {order.run} says {kind} (see {self.office.runs / order.version}, log in {self.directory})",
        )

    def stop_loop(self) -> None:
        """Freeze the process that starts runs, and nothing else: the one that Mage's web server forked last."""
        [launcher] = [pid for pid in self.pids("serve.py") if self._parent(pid) == self._own_pid()]
        children = [pid for pid in self.pids("serve.py") if self._parent(pid) == launcher]
        os.kill(max(children), signal.SIGSTOP)

    def _own_pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @staticmethod
    def _parent(pid: int) -> int:
        process = processes.read(pid)
        return 0 if process is None else process.parent
