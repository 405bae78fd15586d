"""The environments that the repository ships, as plans and as rendered manifests (rendered once)."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.kubernetes.plan import KubernetesPlan
from infra.topology import load

ROOT = Path(__file__).resolve().parents[4]
Manifests = list[dict[str, Any]]


def shipped(environment: str) -> KubernetesPlan:
    """Also `cluster`, the one of the tests on a real one."""
    directory = ROOT / "tests" / "kubernetes" if environment == "cluster" else ROOT
    return KubernetesPlan(load(directory, environment))


@functools.cache
def _rendered(environment: str) -> Manifests:
    from infra.kubernetes.render import manifests  # noqa: PLC0415 - only tests that render pay for Pulumi

    return manifests(shipped(environment))


@pytest.fixture(scope="session")
def rendered() -> Callable[[str], Manifests]:
    """Manifests of an environment; a copy, so that a test may change them."""
    return lambda environment: copy.deepcopy(_rendered(environment))


def one(made: Manifests, kind: str, name: str) -> dict[str, Any]:
    (found,) = [m for m in made if m["kind"] == kind and m["metadata"]["name"] == name]
    return found


def pod(made: Manifests, kind: str, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = one(made, kind, name)["spec"]["template"]["spec"]
    return spec


def configuration(made: Manifests, name: str, file: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(one(made, "ConfigMap", name)["data"][file])
    return content
