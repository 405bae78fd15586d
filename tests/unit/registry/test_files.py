"""Cards and windows, and the files that stand in for a registry in tests: damage is named instead of served."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.registry import (
    ArtifactCorrupt,
    Feature,
    Metrics,
    ModelCard,
    NoModel,
    Rows,
    TrainingWindow,
    VersionTaken,
    sha256_of,
)
from tests.unit.registry.files import NO_MANIFEST, FileRegistry

DAY = timedelta(days=1)
START = datetime(2013, 1, 1, tzinfo=UTC)


def window(**changes: datetime) -> TrainingWindow:
    moments = {
        "train_start": START,
        "train_end": START + DAY,
        "test_start": START + 2 * DAY,
        "test_end": START + 3 * DAY,
    }
    return TrainingWindow(**(moments | changes))


def artifact(directory: Path, content: bytes = b"trees") -> Path:
    path = directory / "trained.zip"
    path.write_bytes(content)
    return path


def card(path: Path, *, version: str = "v1") -> ModelCard:
    return ModelCard(
        name="flight-delay",
        version=version,
        sha256=sha256_of(path),
        features=(Feature(name="month"), Feature(name="origin", domain=("EWR", "JFK"))),
        target="late",
        threshold=0.3,
        metrics=Metrics(auc=0.7, logloss=0.5, prior=0.2),
        rows=Rows(train=10, test=5),
        window=window(),
        seed=1,
        trainer="test",
    )


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    return FileRegistry(tmp_path / "models")


def test_nothing_is_published_at_first(registry: FileRegistry) -> None:
    with pytest.raises(NoModel, match="publish a model"):
        registry.pointer()


def test_a_published_version_is_read_back(registry: FileRegistry, tmp_path: Path) -> None:
    path = artifact(tmp_path)
    pointer = registry.publish(path, card(path))
    assert (pointer.name, pointer.version, pointer.generation) == ("flight-delay", "v1", 1)
    files = registry.read("flight-delay", "v1")
    assert files.artifact.read_bytes() == b"trees"
    assert files.card == card(path)
    assert registry.pointer() == pointer
    stored = json.loads((tmp_path / "models" / "current.json").read_text())
    assert stored == {"schema": 1, "name": "flight-delay", "version": "v1", "generation": 1, "manifest": NO_MANIFEST}


def test_the_generation_grows_also_on_rollback(registry: FileRegistry, tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        path = artifact(tmp_path, version.encode())
        registry.publish(path, card(path, version=version))
    pointer = registry.activate("flight-delay", "v1")
    assert (pointer.version, pointer.generation) == ("v1", 3)


def test_publishing_the_same_version_again_keeps_its_content(registry: FileRegistry, tmp_path: Path) -> None:
    path = artifact(tmp_path)
    registry.publish(path, card(path))
    assert registry.publish(path, card(path)).generation == 2
    changed = artifact(tmp_path, b"other trees")
    with pytest.raises(VersionTaken, match="new version"):
        registry.publish(changed, card(changed))
    assert registry.read("flight-delay", "v1").artifact.read_bytes() == b"trees"


def test_a_changed_artifact_is_refused(registry: FileRegistry, tmp_path: Path) -> None:
    path = artifact(tmp_path)
    registry.publish(path, card(path))
    (tmp_path / "models" / "flight-delay" / "v1" / "model.zip").write_bytes(b"treez")
    with pytest.raises(ArtifactCorrupt, match="has sha256"):
        registry.read("flight-delay", "v1")


def test_an_artifact_that_is_not_its_cards_is_never_stored(registry: FileRegistry, tmp_path: Path) -> None:
    path = artifact(tmp_path)
    described = card(path)
    path.write_bytes(b"swapped")
    with pytest.raises(ArtifactCorrupt, match="train again"):
        registry.publish(path, described)
    with pytest.raises(NoModel):
        registry.pointer()


@pytest.mark.parametrize("content", ["", "{", '{"schema":2,"name":"a","version":"b","generation":1}', "[]"])
def test_a_damaged_pointer_is_named(registry: FileRegistry, tmp_path: Path, content: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "current.json").write_text(content)
    with pytest.raises(ArtifactCorrupt, match=r"current\.json"):
        registry.pointer()


@pytest.mark.parametrize("version", ["../v1", ".", "", "a/b", "V1"])
def test_versions_cannot_leave_the_directory(tmp_path: Path, version: str) -> None:
    path = artifact(tmp_path)
    with pytest.raises(ValidationError):
        card(path, version=version)


def test_a_window_that_looks_into_the_future_is_refused() -> None:
    with pytest.raises(ValidationError, match="training must end before testing starts"):
        window(test_start=START + DAY)
    with pytest.raises(ValidationError, match="training must end before testing starts"):
        window(train_end=START + 2 * DAY + timedelta(hours=1))
