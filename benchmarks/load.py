"""Runs the load generators: wrk with load.lua, and h2load for HTTP/2 through the edge."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.measured import BenchmarkError, Measured, from_h2load, from_wrk

LUA: Final = Path(__file__).with_name("load.lua")
GRACE_S: Final = 30
WARM_S: Final = 1.0
STREAMS: Final = 25
"""Requests that one HTTP/2 connection may have under way."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to post which bodies (a file, one a line), with which token, if any."""

    url: str
    path: str
    bodies: Path
    token_file: Path | None = None


def wrk(target: Target, *, seconds: float, connections: int, rate: float = 0) -> Measured:
    """One thread and so many connections, as fast as it goes or at a rate (requests/s)."""
    environment = {
        **os.environ,
        "BENCH_BODIES": str(target.bodies),
        "BENCH_PATH": target.path,
        "BENCH_TOKEN_FILE": str(target.token_file or ""),
        "BENCH_RATE": str(rate),
    }
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "10s", "-s", str(LUA), target.url]
    return from_wrk(_run(command, seconds, environment))


def h2load(target: Target, *, seconds: float, clients: int, rate: float = 0) -> Measured:
    """HTTP/2 over TLS with the file's first body, so that after the first the cache answers.

    h2load takes headers only as arguments: the token stands in its command line. It must be that of an environment
    which lives as long as the benchmark (platform.py).
    """
    with tempfile.TemporaryDirectory(prefix="breakwater-bench-") as scratch:
        body, log = Path(scratch) / "body", Path(scratch) / "log"
        with target.bodies.open() as bodies:
            body.write_text(bodies.readline().strip())
        command = ["h2load", "-t1", f"-c{clients}", f"-m{STREAMS}", f"-D{seconds:.0f}", f"--warm-up-time={WARM_S:.0f}"]
        command += [f"--data={body}", f"--log-file={log}", "-Hcontent-type: application/json"]
        if rate:
            command.append(f"--rps={rate / clients:g}")
        if target.token_file is not None:
            command.append(f"-Hauthorization: Bearer {target.token_file.read_text().strip()}")
        _run([*command, f"{target.url}{target.path}"], seconds + WARM_S, dict(os.environ))
        return from_h2load(log.read_text(), seconds)


def _run(command: list[str], seconds: float, environment: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds + GRACE_S, check=False
        )
    except FileNotFoundError:
        raise BenchmarkError(f"{command[0]} is not installed: `make bench` says from which package") from None
    if done.returncode:
        raise BenchmarkError(f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
