"""Mage's server in Mage's own environment: `python serve.py HOST PORT PROJECT`, with four things of Mage mended.

It is no part of the package: nothing of Breakwater is installed where it runs.

- Whatever it forks dies with its parent. Mage's scheduler is a child of its web server and outlives it when that is
  killed; the next start would make two schedulers on one database, which stall each other.
- Its worker pool never ends by itself. Mage's own ends when it finds nothing to do; a block that is enqueued in that
  moment waits for ever in a queue that nobody reads, and one that has been taken but not begun counts as crashed and is
  run twice (mage_ai/orchestration/queue/process_queue.py of 0.9.80; mage-ai#5619, #5621).
- Its tables are there before its web server asks for them.
- It starts no Jupyter kernel. Mage's takes code without a signature on a port that every user of the machine reaches,
  and outlives it; pipelines do not need one.
"""

from __future__ import annotations

import ctypes
import os
import queue as queues
import signal
import sys
from pathlib import Path
from typing import Any, Final

PR_SET_PDEATHSIG: Final = 1
"""linux/prctl.h; prctl(2)."""
LOOK_EVERY_S: Final = 0.2


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


os.register_at_fork(after_in_child=_die_with_parent)

from mage_ai.orchestration.db.process import start_session_and_run  # noqa: E402 - what it forks on import is covered
from mage_ai.orchestration.queue import process_queue  # noqa: E402
from mage_ai.orchestration.queue.process_queue import JobStatus, ProcessQueue, QueueStatus, Worker  # noqa: E402


class OneJob(Worker):  # type: ignore[misc]
    """A process for a job that the pool has taken for it."""

    def __init__(self, job: list[Any], job_dict: Any) -> None:
        super().__init__(None, job_dict)
        self._job = job

    def run(self) -> None:
        job_id, target, args, kwargs = self._job
        self.job_dict[job_id] = self.pid
        try:
            start_session_and_run(target, *args, **kwargs)
        finally:
            self.job_dict[job_id] = JobStatus.COMPLETED


def poll_for_ever(queue: Any, size: int, job_dict: Any, redis_client: Any, client_id: str) -> None:
    """The pool's process: a worker for each job, `size` at once, until the scheduler that forked it ends."""
    workers: list[OneJob] = []
    while True:
        workers = [worker for worker in workers if worker.is_alive()]
        try:
            job = queue.get(timeout=LOOK_EVERY_S) if len(workers) < size else None
        except queues.Empty:
            continue
        if job is None:
            workers[0].join(LOOK_EVERY_S)
        elif job_dict.get(job[0]) == JobStatus.QUEUED:  # else it was cancelled meanwhile
            worker = OneJob(job, job_dict)
            worker.start()
            workers.append(worker)


def enqueue(self: Any, job_id: str, target: Any, *args: Any, **kwargs: Any) -> None:
    """A job is known before the pool can see it: Mage's own order lets the pool meet one that nobody seems to want."""
    if self.status == QueueStatus.ACTIVE and not self.has_job(job_id):
        self.job_dict[job_id] = JobStatus.QUEUED
        self.queue.put([job_id, target, args, kwargs])
        if not self.is_worker_pool_alive():
            self.start_worker_pool()


def has_job(self: Any, job_id: str, logger: Any = None, logging_tags: Any = None) -> bool:
    """Whether the job waits or runs: what is queued will be taken as long as the pool lives."""
    job = self.job_dict.get(job_id)
    if job == JobStatus.QUEUED:
        return bool(self.is_worker_pool_alive())
    return isinstance(job, int) and Path(f"/proc/{job}").exists()


process_queue.poll_job_and_execute = poll_for_ever
ProcessQueue.enqueue = enqueue
ProcessQueue.has_job = has_job


def main(host: str, port: str, project: str) -> None:
    from mage_ai.orchestration.db.database_manager import database_manager  # noqa: PLC0415 - after what is mended
    from mage_ai.server import active_kernel, server  # noqa: PLC0415

    active_kernel.switch_active_kernel = lambda *_, **__: None
    server.get_messages = lambda _: None  # what a kernel says
    # Mage's scheduler does this while its web server, after a pause of 5 s, asks the tables for users.
    database_manager.run_migrations()
    server.initialize_globals()
    server.start_server(host=host, port=port, project=project)


if __name__ == "__main__":
    main(*sys.argv[1:])
