"""What the feature store can refuse or fail with; what a write's error says about durability is part of its type."""

from __future__ import annotations

from collections.abc import Collection


class FeatureStoreError(Exception):
    """Root of the package's errors."""


class ShardUnavailable(FeatureStoreError):
    """The shard did not serve the request. A write that raises this is certainly not applied.

    `broke`: a connection failed in use, so another one may serve; else the shard as a whole did not.
    """

    def __init__(self, shard: int, reason: str, *, broke: bool = False) -> None:
        super().__init__(f"shard {shard} did not serve the request: {reason}; nothing was applied, try again")
        self.shard = shard
        self.reason = reason
        self.broke = broke


class CommitUnknown(FeatureStoreError):
    """COMMIT was sent and no clean answer came back: the row may or may not be durable."""

    def __init__(self, shard: int, reason: str) -> None:
        super().__init__(
            f"shard {shard} did not acknowledge the commit: {reason}; the write may be applied or not, "
            "repeat it with the same idempotency key"
        )
        self.shard = shard
        self.reason = reason


class NotOwner(FeatureStoreError):
    """The shard no longer owns the slot; nothing was applied. Read the slot map again and retry."""

    def __init__(self, shard: int, slot: int, generation: int) -> None:
        super().__init__(
            f"shard {shard} does not own slot {slot} that slot map generation {generation} gives it; "
            "read the map again and retry"
        )
        self.shard = shard
        self.slot = slot
        self.generation = generation


class InvalidRequest(FeatureStoreError):
    """The shard refused the value itself (no partition for its time, a character it cannot store); nothing applied."""

    def __init__(self, shard: int, reason: str) -> None:
        super().__init__(f"shard {shard} refused the values: {reason}; correct them, a retry will not help")
        self.shard = shard
        self.reason = reason


class SchemaSkew(FeatureStoreError):
    """A shard's schema is not one that this release serves; the message names each of `shards` and its revision."""

    def __init__(self, message: str, shards: Collection[int] = ()) -> None:
        super().__init__(message)
        self.shards = frozenset(shards)


class MigrationFailed(FeatureStoreError):
    """A migration failed; the message names shard and revision, and whether anything changed."""


class SlotMapError(FeatureStoreError):
    """The slot map is missing, malformed, or contradicts the shards."""


class NotProvisioned(FeatureStoreError):
    """A primary refused what a shard needs before it can be used."""
