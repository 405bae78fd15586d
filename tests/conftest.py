"""Test results say which commit they are of: the gate counts no others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from experiments.commit import commit
from experiments.gate.collect.results import COMMIT


@pytest.fixture(scope="session", autouse=True)
def _named_after_the_commit(record_testsuite_property: Callable[[str, object], None]) -> None:
    record_testsuite_property(COMMIT, commit() or "")
