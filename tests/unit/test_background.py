"""What trains is started below everything that serves, by its own niceness and by its session's."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services import background

AUTOGROUP = Path("/proc/self/autogroup")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = background.spawn(["sleep", "60"], stdin=subprocess.DEVNULL)
    yield process
    process.kill()
    process.wait()


def test_a_background_process_has_a_session_of_its_own(sleeper: subprocess.Popen[bytes]) -> None:
    assert os.getsid(sleeper.pid) == sleeper.pid


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel has no autogroups")
def test_its_session_is_nice(sleeper: subprocess.Popen[bytes]) -> None:
    found = re.search(r"nice (-?\d+)", Path(f"/proc/{sleeper.pid}/autogroup").read_text())
    assert found
    assert int(found[1]) == background.NICENESS


def test_one_that_ended_at_once_is_no_error() -> None:
    process = background.spawn(["true"], stdin=subprocess.DEVNULL)
    assert process.wait() == 0
