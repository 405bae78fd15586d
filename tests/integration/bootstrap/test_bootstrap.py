"""scripts/bootstrap on a machine where everything is installed: instant, silent, and clear about wrong usage."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.experiments import browser

pytestmark = pytest.mark.integration

NEEDS_BROWSER = pytest.mark.skipif(browser.program() is None, reason=browser.MISSING)

ROOT = Path(__file__).resolve().parents[3]
INSTANT_S = 1.0
"""What every `make` target pays for it."""


def bootstrap(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "scripts" / "bootstrap"), *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=280, check=False)


def test_second_time_is_instant_silent_and_changes_nothing() -> None:
    assert bootstrap().returncode == 0
    stamp = ROOT / ".venv" / "breakwater.stamp"
    made = stamp.stat().st_mtime_ns
    start = time.monotonic()
    again = bootstrap()
    took = time.monotonic() - start
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert stamp.stat().st_mtime_ns == made
    assert took < INSTANT_S


@pytest.mark.parametrize("what", ["packages", pytest.param("browser", marks=NEEDS_BROWSER)])
def test_packages_alone_does_nothing_when_none_is_missing(what: str) -> None:
    done = bootstrap(what)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_unknown_argument_is_one_clear_line() -> None:
    done = bootstrap("package")
    assert done.returncode == 1
    assert done.stderr == (
        "bootstrap: unknown argument 'package'; use scripts/bootstrap, or it with packages, browser or mage\n"
    )
