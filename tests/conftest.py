"""What all tests share: results that say which commit they are of, and property tests without a deadline."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings

from experiments.commit import commit
from experiments.gate.collect.results import COMMIT

# A deadline would judge the machine: the first example of a test also pays for what it imports.
settings.register_profile("breakwater", deadline=None)
settings.load_profile("breakwater")


@pytest.fixture(scope="session", autouse=True)
def _named_after_the_commit(record_testsuite_property: Callable[[str, object], None]) -> None:
    record_testsuite_property(COMMIT, commit() or "")
