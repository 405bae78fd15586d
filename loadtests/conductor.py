"""Who of Locust's processes does what and when: from its events to sessions, shares and the end."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn

import gevent
from locust import LoadTestShape
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests import alone
from loadtests.arrivals import NS_PER_S
from loadtests.launch import http_streams
from loadtests.plan import EXIT_USAGE, PLAN_VARIABLE, LoadError, LoadPlan
from loadtests.share import Assignment, Share
from loadtests.streams import STOP_POLL_S, Access, Session, longest_s

ASSIGNMENT: Final = "breakwater-assignment"
"""The message that gives a worker its share, ahead of Locust's own that starts it."""
END_S: Final = 2.0
"""Locust's page shows a load as running until this long after its last answer can have come: workers report late."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """Where plans come from: for each start one, by Locust's options. `recorded`: what is sent leaves a history."""

    plan: Callable[[Namespace], LoadPlan]
    edge_url: str
    recorded: bool

    @classmethod
    def of(cls, options: Namespace) -> Source:
        """The plan that the environment variable names, or plans of an environment that is up; LoadError if neither."""
        if PLAN_VARIABLE in os.environ:
            plan = LoadPlan.from_environment()
            if not http_streams(plan):
                raise LoadError("the plan has nothing for Locust to send: no predictions, no writes through the API")
            Access.to(plan)
            return cls(lambda _: plan, plan.edge_url, recorded=True)
        directory = alone.temporary_directory()
        atexit.register(alone.forget, directory)
        found = alone.of(options.environment, directory)
        return cls(found.plan, found.edge_url, recorded=False)


class UntilOver(LoadTestShape):
    """For Locust's page: one user for each process that sends, until the load is over. Its form asks for no users."""

    abstract = True  # the conductor uses it, Locust must not find it

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._conductor = conductor

    def tick(self) -> tuple[int, float] | None:
        if self._conductor.over():
            return None
        processes = max(1, self._conductor.senders())
        return processes, processes


class Conductor:
    """One per process. A master shares out, a worker takes its share, a process of its own does both."""

    def __init__(self, environment: Environment, source: Source | None) -> None:
        """`source` of a worker is None: its master has it."""
        self._environment = environment
        self._runner: Any = environment.runner
        self._options: Any = environment.parsed_options
        self._source = source
        self._assignment: Assignment | None = None
        self._session: Session | None = None
        self._over_ns: int | None = None
        self._recorded = False

    @classmethod
    def of(cls, environment: Environment) -> Conductor:
        """The conductor of this process; says what is wrong and ends it before anything has started."""
        if isinstance(environment.runner, WorkerRunner):
            found = cls(environment, None)
            environment.runner.register_message(ASSIGNMENT, found._take)
        else:
            options: Any = environment.parsed_options
            try:
                source = Source.of(options)
            except LoadError as error:
                _refuse(error)
            environment.host = source.edge_url
            found = cls(environment, source)
            if options.headless:
                # Locust's users are no measure here: each process that sends is one
                options.num_users = options.spawn_rate = options.expect_workers if options.master else 1
            else:
                environment.shape_class = UntilOver(found)
        for event, listener in (
            (environment.events.test_start, found._start),
            (environment.events.test_stopping, found._stop),
            (environment.events.quitting, found._quit),
        ):
            event.add_listener(listener)  # type: ignore[no-untyped-call]
        return found

    def join(self) -> None:
        """Wait for the end of what this process sends."""
        if self._session is not None:
            self._session.join()

    def _attend(self, session: Session, *, last: bool) -> None:
        """Close a load when it has ended, and with the last one the process."""
        session.join()
        session.close()
        if last:
            self._report()
            self._runner.quit()

    def _end_after(self, plan: LoadPlan, grace_s: float) -> None:
        """End a master whose workers do not all end by themselves: one came too late, or never answers again."""
        while not plan.over():
            gevent.sleep(STOP_POLL_S)
        gevent.sleep(grace_s)
        self._runner.quit()

    def _report(self) -> None:
        """A worker that quits by itself would keep what it counted since its last report, 3 s ago at most."""
        if isinstance(self._runner, WorkerRunner):
            data: dict[str, Any] = {}
            tell = self._environment.events.report_to_master.fire
            tell(client_id=self._runner.client_id, data=data)  # type: ignore[no-untyped-call]
            self._runner.send_message("stats", data)

    def senders(self) -> int:
        """Processes that send: the workers that are there, or this one."""
        return len(_workers(self._runner)) if isinstance(self._runner, MasterRunner) else 1

    def over(self) -> bool:
        """Whether the load that was started last has ended by itself."""
        return self._over_ns is not None and time.monotonic_ns() > self._over_ns

    def _start(self, **_: Any) -> None:
        """Locust starts a load: every process hears of it, a worker after it got its share."""
        try:
            if self._source is None:
                self._begin(self._assignment)
                return
            plan = self._source.plan(self._options)
            grace_s = longest_s(max(plan.deadlines_ms.predict, plan.deadlines_ms.write)) + END_S
            self._over_ns = plan.end_ns + int(grace_s * NS_PER_S)
            whole = Assignment(plan, Share(), recorded=self._source.recorded, last=self._options.headless)
            if isinstance(self._runner, MasterRunner):
                self._share_out(self._runner, whole)
                if whole.last:
                    gevent.spawn(self._end_after, plan, grace_s)
            else:
                self._begin(whole)
        except LoadError as error:
            self._fail(error)

    def _share_out(self, runner: MasterRunner, whole: Assignment) -> None:
        workers = _workers(runner)
        for index, worker in enumerate(workers):
            runner.send_message(ASSIGNMENT, replace(whole, share=Share(index, len(workers))).message(), worker)
        self._recorded = whole.recorded

    def _take(self, msg: Any, **_: Any) -> None:
        try:
            self._assignment = Assignment.from_message(msg.data)
        except LoadError as error:
            self._fail(error)

    def _begin(self, assignment: Assignment | None) -> None:
        if assignment is None:
            log.warning("this worker came after the load had been shared out: it takes part in the next one")
            return
        self._session = Session(self._environment, assignment, Access.to(assignment.plan))
        self._recorded = assignment.recorded
        gevent.spawn(self._attend, self._session, last=assignment.last)

    def _stop(self, **_: Any) -> None:
        if self._session is not None:
            self._session.close()
        self._session = self._assignment = self._over_ns = None

    def _quit(self, environment: Environment, **_: Any) -> None:
        """Also after SIGTERM. A load that is recorded knows no failures: its history is judged."""
        if self._session is not None:
            self._session.close()
        if environment.process_exit_code is None and (self._recorded or (self._source and self._source.recorded)):
            environment.process_exit_code = 0 if self._recorded else 1

    def _fail(self, error: LoadError) -> None:
        """Nothing can be sent; a process without a page to try again on ends."""
        log.error(error)
        if self._environment.web_ui is not None:
            gevent.spawn(self._runner.stop)
        else:
            self._environment.process_exit_code = EXIT_USAGE
            gevent.spawn(self._runner.quit)


def _workers(runner: MasterRunner) -> list[str]:
    """Ids of those that take part in a start."""
    return [worker.id for worker in (*runner.clients.ready, *runner.clients.spawning, *runner.clients.running)]


def _refuse(error: LoadError) -> NoReturn:
    sys.stderr.write(f"{error}\n")
    raise SystemExit(EXIT_USAGE)
