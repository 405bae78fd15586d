"""The platform on a real cluster, once a session: on the one that KUBECONFIG gives, else on one that is brought up."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.kubernetes.plan import KubernetesPlan
from infra.on_kubernetes import IMAGES
from infra.topology import load
from tests.kubernetes.platform import Platform
from tests.kubernetes.training import NAME, training_job

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parent / "cluster"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.kubernetes)
            item.add_marker(pytest.mark.timeout(900))
    # first on the untouched platform: whose pod was lost leaves connections that end nowhere
    items.sort(key=lambda item: item.path != HERE / "test_platform.py")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured, which the JUnit file has too: a green line does not say by how much."""
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {name} = {value}")


@pytest.fixture(scope="session")
def plan() -> KubernetesPlan:
    return KubernetesPlan(load(HERE, "cluster"))


@pytest.fixture(scope="session")
def cluster(plan: KubernetesPlan) -> Iterator[None]:
    """A cluster that has the images. One that was given stays, one that was brought up is taken down."""
    if "KUBECONFIG" in os.environ:
        yield
        return
    said = script("up")
    try:
        with pytest.MonkeyPatch.context() as patch:
            for word in said.removeprefix("export ").split():
                name, _, value = word.partition("=")
                patch.setenv(name, value.replace("$PATH", os.environ["PATH"]))
            script("load-image", *(plan.settings.images.reference(name) for name in IMAGES))
            yield
    finally:
        script("down", "--purge")


@pytest.fixture(scope="session")
def machines(cluster: None) -> Callable[[str, str], str]:
    """Runs a script of tests/cluster for a node: only where the cluster is one of theirs."""
    state = Path(os.environ.get("BREAKWATER_CLUSTER_STATE", "/var/lib/breakwater-cluster"))
    if Path(os.environ["KUBECONFIG"]) != state / "admin.kubeconfig":
        pytest.skip("the cluster was given by KUBECONFIG and is none of tests/cluster: its nodes are not ours to kill")
    return script


@pytest.fixture(scope="session")
def installed(plan: KubernetesPlan, cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Platform, float]:
    """The platform on an empty cluster, and the seconds from its first object until all but the API was healthy."""
    made = Platform(plan, tmp_path_factory.mktemp("secrets") / "stack")
    assert not made.get("namespaces", "--field-selector", f"metadata.name={plan.namespace}"), (
        f"the namespace {plan.namespace} exists already: delete it, the tests begin with an empty one"
    )
    began = time.monotonic()
    made.install()
    made.healthy()
    return made, time.monotonic() - began


@pytest.fixture(scope="session")
def platform(installed: tuple[Platform, float]) -> Platform:
    return installed[0]


@pytest.fixture(scope="session")
def model(platform: Platform) -> None:
    """A trained model in production, and every replica of the API ready with it."""
    platform.apply([training_job(platform.plan, platform.objects())])
    platform.complete(NAME)
    platform.rolled_out("deployment/api")


def script(name: str, *arguments: str) -> str:
    done = subprocess.run([str(SCRIPTS / name), *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()
