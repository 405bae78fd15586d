"""Mage's own environment on this machine: where it is, and that it is there before anything starts from it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final, Protocol

from infra.environment import EnvironmentFault
from infra.local.account import Account
from infra.local.plan import LocalPlan
from services.etl import mage as mage_files

LOCK: Final = Path(mage_files.__file__).with_name("requirements.lock")
STAMP: Final = "breakwater.stamp"
"""What scripts/bootstrap leaves last in an environment that is whole; in our own its first line names the checkout."""
INSTALL_S: Final = 900.0
"""40 s here; a slow line gets its time."""


class Begins(Protocol):
    """The part of a progress that is told what takes long."""

    def begin(self, component: str, what: str) -> None: ...

    def done(self, component: str, what: str) -> None: ...


def environment() -> Path:
    """The folder of the environment that belongs to the lock; scripts/bootstrap makes it, for all checkouts alike."""
    if os.geteuid() == 0:
        base = Path("/var/lib/breakwater")  # the servers run as another user, who must get there
    else:
        configured = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
        base = Path(configured) / "breakwater"
    return base / f"mage-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"


def python() -> Path:
    return environment() / "bin" / "python"


def ensure_installed(progress: Begins) -> None:
    """Have it installed where it is missing, and say so; EnvironmentFault when that fails."""
    if (environment() / STAMP).exists():
        return
    progress.begin("mage", f"installing its own environment, 1.4 GB, once for this machine: {environment()}")
    bootstrap = _checkout() / "scripts" / "bootstrap"
    try:
        done = subprocess.run([str(bootstrap), "mage"], capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFault(f"Mage's environment was not installed: {error}; run {bootstrap} mage") from error
    if done.returncode != 0:
        said = " ".join((done.stdout + done.stderr).split())[-400:]
        raise EnvironmentFault(
            f"Mage's environment was not installed: {said}; run `scripts/bootstrap mage`, or do without: "
            "breakwater:mage {enabled: false}"
        )
    progress.done("mage", f"its own environment is installed: {environment()}")


def own_artifacts(plan: LocalPlan, account: Account) -> None:
    """Let the servers' user write artifacts: whoever registered before may have been root."""
    store = Path(plan.artifacts)
    if "://" in plan.artifacts or not plan.artifacts.startswith(str(plan.state)):
        return
    account.directory(store, 0o755)
    for path in store.rglob("*"):
        account.own(path)


def _checkout() -> Path:
    try:
        return Path((Path(sys.prefix) / STAMP).read_text().split()[2])
    except (OSError, IndexError) as error:
        raise EnvironmentFault("this environment was not made by scripts/bootstrap: run `make install`") from error
