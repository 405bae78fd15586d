"""The platform on a real cluster, once a session: on the one that KUBECONFIG gives, else on one that is brought up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.kubernetes.plan import KubernetesPlan
from infra.topology import IMAGES, load
from tests.kubernetes.platform import WITHOUT_IMAGE, Platform

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parent / "cluster"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.kubernetes)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def plan() -> KubernetesPlan:
    return KubernetesPlan(load(HERE, "cluster"))


@pytest.fixture(scope="session")
def cluster(plan: KubernetesPlan) -> Iterator[None]:
    """A cluster that has the images. One that was given stays, one that was brought up is taken down."""
    if "KUBECONFIG" in os.environ:
        yield
        return
    said = _script("up")
    try:
        with pytest.MonkeyPatch.context() as patch:
            for word in said.removeprefix("export ").split():
                name, _, value = word.partition("=")
                patch.setenv(name, value.replace("$PATH", os.environ["PATH"]))
            names = [name for name in IMAGES if name not in WITHOUT_IMAGE]
            _script("load-image", *(plan.settings.images.reference(name) for name in names))
            yield
    finally:
        _script("down", "--purge")


@pytest.fixture(scope="session")
def platform(plan: KubernetesPlan, cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    made = Platform(plan, tmp_path_factory.mktemp("secrets") / "stack")
    assert not made.get("namespaces", "--field-selector", f"metadata.name={plan.namespace}"), (
        f"the namespace {plan.namespace} exists already: delete it, the tests begin with an empty one"
    )
    made.install()
    return made


def _script(name: str, *arguments: str) -> str:
    done = subprocess.run([str(SCRIPTS / name), *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()
