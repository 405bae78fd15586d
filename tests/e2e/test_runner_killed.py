"""A run that is ended at any moment leaves nothing that `breakwater heal` does not bring back to health."""

from __future__ import annotations

import json
import random
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.conftest import ENVIRONMENT, Platform

pytestmark = pytest.mark.e2e

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
BEGIN_S: Final = 14.0
"""Preflight, the start of the load, and its warming up."""
BASELINE_S: Final = 16.0
FAULT_S: Final = 15.0
"""As long as S-01 holds a primary down."""
PHASES: Final = {"begin": (1.0, BEGIN_S), "baseline": (BEGIN_S, BEGIN_S + BASELINE_S), "fault": (0.0, FAULT_S)}
"""Seconds between which the moment lies: of a run, of a fault where that is the phase."""
FAULT_COMES_S: Final = 120.0
ENDS_S: Final = 60.0
"""Chaos Toolkit is interrupted, undoes its fault (a member's start takes seconds), and what was recorded is kept."""
GONE_S: Final = 5.0
"""Locust and the writers look for their end each second."""
HEALTHY_S: Final = 60.0
"""S-01's own promise for an old primary that comes back."""


@dataclass(frozen=True, slots=True)
class Blow:
    """How a run ends: by which signal, and when."""

    number: signal.Signals
    phase: str
    after_s: float
    variant: str

    def __str__(self) -> str:
        return f"{self.number.name}-{self.phase}-{self.after_s:.2f}s-{self.variant}"


def blows(seed: int, count: int) -> Iterator[Blow]:
    """`count` of them; each three in a row have every signal and every phase once."""
    draw = random.Random(seed)  # noqa: S311 - repeatable choice, no secret
    for at in range(count):
        if at % len(SIGNALS) == 0:
            numbers, phases = draw.sample(SIGNALS, len(SIGNALS)), draw.sample(list(PHASES), len(PHASES))
        phase = phases[at % len(SIGNALS)]
        variant = draw.choice(["server-killed", "member-killed"])
        yield Blow(numbers[at % len(SIGNALS)], phase, draw.uniform(*PHASES[phase]), variant)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = metafunc.config.getoption("--moments-seed")
    seed = secrets.randbelow(10_000) if asked is None else asked
    chosen = list(blows(seed, metafunc.config.getoption("--moments")))
    metafunc.parametrize("blow", chosen, ids=[f"seed{seed}-{blow}" for blow in chosen])


def test_a_killed_run_is_healed(trained: Platform, blow: Blow) -> None:
    print(blow)  # noqa: T201 - pytest shows it, with the seed, when the test fails
    out = trained.runs / "killed"
    before = set(out.glob("*-S-01-*"))
    seed = ("--seed", str(round(blow.after_s * 1000)))
    runner = trained.start(
        "verify", ENVIRONMENT, "--scenario", "S-01", "--variant", blow.variant, *seed, "--out", str(out)
    )
    try:
        if blow.phase == "fault":
            await_fault(runner, out, before)
        time.sleep(blow.after_s)
        assert runner.poll() is None, f"the run ended by itself: {runner.communicate()}"
        runner.send_signal(blow.number)
        said = runner.communicate(timeout=ENDS_S)
    finally:
        runner.kill()
    assert runner.returncode != 0, said

    healed = trained.run("heal", ENVIRONMENT).stdout

    assert list((trained.state / "undo").iterdir()) == [], healed
    assert left_over(out) == {}, f"of {blow}, after heal: {healed}"
    await_health(trained)
    # Another run can start: the environment's locks are free, and there is nothing to undo.
    assert "nothing to heal" in trained.run("heal", ENVIRONMENT).stdout


def await_fault(runner: subprocess.Popen[str], out: Path, before: set[Path]) -> None:
    """Return once the run's own record says that its fault has struck."""
    end = time.monotonic() + FAULT_COMES_S
    while time.monotonic() < end:
        for run in set(out.glob("*-S-01-*")) - before:
            written = (run / "events.jsonl").read_text() if (run / "events.jsonl").exists() else ""
            if any(
                json.loads(line)["kind"] == "killed" for line in written.splitlines(keepends=True) if line[-1] == "\n"
            ):
                return
        assert runner.poll() is None, f"the run ended by itself: {runner.communicate()}"
        time.sleep(0.05)
    pytest.fail(f"no fault within {FAULT_COMES_S:.0f} s; runs in {out}")


def left_over(out: Path) -> dict[int, str]:
    """Processes that belong to a run below `out`, by their words or their environment, once they had time to end."""
    end = time.monotonic() + GONE_S
    while found := dict(belonging(str(out).encode())):
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    return found


def belonging(to: bytes) -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            words, variables = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        if words and to in words + variables:
            yield int(entry.name), words.replace(b"\0", b" ").decode(errors="replace")


def await_health(platform: Platform) -> None:
    end = time.monotonic() + HEALTHY_S
    while True:
        sick = {name: line["state"] for name, line in platform.status().items() if not line["healthy"]}
        if not sick:
            return
        assert time.monotonic() < end, f"not healthy {HEALTHY_S:.0f} s after heal: {sick}; state in {platform.state}"
        time.sleep(0.5)
