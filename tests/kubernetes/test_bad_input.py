"""What a cluster lacks is named before anything is made, a wrong image by `breakwater status`; the next try goes on.

In namespaces of their own, with a topology of their own: the platform that the other tests share sees nothing of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.kubernetes.plan import KubernetesPlan
from infra.topology import load
from tests.kubernetes.platform import COMPONENT, KubectlFailed, Manifest, Platform, eventually

HERE = Path(__file__).resolve().parent
NAMESPACE = "breakwater-bad-input"
OWNED = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
COMMAND_S = 60
SEEN_S = 60.0
"""The kubelet tries an image twice within a quarter of a minute before it says that it cannot have it."""
GONE = "--timeout=120s"
Configure = Callable[..., Platform]

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[Configure]:
    """Makes a project whose topology is the cluster's, with these values of `kubernetes`, and its platform."""
    made: list[Platform] = []

    def configure(**kubernetes: Any) -> Platform:
        document = yaml.safe_load((HERE / "Pulumi.cluster.yaml").read_text())
        document["config"]["breakwater:kubernetes"] |= {"namespace": NAMESPACE, "runners": []} | kubernetes
        (tmp_path / "Pulumi.cluster.yaml").write_text(yaml.safe_dump(document))
        platform = Platform(KubernetesPlan(load(tmp_path, "cluster")), tmp_path / "secrets")
        made.append(platform)
        return platform

    yield configure
    if made:
        made[0].kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", GONE)


def breakwater(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("breakwater")), *words],
        env={**os.environ, "BREAKWATER_PROJECT": str(project), "XDG_STATE_HOME": str(project / "state")},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )


def test_a_quota_that_is_too_small_is_named(configured: Configure, tmp_path: Path) -> None:
    platform = configured()
    labels = {"labels": {"app.kubernetes.io/instance": "cluster"}}
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": NAMESPACE},
        "spec": {"hard": {"pods": "5", "requests.storage": "1Gi", "limits.cpu": "1k"}},
    }
    platform.apply([{**OWNED, "metadata": {**OWNED["metadata"], **labels}}, quota])  # type: ignore[dict-item]
    said = breakwater(tmp_path, "preflight", "cluster")
    assert said.returncode == 3, said.stdout
    assert "pods 5 where " in said.stderr
    assert "requests.storage 1Gi where " in said.stderr
    assert "limits.cpu" not in said.stderr
    assert "quota small" in said.stderr
    platform.kubectl("delete", "resourcequota", "small")
    assert breakwater(tmp_path, "preflight", "cluster").returncode == 0, "room was made, and it still refuses"


def test_a_storage_class_that_is_missing_is_named(configured: Configure, tmp_path: Path) -> None:
    platform = configured(volumes={"models": {"size_gb": 1, "storage_class": "no-such-class"}})
    said = breakwater(tmp_path, "preflight", "cluster")
    assert said.returncode == 3, said.stdout
    assert "kubernetes.volumes.models wants storage class no-such-class, which does not exist" in said.stderr
    assert not _exists(platform)


def test_an_image_that_is_missing_is_named_and_corrected(configured: Configure, tmp_path: Path) -> None:
    """One component alone, the cache: it needs nobody else to be ready."""
    wrong = configured(images={"registry": "localhost/breakwater", "tag": "no-such-tag"})
    wrong.apply(_cache(wrong))
    image = wrong.plan.settings.images.reference("redis")
    eventually("status names the image", SEEN_S, lambda: f"image {image} cannot be had" in _states(tmp_path))
    right = configured()
    right.apply(_cache(right))
    right.rolled_out("deployment/redis", timeout_s=120)
    eventually("only the right one is left", SEEN_S, lambda: _states(tmp_path) == "ready")


def _cache(platform: Platform) -> list[Manifest]:
    return [
        made
        for made in platform.objects()
        if made["kind"] == "Namespace" or made["metadata"]["labels"].get(COMPONENT) == "redis"
    ]


def _states(project: Path) -> str:
    """What `breakwater status` says of the cache's pods, one after the other; other components are missing here."""
    said = breakwater(project, "status", "cluster", "--json")
    assert said.returncode == 1, said.stderr
    return ", ".join(line["state"] for line in json.loads(said.stdout) if line["component"] == "redis")


def _exists(platform: Platform) -> bool:
    try:
        platform.kubectl("get", "namespace", NAMESPACE)
    except KubectlFailed:
        return False
    return True
