"""The whole platform, once a session: brought up by the command line in a project and a state directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from experiments.checkers import LATENCIES

ENVIRONMENT = "e2e"
PORT_BASE = 27000
"""Away from the local environment's 24000, which may be up beside the tests."""
COMMAND_S = 280
SEEDS = (7, 8, 9)
"""A disk or a processor that nobody gets for a while keeps a run from proving anything: then the question is asked
again. Only then: a broken promise is never asked twice."""
WEATHER = {(checker.__name__, "false") for checker in LATENCIES}
"""Checkers and what they may say without failing a test."""
PROOF_S = len(SEEDS) * COMMAND_S
H2O_S = 90.0
STACK = f"""
config:
  breakwater:runtime: local
  breakwater:chaos:
    enabled: true
    components: [postgres, redis, h2o, registry, mage, api, edge, etcd]
  breakwater:h2o:
    nodes: 2
    memory_mb: 1024
  breakwater:local:
    port_base: {PORT_BASE}
"""


@dataclass(frozen=True)
class Platform:
    """A running environment as its user has it: a command, a directory, addresses."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / "state" / "breakwater" / ENVIRONMENT

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def run(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """`breakwater ...`; fails the test with its output when the exit code is another (None: any)."""
        process = self.start(*arguments)
        try:
            stdout, stderr = process.communicate(timeout=COMMAND_S)
        except BaseException:  # a late answer, or an end of the tests: nobody may go on holding the environment
            process.kill()
            process.wait()
            raise
        done = subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)
        if code is not None and done.returncode != code:
            pytest.fail(
                f"breakwater {' '.join(arguments)} ended with {done.returncode}, not {code}\n"
                f"{done.stdout}\n{done.stderr}\nstate in {self.state}, runs in {self.runs}"
            )
        return done

    def kept(self, *arguments: str, out: Path) -> dict[str, Any]:
        """The verdict of a run of `breakwater ...` below `out`, all of whose promises are kept, but for a p99.

        That one is judged and shown; whether it holds on a machine that others share is no question for a test.
        """
        for seed in SEEDS:
            done = self.run(*arguments, "--seed", str(seed), "--out", str(out), code=None)
            latest = out / "latest" / "verdict.json"
            verdict: dict[str, Any] = json.loads(latest.read_text()) if latest.exists() else {"promises": []}
            missed = {
                promise["id"]: promise["verdict"]
                for promise in verdict["promises"]
                if promise["verdict"] != "true" and (promise["checker"], promise["verdict"]) not in WEATHER
            }
            if set(missed.values()) != {"unknown"}:
                break
            print(done.stdout)  # noqa: T201 - pytest shows it when the last seed proves nothing either
        assert verdict["promises"], f"{done.stdout}\n{done.stderr}"
        assert not missed, f"{missed}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == verdict["exit_code"], f"{done.stdout}\n{done.stderr}"
        # judged the same again, from its files alone
        assert json.loads(self.run("check", str(out / "latest"), "--json", code=done.returncode).stdout) == verdict
        return verdict

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`breakwater ...`, without waiting for its end; SIGINT ends it, even of tests in the background."""
        return subprocess.Popen(
            ["/usr/bin/env", "--default-signal=INT", str(Path(sys.prefix) / "bin" / "breakwater"), *arguments],
            cwd=self.root,
            env={**os.environ, "XDG_STATE_HOME": str(self.root / "state"), "NO_COLOR": "1", "COLUMNS": "160"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def endpoints(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("endpoints", ENVIRONMENT, "--json").stdout)
        return found

    def status(self) -> dict[str, dict[str, Any]]:
        lines = json.loads(self.run("status", ENVIRONMENT, "--json", code=None).stdout)
        return {line["member"]: line for line in lines}

    def settled(self) -> dict[str, dict[str, Any]]:
        """The status once the H2O cloud and Mage, which `up` does not wait for, are ready too."""
        end = time.monotonic() + H2O_S
        while True:
            found = self.status()
            if all(line["healthy"] for line in found.values() if line["component"] in {"h2o", "mage"}):
                return found
            if time.monotonic() > end:
                pytest.fail(f"no H2O cloud or no Mage after {H2O_S:.0f} s: {found}; state in {self.state}")
            time.sleep(0.5)

    def token(self) -> str:
        return (self.state / "secrets" / "api_token").read_text()

    def client(self, *, token: str | None = None) -> httpx.Client:
        """Through the edge, trusting its own CA and nothing else."""
        edge = self.endpoints()["edge"]
        trust = ssl.create_default_context(cafile=edge["ca_file"])
        headers = {"Authorization": f"Bearer {self.token() if token is None else token}"}
        return httpx.Client(base_url=edge["url"], verify=trust, headers=headers, timeout=5.0, trust_env=False)


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    # Not pytest's own directory: as root the servers run as another user, who could not enter it.
    root = Path(tempfile.mkdtemp(prefix="bw-e2e-"))
    root.chmod(0o755)
    (root / "Pulumi.yaml").write_text("name: breakwater\nruntime: python\n")
    (root / f"Pulumi.{ENVIRONMENT}.yaml").write_text(STACK)
    (root / "state").mkdir(mode=0o755)
    platform = Platform(root)
    try:
        platform.run("up", ENVIRONMENT)
        yield platform
    finally:
        platform.run("down", ENVIRONMENT, "--purge", code=None)
        shutil.rmtree(root)


@pytest.fixture(scope="session")
def trained(platform: Platform) -> Platform:
    """With three months of flights and the ensemble that a walk-forward over them gave."""
    platform.run("load", ENVIRONMENT, "--months", "1-3")
    platform.run("train", ENVIRONMENT)
    return platform
