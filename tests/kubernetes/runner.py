"""A runner of experiments as anybody else would be one: its own account, its few secrets, its own state directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from infra.kubernetes.groundwork import RUNNER
from infra.kubernetes.runner import NEEDED
from tests.kubernetes.platform import Platform

HERE: Final = Path(__file__).resolve().parent
COMMAND_S: Final = 420
"""A scenario lasts two to four minutes; the preflight may wait for a member that still comes back."""
RATE: Final = "60"
"""Predictions a second, the rest in scale: three fifths of the load. The cluster itself takes half a processor of its
two, and at four fifths what is left is not enough for a failover. Below this, writes come too rarely to time one: 28 ms
lie between two direct ones to a shard, the API's in the middle between them."""


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Runner:
    """Calls the command as a process of its own, with nothing of this one's but the path."""

    platform: Platform
    home: Path

    @property
    def environment(self) -> str:
        return self.platform.plan.environment

    @property
    def state(self) -> Path:
        return self.home / "breakwater" / self.environment

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    def prepare(self) -> None:
        """A kubeconfig with the runner's token alone, and the secrets that a runner needs alone."""
        cluster = json.loads(self.platform.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
        token = self.platform.kubectl("create", "token", RUNNER, "--duration=2h").strip()
        context = self.platform.plan.settings.context
        cluster["users"] = [{"name": RUNNER, "user": {"token": token}}]
        cluster["contexts"] = [
            {"name": context, "context": {"cluster": cluster["clusters"][0]["name"], "user": RUNNER}}
        ]
        self.home.mkdir(parents=True, exist_ok=True)
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(yaml.safe_dump(cluster))
        secrets = self.state / "secrets"
        secrets.mkdir(mode=0o700, parents=True)
        for name in NEEDED:
            (secrets / name).touch(mode=0o600)
            (secrets / name).write_bytes((self.platform.secrets / name).read_bytes())

    def kubectl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """kubectl as the runner, whatever it says."""
        space = ("--context", self.platform.plan.settings.context, "--namespace", self.platform.plan.namespace)
        command = ["kubectl", "--kubeconfig", str(self.kubeconfig), *space, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def may(self, verb: str, what: str, part: str = "") -> bool:
        """By the API server's own word."""
        said = self.kubectl("auth", "can-i", verb, what, *([f"--subresource={part}"] if part else []))
        answer = said.stdout.strip().partition(" ")[0]
        assert answer in {"yes", "no"}, said.stderr
        return answer == "yes"

    def __call__(self, *words: str, **variables: str) -> Said:
        known = {"PATH": os.environ["PATH"], "KUBECONFIG": str(self.kubeconfig), "XDG_STATE_HOME": str(self.home)}
        done = subprocess.run(
            [str(Path(sys.executable).with_name("breakwater")), *words],
            env={**known, "BREAKWATER_PROJECT": str(HERE), **variables},
            cwd=HERE.parents[1],
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def verify(self, scenario: str, variant: str, seed: int, out: Path) -> dict[str, Any]:
        """The verdict of one run; AssertionError with what was said when there is none."""
        chosen = ("--scenario", scenario, "--variant", variant, "--seed", str(seed), "--rate", RATE, "--out", str(out))
        said = self("verify", self.environment, *chosen, "--json")
        assert said.out, f"no verdict, exit code {said.code}: {said.err}"
        (verdict,) = json.loads(said.out)
        found: dict[str, Any] = verdict
        return found
