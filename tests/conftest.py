"""What all tests share: results that say which commit they are of, and property tests without a deadline."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from hypothesis import settings

from experiments.commit import commit
from experiments.gate.collect.results import COMMIT

# A deadline would judge the machine: the first example of a test also pays for what it imports.
settings.register_profile("breakwater", deadline=None)
settings.load_profile("breakwater")


def pytest_addoption(parser: pytest.Parser) -> None:
    killed = parser.getgroup("runner killed", "tests/e2e/test_runner_killed.py")
    killed.addoption("--moments", type=int, default=3, help="runs killed at random, beside one in mid-fault")
    killed.addoption("--moments-seed", type=int, default=None, help="the moments of a run before; printed by it")
    controls = parser.getgroup("controls", "tests/e2e/test_controls.py")
    controls.addoption("--controls-seed", type=int, default=None, help="the draw of a run before; its tests name it")


def pytest_configure() -> None:
    """SIGTERM ends the tests as Ctrl-C does, with all that their fixtures started; so does SIGINT where it was ignored,
    as in the background of a shell."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _named_after_the_commit(record_testsuite_property: Callable[[str, object], None]) -> None:
    record_testsuite_property(COMMIT, commit() or "")
