"""What Locust runs, headless or with its web page, as one process or as a master with workers (see README.md).

A plan (BREAKWATER_LOAD_PLAN) is carried out as it is written, with a history. Without one Locust makes its own for the
environment that it is told, as often as somebody presses start, and records nothing. Verdicts come from a history,
never from Locust's exit.
"""

from __future__ import annotations

import os
from typing import Any

from locust import User, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser

from loadtests import alone
from loadtests.conductor import Conductor
from loadtests.plan import PLAN_VARIABLE

LOOPBACK = "127.0.0.1"
_conductor: list[Conductor] = []


class Load(User):
    """One for each process that sends: Locust's page shows it while the load runs."""

    @task
    def wait(self) -> None:
        _conductor[-1].join()
        raise StopUser


def _options(parser: LocustArgumentParser, **_: Any) -> None:
    """Page and master listen on loopback unless told otherwise: whoever reaches them steers load."""
    parser.set_defaults(web_host=LOOPBACK, master_bind_host=LOOPBACK)
    if PLAN_VARIABLE not in os.environ:
        alone.add_options(parser)


def _begin(environment: Environment, **_: Any) -> None:
    _conductor.append(Conductor.of(environment))


events.init_command_line_parser.add_listener(_options)  # type: ignore[no-untyped-call]
events.init.add_listener(_begin)  # type: ignore[no-untyped-call]
