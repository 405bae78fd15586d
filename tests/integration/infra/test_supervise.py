"""A server's orphan belongs to supervisord, which collects it: no zombie is left whatever PID 1 does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

PATIENCE_S = 15.0

ORPHAN = """
import os, pathlib, sys, time
if os.fork() == 0:
    pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
    time.sleep(60)
    os._exit(0)
"""


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status; empty when there is no such process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def wait(what: str, ready: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not ready():
        assert time.monotonic() < end, f"{what} did not happen within {PATIENCE_S:.0f} s"
        time.sleep(0.02)


def test_orphans_are_adopted_and_collected(tmp_path: Path) -> None:
    script, born, pidfile = tmp_path / "orphan.py", tmp_path / "born", tmp_path / "supervisord.pid"
    script.write_text(ORPHAN)
    config = tmp_path / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nlogfile={tmp_path}/log\npidfile={pidfile}\nchildlogdir={tmp_path}\n"
        f"[program:parent]\ncommand={sys.executable} {script} {born}\nautorestart=false\nstartsecs=0\n"
    )
    subprocess.run([sys.executable, "-m", "infra.local.supervise", "-c", str(config)], check=True, timeout=PATIENCE_S)
    wait("the daemon", lambda: pidfile.exists() and pidfile.read_text().endswith("\n"))
    daemon = int(pidfile.read_text())
    try:
        wait("the orphan", lambda: born.exists() and born.read_text())
        orphan = int(born.read_text())
        wait("the adoption", lambda: status_of(orphan).get("PPid") == str(daemon))
        os.kill(orphan, signal.SIGTERM)
        wait("the collection", lambda: not status_of(orphan))
    finally:
        os.kill(daemon, signal.SIGTERM)
        wait("the end", lambda: status_of(daemon).get("State", "Z")[0] == "Z")
