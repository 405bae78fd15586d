"""Which stored vector is meant, and looking it up within the time that its caller allows."""

from __future__ import annotations

import asyncio
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict

from services.api.problems import DeadlineExceeded
from services.featurestore.store import FeatureStore, Reading


class StoredVector(BaseModel):
    """The vector of this entity and time, from a standby unless `read_your_writes`. A name that is not known is
    refused: a misspelt `read_your_writes` would be a stale read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entity_id: UUID
    event_time: AwareDatetime
    read_your_writes: bool = False


async def look_up(store: FeatureStore, wanted: StoredVector, patience_s: float) -> Reading:
    """What the store has, perhaps nothing; DeadlineExceeded when it does not say so within `patience_s`."""
    try:
        async with asyncio.timeout(patience_s):
            return await store.look_up(
                wanted.entity_id,
                wanted.event_time,
                read_your_writes=wanted.read_your_writes,
                timeout_s=patience_s,
            )
    except TimeoutError:
        raise DeadlineExceeded("the features were not read in time: try again, or allow more time") from None
