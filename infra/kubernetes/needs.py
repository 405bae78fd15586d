"""What an environment asks of its cluster's quotas, summed in a process of its own: `python -m infra.kubernetes.needs`.

The sums come from the rendering, whose mocks take the engine's place in their process. The program runs in a process
that talks to the engine, so it must not render there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final

from infra.environment import EnvironmentFault
from infra.kubernetes.plan import KubernetesPlan
from infra.topology import load

CODE: Final = Path(__file__).resolve().parents[2]
SUM_S: Final = 120.0
"""Two to three seconds on an idle machine; a crowded one must not fail for that."""


def needs(project: Path, environment: str) -> Mapping[str, Decimal]:
    """By the names that quotas have (preflight.requests). EnvironmentFault when they cannot be summed."""
    # nothing of the engine's: its address and the stack's configuration would be taken for this process's own
    own = {name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")}
    command = [sys.executable, "-m", __name__, str(project), environment]
    try:
        done = subprocess.run(command, cwd=CODE, env=own, capture_output=True, text=True, timeout=SUM_S, check=True)
    except subprocess.SubprocessError as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1]
        raise EnvironmentFault(
            f"what {environment} needs could not be summed: {said}; `breakwater render` says more; nothing was made"
        ) from error
    return {name: Decimal(value) for name, value in json.loads(done.stdout).items()}


def main(arguments: list[str]) -> None:
    from infra.kubernetes.preflight import requests  # noqa: PLC0415 - what only this process needs
    from infra.kubernetes.render import manifests  # noqa: PLC0415

    project, environment = arguments
    summed = requests(manifests(KubernetesPlan(load(Path(project), environment))))
    sys.stdout.write(json.dumps({name: str(value) for name, value in summed.items()}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
