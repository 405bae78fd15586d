"""Images: one for each workload, from any base, without root, and only with packages that the platform has locked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra.on_kubernetes import IMAGES
from services.images.build import CHECKS

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = sorted(path.parent for path in (ROOT / "services" / "images").glob("*/Dockerfile"))
LOCKED = re.compile(r"^([a-z0-9][a-z0-9._-]*==\S+)", re.MULTILINE)


def test_every_workloads_image_is_built_and_checked() -> None:
    assert {folder.name for folder in FOLDERS} == set(IMAGES) == set(CHECKS)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_image_starts_from_any_base_and_ends_without_root(folder: Path) -> None:
    lines = (folder / "Dockerfile").read_text().splitlines()
    assert "ARG BASE_IMAGE=debian:bookworm-slim" in lines
    assert {line.split()[1] for line in lines if line.startswith("FROM ")} == {"${BASE_IMAGE}"}
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]


ENDS_BY = {"edge": "SIGUSR1"}
"""HAProxy cuts answers off at SIGTERM, which is what every other server takes for a good end, and Docker's default."""


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_image_is_ended_by_the_signal_that_its_server_takes_for_a_good_end(folder: Path) -> None:
    stated = re.findall(r"^STOPSIGNAL (\S+)$", (folder / "Dockerfile").read_text(), re.MULTILINE)
    assert (stated or ["SIGTERM"]) == [ENDS_BY.get(folder.name, "SIGTERM")]


@pytest.mark.parametrize(
    "lock", sorted((ROOT / "services" / "images").glob("*/requirements.lock")), ids=lambda lock: lock.parent.name
)
def test_an_image_has_the_versions_that_the_tests_run_with(lock: Path) -> None:
    tested = set(LOCKED.findall((ROOT / "requirements.lock").read_text()))
    shipped = set(LOCKED.findall(lock.read_text()))
    assert shipped
    assert shipped <= tested
    assert lock.read_text().count("--hash=sha256:") >= len(shipped)
