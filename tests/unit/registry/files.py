"""A model source of plain files, for tests without servers: <name>/<version>/{model.zip,model.json} and current.json.

Publishing writes the version completely, then moves the pointer; each step is a write beside the place, fsync and
rename, so that a reader (or a power cut) sees the old state or the new one.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from services.contracts.flights import contract_schema
from services.registry import (
    Announced,
    ArtifactCorrupt,
    Candidate,
    Golden,
    GoldenRow,
    ModelCard,
    ModelFiles,
    NoModel,
    Pointer,
    VersionTaken,
    sha256_of,
)
from services.registry.store import write_whole

NO_MANIFEST = "0" * 64
GOLDEN_PROBABILITY = 0.25
GOLDEN_FEATURES: dict[str, float | str | None] = {
    "month": 7,
    "day_of_week": 5,
    "departure_minute": 1170,
    "arrival_minute": 1300,
    "distance": 733,
    "carrier": "EV",
    "origin": "EWR",
    "dest": "ORD",
}


class FileRegistry:
    """Reads and publishes models below one directory."""

    def __init__(self, models_dir: Path) -> None:
        self._root = models_dir
        self.candidate: Candidate | None = None
        self.golden = Golden(rows=(GoldenRow(features=GOLDEN_FEATURES, probability=GOLDEN_PROBABILITY),))
        self.contract = contract_schema()

    def pointer(self) -> Pointer:
        """What serves now. NoModel before the first publication, ArtifactCorrupt when the file is damaged."""
        path = self._root / "current.json"
        try:
            return Pointer.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise NoModel(f"{path} does not exist: train and publish a model") from None
        except (OSError, ValidationError) as error:
            raise ArtifactCorrupt(f"{path} is not a model pointer ({error}): publish a model again") from error

    def look(self) -> Announced:
        try:
            return Announced("current.json", stored=self.pointer(), candidate=self.candidate)
        except NoModel:
            return Announced("current.json", candidate=self.candidate)
        except ArtifactCorrupt as error:
            return Announced("current.json", damage=str(error), candidate=self.candidate)

    def open(self, pointer: Pointer) -> ModelFiles:
        return self.read(pointer.name, pointer.version)

    def read(self, name: str, version: str) -> ModelFiles:
        """A version with its checksum verified; ArtifactCorrupt says which file is wrong and how."""
        directory = self._root / name / version
        try:
            card = ModelCard.model_validate_json((directory / "model.json").read_bytes())
            actual = sha256_of(directory / "model.zip")
        except (OSError, ValidationError) as error:
            raise ArtifactCorrupt(f"model {name} {version} in {directory} is unreadable: {error}") from error
        if (card.name, card.version) != (name, version):
            raise ArtifactCorrupt(f"{directory}/model.json is the card of {card.name} {card.version}: publish again")
        if actual != card.sha256:
            raise ArtifactCorrupt(f"{directory}/model.zip has sha256 {actual}, its card says {card.sha256}")
        return ModelFiles(directory / "model.zip", card, self.golden, self.contract)

    def publish(self, artifact: Path, card: ModelCard) -> Pointer:
        """Store the version and point to it. The same version again is allowed with the same content only."""
        if (actual := sha256_of(artifact)) != card.sha256:
            raise ArtifactCorrupt(f"{artifact} has sha256 {actual}, its card says {card.sha256}: train again")
        with self._locked():
            self.store(artifact, card)
            return self.point(card.name, card.version)

    def activate(self, name: str, version: str) -> Pointer:
        """Point to a version that is already stored (a rollback, for example)."""
        self.read(name, version)
        with self._locked():
            return self.point(name, version)

    def store(self, artifact: Path, card: ModelCard) -> None:
        directory = self._root / card.name / card.version
        if (directory / "model.json").exists():
            if self.read(card.name, card.version).card.sha256 != card.sha256:
                raise VersionTaken(f"{directory} holds another artifact: choose a new version")
            return
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(directory / "model.zip", artifact.read_bytes())
        write_whole(directory / "model.json", card.to_json().encode())

    def point(self, name: str, version: str) -> Pointer:
        try:
            generation = self.pointer().generation + 1
        except NoModel:
            generation = 1
        pointer = Pointer(name=name, version=version, generation=generation, manifest=NO_MANIFEST)
        write_whole(self._root / "current.json", pointer.to_json().encode())
        return pointer

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One publisher at a time, so that no generation is given twice."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
