"""What a model's keys in etcd say at one moment: the pointer, a candidate, and which replicas live and what they say.

All but the pointer are leased: a process that is gone, or hangs as a whole, takes no part after its lease has ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.coordination.etcd import KeyValue
from services.registry.card import Name, Sha256
from services.registry.errors import ArtifactCorrupt, NoModel


class Record(BaseModel):
    """A key's value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal[1] = Field(default=1, alias="schema")

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True)


class Pointer(Record):
    """Which version serves. `generation` grows with every move, also when it moves back to an older version."""

    name: Name
    version: Name
    generation: int = Field(ge=1)
    manifest: Sha256

    def same_version(self, other: Pointer) -> bool:
        """Whether both name the same content, at whatever generation."""
        return (self.name, self.version, self.manifest) == (other.name, other.version, other.manifest)


class Candidate(Record):
    """What is to serve next, at that generation if nothing comes between. `attempt` tells one try from the next."""

    attempt: str
    pointer: Pointer


class Verdict(Record):
    """One replica's answer to one attempt; `refused` is the reason, None means prepared."""

    attempt: str
    refused: str | None


class Refusal(Record):
    """The last version that a replica refused, and why."""

    version: str
    reason: str


class ReplicaState(Record):
    """One live replica: what it serves (generation 0 and no version before the first), what it refused since then."""

    replica: str
    version: Name | None = None
    generation: int = Field(default=0, ge=0)
    refused: Refusal | None = None


@dataclass(frozen=True, slots=True)
class LiveReplica:
    """A replica's state, and its answer if it gave one in this life of it."""

    state: ReplicaState
    verdict: Verdict | None

    def answer_to(self, attempt: str) -> Verdict | None:
        return self.verdict if self.verdict is not None and self.verdict.attempt == attempt else None


@dataclass(frozen=True, slots=True)
class Announced:
    """One model's keys, read in one step. `damage` says what is wrong with a pointer that is there."""

    pointer_key: str
    stored: Pointer | None = None
    damage: str | None = None
    candidate: Candidate | None = None
    replicas: tuple[LiveReplica, ...] = ()

    def pointer(self) -> Pointer:
        """NoModel before the first promotion, ArtifactCorrupt when the key is damaged."""
        if self.damage is not None:
            raise ArtifactCorrupt(self.damage)
        if self.stored is None:
            raise NoModel(f"etcd has no {self.pointer_key}: train a model, or promote one")
        return self.stored


def model_prefix(environment: str, model: str) -> str:
    return f"/breakwater/{environment}/models/{model}/"


def pointer_key(environment: str, model: str) -> str:
    return f"{model_prefix(environment, model)}pointer"


def candidate_key(environment: str, model: str) -> str:
    return f"{model_prefix(environment, model)}candidate"


def replica_key(environment: str, model: str, replica: str) -> str:
    """Says that the replica lives."""
    return f"{model_prefix(environment, model)}replicas/{replica}"


def prepared_key(environment: str, model: str, replica: str) -> str:
    """The replica's answer to a candidate."""
    return f"{model_prefix(environment, model)}prepared/{replica}"


def parse_pointer(found: KeyValue) -> Pointer:
    try:
        return Pointer.model_validate_json(found.value)
    except ValidationError as error:
        raise ArtifactCorrupt(
            f"etcd key {found.key} is not a model pointer ({error}): promote a model again"
        ) from error


def announced(environment: str, model: str, keys: Iterable[KeyValue]) -> Announced:
    """From the keys below the model's prefix. A replica's answer counts only with the lease by which it lives:
    one of an earlier life, before a restart, says nothing of what the replica holds now."""
    found = {each.key: each for each in keys}
    key = pointer_key(environment, model)
    pointer: Pointer | None = None
    damage: str | None = None
    if key in found:
        try:
            pointer = parse_pointer(found[key])
        except ArtifactCorrupt as error:
            damage = str(error)
    replicas = []
    for name, each in sorted(found.items()):
        state = _parse(ReplicaState, each) if name.startswith(replica_key(environment, model, "")) else None
        if state is not None:
            answer = found.get(prepared_key(environment, model, state.replica))
            verdict = _parse(Verdict, answer) if answer is not None and answer.lease == each.lease else None
            replicas.append(LiveReplica(state, verdict))
    candidate = found.get(candidate_key(environment, model))
    return Announced(
        pointer_key=key,
        stored=pointer,
        damage=damage,
        candidate=None if candidate is None else _parse(Candidate, candidate),
        replicas=tuple(replicas),
    )


Parsed = TypeVar("Parsed", bound=Record)


def _parse(kind: type[Parsed], found: KeyValue) -> Parsed | None:
    """None when the key is damaged: it was never said, and its lease will end."""
    try:
        return kind.model_validate_json(found.value)
    except ValidationError:
        return None
