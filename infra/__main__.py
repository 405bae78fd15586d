"""The Pulumi program: `pulumi up -s staging` gives the platform that Pulumi.staging.yaml describes."""

from __future__ import annotations

import sys
from pathlib import Path

import pulumi

PROJECT = Path(__file__).resolve().parent.parent
# Pulumi runs this file with infra/ as the first import path, where infra/kubernetes would hide a package.
sys.path = [str(PROJECT), *(path for path in sys.path if Path(path or ".").resolve() != PROJECT / "infra")]

from infra.kubernetes.plan import KubernetesPlan  # noqa: E402
from infra.kubernetes.program import deploy, export  # noqa: E402
from infra.topology import TopologyError, load  # noqa: E402


def main() -> None:
    try:
        plan = KubernetesPlan(load(PROJECT, pulumi.get_stack()))
    except TopologyError as error:
        raise pulumi.RunError(str(error)) from error
    export(plan, deploy(plan))


if __name__ == "__main__":
    main()
