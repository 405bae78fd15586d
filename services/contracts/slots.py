"""Which shard owns an entity: entity -> one of 1,024 slots -> shard, by a versioned map kept in etcd."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

SLOTS = 1024
"""Fixed for ever: moving data means moving slots, never rehashing entities."""


def slot_of(entity_id: UUID) -> int:
    """Slot 0..1023 of an entity; the same in every process and release."""
    digest = hashlib.blake2b(entity_id.bytes, digest_size=8).digest()
    return int.from_bytes(digest, "big") % SLOTS


def slots_key(environment: str) -> str:
    """etcd key that holds the environment's slot map."""
    return f"/breakwater/{environment}/slots"


class SlotMap(BaseModel):
    """Owner shard of every slot; `generation` grows with each change and never falls."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    generation: Annotated[int, Field(ge=1)]
    owners: Annotated[list[int], Field(min_length=SLOTS, max_length=SLOTS)]

    @model_validator(mode="after")
    def _owners_are_shards(self) -> SlotMap:
        if min(self.owners) < 0:
            raise ValueError("a slot's owner is a shard number, 0 or more")
        return self

    @classmethod
    def even(cls, shards: int) -> SlotMap:
        """The first map: contiguous, equal ranges of slots."""
        return cls(generation=1, owners=[slot * shards // SLOTS for slot in range(SLOTS)])

    def shard_of(self, entity_id: UUID) -> int:
        return self.owners[slot_of(entity_id)]

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True)
