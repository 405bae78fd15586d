"""What serves now, as those who serve see it: a pointer in etcd, and a chain of digests down to the artifact."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

from pydantic import ValidationError

from services.coordination.etcd import Compare, EtcdClient, EtcdError, Put
from services.registry.announced import Announced, Pointer, Record, announced, model_prefix, parse_pointer, pointer_key
from services.registry.card import ModelCard, Name, Sha256
from services.registry.errors import (
    ArtifactCorrupt,
    PointerMoved,
    PointerUnreachable,
)
from services.registry.golden import Golden
from services.registry.store import ArtifactStore, write_whole

ArtifactKind = Literal["mojo", "card", "golden", "contract"]


class Manifest(Record):
    """What belongs to a version, by digest; its own digest names all of it."""

    name: Name
    version: Name
    artifacts: dict[ArtifactKind, Sha256]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A version whose artifact matched its card when it was read. `contract`: JSON Schema of what it takes."""

    artifact: Path
    card: ModelCard
    golden: Golden
    contract: str


class ModelSource(Protocol):
    """Where a replica learns what to serve, and what may serve next."""

    def look(self) -> Announced: ...

    def open(self, pointer: Pointer) -> ModelFiles: ...


def read_manifest(store: ArtifactStore, digest: str, name: str, version: str) -> Manifest:
    """The version's manifest with every artifact verified; ArtifactCorrupt names what is wrong."""
    try:
        manifest = Manifest.model_validate_json(store.read(digest))
    except ValidationError as error:
        raise ArtifactCorrupt(f"manifest {digest} of {name} {version} is not one: {error}") from error
    if (manifest.name, manifest.version) != (name, version):
        raise ArtifactCorrupt(f"manifest {digest} belongs to {manifest.name} {manifest.version}, not {name} {version}")
    return manifest


def open_version(store: ArtifactStore, digest: str, name: str, version: str) -> ModelFiles:
    """The version behind a manifest's digest: everything verified, and belonging together."""
    manifest = read_manifest(store, digest, name, version)
    missing = set(get_args(ArtifactKind)) - set(manifest.artifacts)
    if missing:
        raise ArtifactCorrupt(f"manifest {digest} of {name} {version} names no {', '.join(sorted(missing))}")
    try:
        card = ModelCard.model_validate_json(store.read(manifest.artifacts["card"]))
        golden = Golden.model_validate_json(store.read(manifest.artifacts["golden"]))
    except ValidationError as error:
        raise ArtifactCorrupt(f"card or golden rows of {name} {version} are unreadable: {error}") from error
    if (card.name, card.version, card.sha256) != (name, version, manifest.artifacts["mojo"]):
        raise ArtifactCorrupt(f"the card of {name} {version} describes {card.name} {card.version} {card.sha256}")
    contract = store.read(manifest.artifacts["contract"]).decode(errors="replace")
    return ModelFiles(store.fetch(card.sha256), card, golden, contract)


class PublishedModels:
    """One model's pointer in etcd and the store behind it. Remembers the last pointer on disk for when etcd is away."""

    def __init__(self, client: EtcdClient, environment: str, model: str, store: ArtifactStore, memory: Path) -> None:
        """`memory`: a directory of this reader's own, made if absent."""
        self._client = client
        self._environment = environment
        self._model = model
        self._store = store
        self._memory = memory / f"{model}.json"
        self._last: Pointer | None = None

    def look(self) -> Announced:
        """What serves now and what may serve next, read in one step.

        While etcd is away the last pointer known and nothing else, also after a restart: a model that serves goes on
        serving. PointerUnreachable when none is known.
        """
        try:
            keys = self._client.get_prefix(model_prefix(self._environment, self._model))
        except EtcdError as error:
            return Announced(pointer_key(self._environment, self._model), stored=self._remembered(error))
        seen = announced(self._environment, self._model, keys)
        if seen.stored is not None and seen.stored != self._last:
            with contextlib.suppress(OSError):  # a full disk costs the memory, not the model
                write_whole(self._memory, seen.stored.to_json().encode())
            self._last = seen.stored
        return seen

    def open(self, pointer: Pointer) -> ModelFiles:
        return open_version(self._store, pointer.manifest, pointer.name, pointer.version)

    def _remembered(self, cause: EtcdError) -> Pointer:
        if self._last is None:
            try:
                self._last = Pointer.model_validate_json(self._memory.read_bytes())
            except (OSError, ValidationError):
                raise PointerUnreachable(f"{cause}; no earlier pointer is known here") from cause
        return self._last


def published_generation(client: EtcdClient, environment: str, model: str) -> int:
    """The generation that etcd holds; 0 when there is none, or none that can be read. Raises EtcdUnavailable."""
    found = client.get(pointer_key(environment, model))
    try:
        return 0 if found is None else parse_pointer(found).generation
    except ArtifactCorrupt:
        return 0


def publish(client: EtcdClient, environment: str, pointer: Pointer) -> bool:
    """Move the pointer forward by compare-and-swap; False when it was there already.

    A pointer that cannot be read is overwritten: the registry knows what it must say. PointerMoved when it is at that
    generation or beyond with something else, or moved at the same moment. Raises EtcdUnavailable.
    """
    key = pointer_key(environment, pointer.name)
    found = client.get(key)
    if found is not None and found.value == pointer.to_json():
        return False
    now = published_generation(client, environment, pointer.name)
    if now >= pointer.generation:
        raise PointerMoved(f"{key} is at generation {now} already, not before {pointer.generation}")
    unchanged = Compare(key, "mod_revision", found.mod_revision if found else 0)
    if not client.transact([unchanged], [Put(key, pointer.to_json())]).succeeded:
        raise PointerMoved(f"{key} was moved at the same moment")
    return True
