"""Which keys a load process writes: unique per process and shard, and everything about a row follows from its key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Final
from uuid import UUID

from services.contracts.slots import SlotMap

PROCESS_SHIFT: Final = 48
SHARD_SHIFT: Final = 40
"""A key is process (16 bits), shard (8 bits), counter (40 bits): 10^12 keys for each process and shard."""
RUN_TAG_SHIFT: Final = 64
KEY_MASK: Final[int] = (1 << RUN_TAG_SHIFT) - 1
VALUE_SPAN: Final = 2**31 - 1
"""Values are 1 .. 2**31 - 1: the vector field that carries them is a positive distance below 2**31."""
SEGMENT: Final = "BW"
"""Carrier and segment of the rows that load writes; no airline of the data set has this code."""


def entity_of(run_tag: int, key: int) -> UUID:
    """The entity that `key` of a run writes: the run's tag in the high 64 bits, the key in the low ones."""
    return UUID(int=(run_tag << RUN_TAG_SHIFT) | key)


def key_of(entity: UUID) -> int:
    """The key of an entity that `entity_of` made."""
    return entity.int & KEY_MASK


def value_of(run_tag: int, key: int) -> int:
    """The value that the row of `key` must hold, so that a row mixed up with another one shows."""
    digest = hashlib.blake2b(entity_of(run_tag, key).bytes, digest_size=8, person=b"value").digest()
    return 1 + int.from_bytes(digest, "big") % VALUE_SPAN


def keys_of(run_tag: int, process: int, shard: int, slot_map: SlotMap) -> Iterator[int]:
    """Endless keys of one process whose entities the slot map gives to `shard`; others are passed over.

    ValueError when the map gives the shard no slot at all (the search would never end).
    """
    if shard not in slot_map.owners:
        raise ValueError(f"slot map generation {slot_map.generation} gives shard {shard} no slot: no key can go there")
    key = process << PROCESS_SHIFT | shard << SHARD_SHIFT
    while True:
        if slot_map.shard_of(entity_of(run_tag, key)) == shard:
            yield key
        key += 1


def vector_of(value: int, event_time: datetime) -> dict[str, object]:
    """A valid feature vector that carries `value` (see services.contracts.flights)."""
    return {
        "month": event_time.month,
        "day_of_week": event_time.isoweekday(),
        "departure_minute": 0,
        "arrival_minute": 0,
        "distance": value,
        "carrier": SEGMENT,
        "origin": "LGA",
        "dest": "BOS",
    }
