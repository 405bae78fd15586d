"""An environment that lives as long as the benchmark: name, ports, state and token of its own, and a model."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.measured import BenchmarkError
from infra import topology
from infra.local.plan import LocalPlan
from services.api.settings import Settings
from services.contracts.flights import MODEL_NAME
from services.coordination.etcd import EtcdClient
from services.registry import ArtifactStore, ModelFiles, PublishedModels

ENVIRONMENT: Final = "bench"
PORT_BASE: Final = 23000
"""Away from the local environment's 24000 and the tests' 27000."""
COMMAND_S: Final = 300

STACK: Final = f"""config:
  breakwater:runtime: local
  breakwater:h2o:
    nodes: 1
    memory_mb: 1024
  breakwater:local:
    port_base: {PORT_BASE}
"""


class Platform:
    """Lives in `root`, which servers that run as another user must be able to enter."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scratch = root / "scratch"
        stack = root / f"Pulumi.{ENVIRONMENT}.yaml"
        root.mkdir(parents=True, exist_ok=True)
        self.scratch.mkdir(exist_ok=True)
        (root / "Pulumi.yaml").write_text("name: breakwater\nruntime: python\n")
        stack.write_text(STACK)
        self.plan = LocalPlan(topology.load(root, ENVIRONMENT), root / "state" / "breakwater")

    def up(self) -> None:
        """Up, three months of flights, and a model trained on the first two, unless all that is there."""
        (self.root / "state").mkdir(exist_ok=True)
        self._command("up", ENVIRONMENT)
        self._command("load", ENVIRONMENT, "--months", "1-3")
        if not any(line for line in (self.plan.models_dir / "api-0").glob(f"{MODEL_NAME}.json")):
            self._command("train", ENVIRONMENT)

    def purge(self) -> None:
        self._command("down", ENVIRONMENT, "--purge")
        shutil.rmtree(self.root)

    def settings(self, replica: str) -> Settings:
        """What that replica runs with."""
        return Settings.model_validate_json((self.plan.member(replica).directory / "api.json").read_bytes())

    def model(self) -> ModelFiles:
        """The one that serves."""
        with contextlib.closing(EtcdClient(self.plan.etcd_urls)) as etcd:
            published = PublishedModels(
                etcd, ENVIRONMENT, MODEL_NAME, ArtifactStore(self.plan.artifacts), self.scratch / "pointer"
            )
            return published.open(published.look().pointer())

    def _command(self, *arguments: str) -> None:
        command = [str(Path(sys.prefix) / "bin" / "breakwater"), *arguments]
        environment = {**os.environ, "XDG_STATE_HOME": str(self.root / "state")}
        done = subprocess.run(command, cwd=self.root, env=environment, timeout=COMMAND_S, check=False)
        if done.returncode:
            raise BenchmarkError(f"breakwater {' '.join(arguments)} ended with {done.returncode}: see above")


@contextlib.contextmanager
def running(root: Path, *, keep: bool) -> Iterator[Platform]:
    """Up, and afterwards gone without a trace unless `keep`."""
    platform = Platform(root)
    try:
        platform.up()
        yield platform
    finally:
        if not keep:
            platform.purge()
