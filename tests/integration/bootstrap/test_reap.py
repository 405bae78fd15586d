"""scripts/reap collects what its command leaves behind, and says with its exit code what the command said."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

REAP = str(Path(__file__).resolve().parents[3] / "scripts" / "reap")
LIMIT_S = 30

ORPHAN = """
import os, time
from pathlib import Path
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.write(write, str(os.getpid()).encode())
        time.sleep(0.5)
    os._exit(0)
os.wait()
orphan = Path("/proc") / os.read(read, 20).decode() / "status"
status = dict(line.split(":\\t", 1) for line in orphan.read_text().splitlines())
assert int(status["PPid"]) == os.getppid(), status["PPid"]
while orphan.exists():
    time.sleep(0.02)
"""


def reap(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([REAP, *command], capture_output=True, text=True, timeout=LIMIT_S, check=False)


def test_orphans_are_adopted_and_collected() -> None:
    done = reap(sys.executable, "-c", ORPHAN)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("program", "code"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_commands_exit_code_is_passed_on(program: str, code: int) -> None:
    assert reap(sys.executable, "-c", program).returncode == code


def test_termination_reaches_the_command() -> None:
    program = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(5)); print('on', flush=1); time.sleep(60)"
    )
    with subprocess.Popen([REAP, sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "on\n"
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=LIMIT_S) == 5


def test_no_command_is_a_usage_error() -> None:
    assert reap().stderr == "usage: scripts/reap COMMAND...\n"
