"""A run that is ended at any moment leaves nothing that `breakwater heal` does not bring back to health."""

from __future__ import annotations

import random
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.conftest import ENVIRONMENT, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
EARLY: Final = ("begin", "baseline", "fault")
LATE: Final = ("recovery", "rollback", "final-reads")
"""Each three blows in a row fall into all of one or of the other; the first three into the early ones, which cost least
to wait for."""
BEGIN_S: Final = (1.0, 14.0)
"""Since the command: preflight, the start of the load, its warming up."""
ROLLBACK_S: Final = 1.0
"""Since Chaos Toolkit begins to roll back. After it the load ends, which takes longer than this."""
FINAL_READS_S: Final = 0.3
"""Since they begin. What was recorded is merged, judged and drawn after them, before the command ends."""
IN_FORCE: Final = "in-force"
IN_FORCE_S: Final = (0.5, 5.0)
"""After the undo of a fault came to stand on disk: it is written before the fault, which strikes within a tenth of a
second and lasts for 15 s."""
COMES_S: Final = 240.0
"""A phase is reached by then: S-05 trains before its baseline, S-06 restarts everything before its recovery."""
ENDS_S: Final = 90.0
"""Chaos Toolkit is interrupted, undoes its fault (a member's start takes seconds), and what was recorded is kept."""
GONE_S: Final = 5.0
"""Locust and the writers look for their end each second."""
HEALTHY_S: Final = 60.0
"""S-01's own promise for an old primary that comes back."""
ALL_HEALTHY_S: Final = 120.0
"""Of S-06, in which the H2O cloud and Mage may have to start again: infra/local/rolling.py waits as long for each."""


@dataclass(frozen=True, slots=True)
class Target:
    """A run that is to be killed: for how long its fault is surely in force, and what comes after it lasts."""

    scenario: str
    variant: str
    fault_s: float
    recovery_s: float
    healthy_s: float = HEALTHY_S


S01: Final = (Target("S-01", "server-killed", 15, 20), Target("S-01", "member-killed", 15, 20))
TARGETS: Final = (
    *S01,
    Target("S-02", "redis-paused", 8, 8),
    Target("S-04", "replica-frozen", 5, 10),
    Target("S-05", "good", 8, 5),  # six reloads, 1.6 s between them
    Target("S-06", "everything", 25, 5, ALL_HEALTHY_S),  # each member takes some seconds
)
BASELINE_S: Final = 10.0
"""No baseline is shorter."""


@dataclass(frozen=True, slots=True)
class Blow:
    """How a run ends: by which signal, and how long after a phase of it began."""

    number: signal.Signals
    phase: str
    after_s: float
    target: Target

    def __str__(self) -> str:
        return f"{self.number.name}-{self.phase}-{self.after_s:.2f}s-{self.target.scenario}-{self.target.variant}"


def blows(seed: int, count: int) -> Iterator[Blow]:
    """`count` of them; each three in a row have every signal once, each six every phase. The first three hit S-01."""
    draw = random.Random(seed)  # noqa: S311 - repeatable choice, no secret
    for at in range(count):
        of_three = at % len(SIGNALS)
        if of_three == 0:
            numbers = draw.sample(SIGNALS, len(SIGNALS))
            phases = draw.sample(LATE if at % (len(EARLY) + len(LATE)) else EARLY, len(SIGNALS))
        target = draw.choice(S01 if at < len(SIGNALS) else TARGETS)
        phase = phases[of_three]
        yield Blow(numbers[of_three], phase, draw.uniform(*moments(phase, target)), target)


def moments(phase: str, target: Target) -> tuple[float, float]:
    """Between which seconds of a phase a blow falls."""
    lasts = {
        "baseline": BASELINE_S,
        "fault": target.fault_s,
        "recovery": target.recovery_s,
        "rollback": ROLLBACK_S,
        "final-reads": FINAL_READS_S,
    }
    return BEGIN_S if phase == "begin" else (0.0, lasts[phase])


def certain(seed: int) -> Blow:
    """The worst moment of all, which none that is drawn need be: no word from the runner, and its fault in force."""
    draw = random.Random(f"{seed}/certain")  # noqa: S311 - repeatable choice, no secret
    return Blow(signal.SIGKILL, IN_FORCE, draw.uniform(*IN_FORCE_S), draw.choice(S01))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = metafunc.config.getoption("--moments-seed")
    seed = secrets.randbelow(10_000) if asked is None else asked
    chosen = [certain(seed), *blows(seed, metafunc.config.getoption("--moments"))]
    metafunc.parametrize("blow", chosen, ids=[f"seed{seed}-{blow}" for blow in chosen])


def test_a_killed_run_is_healed(trained: Platform, blow: Blow) -> None:
    print(blow)  # noqa: T201 - pytest shows it, with the seed, when the test fails
    out = trained.runs / "killed"
    target = blow.target
    before = runs(out, target)
    seed = ("--seed", str(round(blow.after_s * 1000)))
    runner = trained.start(
        *("verify", ENVIRONMENT, "--scenario", target.scenario, "--variant", target.variant), *seed, "--out", str(out)
    )
    journal = trained.state / "undo"
    try:
        if blow.phase == IN_FORCE:
            await_so(runner, f"an undo in {journal}", lambda: bool(undos(journal)))
        elif blow.phase != "begin":
            await_so(
                runner,
                f"{blow.phase} in {out}",
                lambda: any(reached(run, blow.phase) for run in runs(out, target) - before),
            )
        time.sleep(blow.after_s)
        assert runner.poll() is None, f"the run ended by itself: {runner.communicate()}"
        runner.send_signal(blow.number)
        in_force = undos(journal)  # Chaos Toolkit, which outlives its runner, needs longer to undo anything
        said = runner.communicate(timeout=ENDS_S)
    finally:
        runner.kill()
    assert runner.returncode != 0, said
    assert in_force or blow.phase != IN_FORCE, "no fault was in force when the runner was killed"

    healed = trained.run("heal", ENVIRONMENT).stdout

    assert undos(journal) == [], healed
    assert left_over(out) == {}, f"of {blow}, after heal: {healed}"
    await_health(trained, target.healthy_s)
    # Another run can start: the environment's locks are free, and there is nothing to undo.
    assert "nothing to heal" in trained.run("heal", ENVIRONMENT).stdout


def runs(out: Path, target: Target) -> set[Path]:
    return set(out.glob(f"*-{target.scenario}-{target.variant}-*"))


MARKS: Final = {
    "baseline": ("events.jsonl", b'"undisturbed"'),
    "fault": ("events.jsonl", b'"fault"'),
    "recovery": ("events.jsonl", b'"recovery"'),
    "rollback": ("logs/chaos.log", b"Rollback: "),
    "final-reads": ("events.jsonl", b'"final_reads"'),
}
"""What a run's own records say once it is in a phase; looked for as bytes, for parsing takes CPU from the run."""


def reached(run: Path, phase: str) -> bool:
    file, mark = MARKS[phase]
    return (run / file).exists() and mark in (run / file).read_bytes()


def await_so(runner: subprocess.Popen[str], what: str, so: Callable[[], bool]) -> None:
    end = time.monotonic() + COMES_S
    while not so():
        assert runner.poll() is None, f"the run ended by itself: {runner.communicate()}"
        assert time.monotonic() < end, f"no {what} within {COMES_S:.0f} s"
        time.sleep(0.05)


def undos(journal: Path) -> list[str]:
    """What the undo journal holds: each is written before its fault strikes, and removed when it is undone."""
    return [entry.name for entry in journal.iterdir()] if journal.is_dir() else []


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


def await_health(platform: Platform, within_s: float) -> None:
    end = time.monotonic() + within_s
    while True:
        sick = {name: line["state"] for name, line in platform.status().items() if not line["healthy"]}
        if not sick:
            return
        assert time.monotonic() < end, f"not healthy {within_s:.0f} s after heal: {sick}; state in {platform.state}"
        time.sleep(0.5)
